//go:build e2e

package e2e

import (
	"archive/tar"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/test/node"
)

// rootfs is a node with an image that has a root file system: the copy guest
// behind a link, a file to read, and a program of Linux.
type rootfs struct {
	*node.Node
	image string
}

func newRootfs(t *testing.T) rootfs {
	t.Helper()
	n := startNode(t)
	module, err := os.ReadFile(filepath.Join(n.Guests, "copy.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	elf, err := os.ReadFile(filepath.Join(n.Bin, "limpetd"))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := node.Layer(
		node.Entry{Header: tar.Header{Name: "app/", Typeflag: tar.TypeDir, Mode: 0o755}},
		node.Entry{Header: tar.Header{Name: "app/copy.wasm", Mode: 0o644}, Body: module},
		node.Entry{Header: tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}},
		node.Entry{Header: tar.Header{Name: "bin/copy", Typeflag: tar.TypeSymlink, Linkname: "/app/copy.wasm", Mode: 0o777}},
		node.Entry{Header: tar.Header{Name: "bin/native", Mode: 0o755}, Body: elf[:4096]},
		node.Entry{Header: tar.Header{Name: "data/", Typeflag: tar.TypeDir, Mode: 0o755}},
		node.Entry{Header: tar.Header{Name: "data/letter.txt", Mode: 0o444}, Body: []byte("dear reader")},
		node.Entry{Header: tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}},
	)
	if err != nil {
		t.Fatal(err)
	}
	config := v1.ImageConfig{
		Entrypoint: []string{"/bin/copy"}, Cmd: []string{"letter.txt", "/tmp/copy.txt"},
		Env: []string{"GREETING=from the image"}, WorkingDir: "/data", User: "1000:1000",
	}
	ref, err := n.PushImage(t.Context(), "rootfs", v1.Platform{OS: "linux", Architecture: "amd64"}, config, layer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Pull(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	return rootfs{n, ref}
}

// run runs a container to its end and returns its status and log.
func (r rootfs) run(t *testing.T, name string, change func(*runtime.ContainerConfig)) (*runtime.ContainerStatus, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sandbox := node.Sandbox(name, filepath.Join(r.Dir, "logs", name), r.Cgroup, runtime.NamespaceMode_POD)
	c := node.Container("c", r.image)
	change(c)
	p, err := r.RunPod(ctx, "limpet", sandbox, c)
	if err != nil {
		t.Fatal(err)
	}
	st, err := r.AwaitExit(ctx, p.Container)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(st.GetLogPath())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.RemovePod(ctx, p.Sandbox); err != nil {
		t.Error(err)
	}
	return st, string(log)
}

func TestRootfs(t *testing.T) {
	r := newRootfs(t)
	t.Run("entry point, environment, folder and user of the image", func(t *testing.T) {
		st, log := r.run(t, "image", func(*runtime.ContainerConfig) {})
		for _, want := range []string{`GREETING="from the image"`, "copied 11 bytes from letter.txt to /tmp/copy.txt", "writing to letter.txt was refused"} {
			if !strings.Contains(log, want) {
				t.Errorf("the log lacks %q:\n%s", want, log)
			}
		}
		if st.GetExitCode() != 0 || st.GetUser().GetLinux().GetUid() != 1000 {
			t.Errorf("exit %d, user %v", st.GetExitCode(), st.GetUser())
		}
	})
	t.Run("a read-only root", func(t *testing.T) {
		st, log := r.run(t, "ro", func(c *runtime.ContainerConfig) {
			c.Linux.SecurityContext = &runtime.LinuxContainerSecurityContext{ReadonlyRootfs: true}
		})
		if st.GetExitCode() != 1 || !strings.Contains(log, "Read-only file system") {
			t.Errorf("exit %d:\n%s", st.GetExitCode(), log)
		}
	})
	t.Run("what one container wrote is gone with it", func(t *testing.T) {
		st, log := r.run(t, "again", func(c *runtime.ContainerConfig) { c.Args = []string{"/tmp/copy.txt", "/tmp/again.txt"} })
		if st.GetExitCode() != 1 || !strings.Contains(log, "/tmp/copy.txt: No such file") {
			t.Errorf("exit %d:\n%s", st.GetExitCode(), log)
		}
		if left, err := os.ReadDir(filepath.Join(r.Dir, "lib", "layers")); err != nil || len(left) > 0 {
			t.Errorf("writable layers are left: %v, %v", left, err)
		}
	})
	t.Run("a program of Linux is refused by what it is", r.native)
}

func (r rootfs) native(t *testing.T) {
	sandbox := node.Sandbox("native", filepath.Join(r.Dir, "logs", "native"), r.Cgroup, runtime.NamespaceMode_POD)
	c := node.Container("c", r.image)
	c.Command = []string{"/bin/native"}
	p, err := r.RunPod(t.Context(), "limpet", sandbox, c)
	if err == nil || status.Code(err) == codes.Unknown || !strings.Contains(err.Error(), "/bin/native") || !strings.Contains(err.Error(), "ELF") {
		t.Errorf("CreateContainer answered %v", err)
	}
	if err := r.RemovePod(t.Context(), p.Sandbox); err != nil {
		t.Error(err)
	}
}
