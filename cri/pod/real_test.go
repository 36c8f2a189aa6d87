package pod_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/cri/network"
	"github.com/limpet-cri/limpet/cri/pod"
	"github.com/limpet-cri/limpet/image"
	"github.com/limpet-cri/limpet/shim"
	"github.com/limpet-cri/limpet/shim/cgroup"
	"github.com/limpet-cri/limpet/test/hostbuild"
	"github.com/limpet-cri/limpet/test/scratch"
)

// The tests in this package run the manager over the real parts: a registry on
// loopback, the image service, the supervisor with a limpet-host built here,
// namespaces and cgroups.

// unbuild removes what built made.
var unbuild = func() error { return nil }

var built = sync.OnceValues(func() (path string, err error) {
	path, done, err := hostbuild.Build()
	if err == nil {
		unbuild = done
	}
	return path, err
})

func TestMain(m *testing.M) {
	if config := os.Getenv(daemonEnv); config != "" {
		os.Exit(daemon(config))
	}
	code := m.Run()
	if err := unbuild(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// place is where a node keeps everything.
type place struct {
	Dir, Run, Host, Cgroup string
}

func newPlace(t testing.TB) place {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := cgroup.Detect(cgroup.Root); err != nil {
		t.Skip("needs cgroups: ", err)
	}
	host, err := built()
	if err != nil {
		t.Fatal(err)
	}
	dir, run := scratch.Dir(t), scratch.Dir(t)
	p := place{Dir: dir, Run: run, Host: host, Cgroup: "/" + filepath.Base(dir)}
	t.Cleanup(func() {
		h, err := cgroup.Detect(cgroup.Root)
		if err == nil {
			err = h.Open(p.Cgroup).Remove(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
	})
	return p
}

// stack is all that a daemon holds.
type stack struct {
	images *image.Service
	sup    *shim.Supervisor
	nets   *network.Namespaces
	*pod.Manager
}

// open starts a daemon's parts, which recover what is there.
func (p place) open(ctx context.Context, checkpoint func(string), out io.Writer) (*stack, error) {
	log := slog.New(slog.NewTextHandler(out, nil))
	h, err := cgroup.Detect(cgroup.Root)
	if err != nil {
		return nil, err
	}
	s := &stack{nets: network.New(filepath.Join(p.Run, "netns"))}
	if s.sup, err = shim.New(shim.Config{HostPath: p.Host, RunDir: filepath.Join(p.Run, "c"), Cgroups: h, CompileCgroup: p.Cgroup + "/compile", Checkpoint: checkpoint}, log); err != nil {
		return nil, err
	}
	if s.images, err = image.New(ctx, image.Config{Root: filepath.Join(p.Dir, "images")}, s.sup, log); err != nil {
		return nil, err
	}
	c := pod.DefaultConfig()
	c.Root, c.Run, c.Checkpoint = p.Dir, p.Run, checkpoint
	if s.Manager, err = pod.New(c, s.images, pod.Supervised(s.sup), s.nets, log); err != nil {
		return nil, err
	}
	return s, s.Recover(ctx)
}

func (s *stack) close() error {
	return errors.Join(s.Manager.Close(), s.images.Close(), s.sup.Close())
}

func (p place) sandbox(name string) *runtime.PodSandboxConfig {
	return &runtime.PodSandboxConfig{
		Metadata: &runtime.PodSandboxMetadata{Name: name, Namespace: "test", Uid: "uid-" + name}, Hostname: name,
		LogDirectory: filepath.Join(p.Dir, "logs", name), Linux: &runtime.LinuxPodSandboxConfig{CgroupParent: p.Cgroup},
	}
}

func (h hub) container(guest string) *runtime.ContainerConfig {
	return &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: guest}, Image: &runtime.ImageSpec{Image: h.ref(guest)}, LogPath: guest + "/0.log",
		Linux: &runtime.LinuxContainerConfig{Resources: &runtime.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, OomScoreAdj: 1000}},
	}
}

// inventory is everything on the node that a pod could leave behind, as sorted
// lines. Descriptors and leases are a daemon's to tell.
func (p place) inventory(t testing.TB) []string {
	t.Helper()
	var l []string
	add := func(what, dir string) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !strings.HasPrefix(dir, "/sys/") || e.IsDir() && e.Name() != "compile" {
				l = append(l, what+" "+e.Name())
			}
		}
	}
	add("sandbox", filepath.Join(p.Run, "sandboxes"))
	add("container", filepath.Join(p.Run, "containers"))
	add("layer", filepath.Join(p.Dir, "layers"))
	add("socket", filepath.Join(p.Run, "c"))
	add("netns", filepath.Join(p.Run, "netns"))
	for _, controller := range []string{"memory", "cpu", "cpuacct", "pids", ""} {
		add("cgroup "+controller, filepath.Join(cgroup.Root, controller, p.Cgroup))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, p.Dir) || strings.Contains(line, p.Run) {
			l = append(l, "mount "+strings.Fields(line)[4])
		}
	}
	for _, pid := range p.hosts() {
		l = append(l, "process "+pid)
	}
	slices.Sort(l)
	return l
}

// hosts returns the processes that run our limpet-host for a container; one that
// compiles, or names the engine, comes and goes by itself.
func (p place) hosts() []string {
	var l []string
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		exe, err := os.Readlink("/proc/" + e.Name() + "/exe")
		if err != nil || exe != p.Host {
			continue
		}
		if args, err := os.ReadFile("/proc/" + e.Name() + "/cmdline"); err == nil && bytes.Contains(args, []byte("\x00run\x00")) {
			l = append(l, e.Name())
		}
	}
	return l
}

// lines returns what a container wrote, without the log's framing.
func (p place) lines(t testing.TB, pod, guest string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.Dir, "logs", pod, guest, "0.log"))
	if err != nil {
		t.Fatal(err)
	}
	var l []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 4 || f[2] != "F" {
			t.Fatalf("log line %q", line)
		}
		l = append(l, f[3])
	}
	return l
}

// unbroken fails when numbers are missing from a counting guest's log.
func unbroken(t testing.TB, lines []string) {
	t.Helper()
	for i, line := range lines {
		if want := fmt.Sprintf("%07d", i); line != want {
			t.Fatalf("line %d of the log is %s, want %s: a gap", i, line, want)
		}
	}
}

// eventually waits for something that no event tells.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("never " + what)
		}
	}
}
