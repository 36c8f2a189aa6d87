package pod

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// mounts are the request's, and the sandbox's three files where the request
// brings none of its own.
func (m *Manager) mounts(s *sandbox, c *runtime.ContainerConfig) ([]specs.Mount, error) {
	if len(c.GetMounts()) > maxMounts {
		return nil, invalid("%d mounts; at most %d", len(c.GetMounts()), maxMounts)
	}
	var out []specs.Mount
	taken := map[string]bool{}
	for _, rm := range c.GetMounts() {
		if err := checkFields(subject{pod: s.config, ctr: c, mount: rm}); err != nil {
			return nil, err
		}
		om, err := bind(rm)
		if err != nil {
			return nil, err
		}
		if taken[om.Destination] {
			return nil, invalid("two mounts at %s", om.Destination)
		}
		taken[om.Destination] = true
		out = append(out, om)
	}
	for _, name := range []string{fileHostname, fileHosts, fileResolvConf} {
		if to := "/etc/" + name; !taken[to] {
			// Read-only: every container of the pod sees the same file.
			out = append(out, specs.Mount{Destination: to, Type: "bind", Source: filepath.Join(m.sandboxDir(s.id), name), Options: bindOptions(true)})
		}
	}
	return out, nil
}

func bind(m *runtime.Mount) (specs.Mount, error) {
	to, from := m.GetContainerPath(), m.GetHostPath()
	if !path.IsAbs(to) || strings.ContainsRune(to, 0) || path.Clean(to) == "/" {
		return specs.Mount{}, invalid("mount at %q: an absolute path below / is wanted", to)
	}
	if err := checkPath("the container path of a mount", path.Clean(to)); err != nil {
		return specs.Mount{}, err
	}
	if !filepath.IsAbs(from) {
		return specs.Mount{}, invalid("mount at %s: host path %q is not absolute", to, from)
	}
	switch _, err := os.Stat(from); {
	case errors.Is(err, fs.ErrNotExist):
		return specs.Mount{}, invalid("mount at %s: host path %s does not exist", to, from)
	case err != nil:
		return specs.Mount{}, invalid("mount at %s: %v", to, err)
	}
	return specs.Mount{Destination: path.Clean(to), Type: "bind", Source: from, Options: bindOptions(m.GetReadonly())}, nil
}

// bindOptions are those of every mount: private, and without what a guest
// could not use anyway. Read-only is recursively so.
func bindOptions(readonly bool) []string {
	o := []string{"rbind", "rprivate", "nosuid", "nodev", "noexec"}
	if readonly {
		return append(o, "ro", "rro")
	}
	return append(o, "rw")
}

// logPath is where the container's output goes, or nowhere.
func logPath(pod *runtime.PodSandboxConfig, c *runtime.ContainerConfig) (string, error) {
	dir, name := pod.GetLogDirectory(), c.GetLogPath()
	if dir == "" || name == "" {
		return "", nil
	}
	p := filepath.Join(dir, name)
	if !filepath.IsAbs(p) || !filepath.IsLocal(name) || p == filepath.Clean(dir) || strings.ContainsRune(p, 0) {
		return "", invalid("log %q is not the path of a file below an absolute log_directory %q", name, dir)
	}
	return p, nil
}
