package pod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/image"
	"github.com/limpet-cri/limpet/shim"
	"github.com/limpet-cri/limpet/shim/cgroup"
	"github.com/limpet-cri/limpet/shim/spec"
)

// world is what a node has besides a daemon's memory: it outlives managers, as
// processes, leases and namespaces outlive a daemon.
type world struct {
	mu     sync.Mutex
	images map[string]image.Image
	leases map[string]string
	nets   map[string]bool
	hosts  map[string]*fakeHost
	// fail makes a named act fail.
	fail map[string]error
}

func newWorld() *world {
	return &world{
		images: map[string]image.Image{testImage: {
			ID: testImage, RepoDigests: []string{"example.test/app@" + testImage}, Kind: "artifact", Size: 1,
			Config:  image.RunConfig{UID: image.DefaultUID, GID: image.DefaultUID, Env: []string{"A=image"}},
			Modules: []image.Module{{Path: "app.wasm", Layer: true}},
		}},
		leases: map[string]string{}, nets: map[string]bool{}, hosts: map[string]*fakeHost{}, fail: map[string]error{},
	}
}

const testImage = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func (w *world) fails(act string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fail[act]
}

// inventory is everything that must be gone in the end.
func (w *world) inventory() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var l []string
	for id := range w.leases {
		l = append(l, "lease "+id)
	}
	for id := range w.nets {
		l = append(l, "netns "+id)
	}
	for id := range w.hosts {
		l = append(l, "host "+id)
	}
	slices.Sort(l)
	return l
}

type fakeImages struct{ w *world }

func (f fakeImages) Status(ref string) (image.Image, bool, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	i, ok := f.w.images[ref]
	return i, ok, nil
}

func (f fakeImages) Prepare(_ context.Context, ref, id, _ string, _ []string) (*image.Prepared, error) {
	if err := f.w.fails("prepare"); err != nil {
		return nil, err
	}
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.w.leases[id] = ref
	i := f.w.images[ref]
	return &image.Prepared{Image: i, Ref: i.RepoDigests[0], Code: "/code", Module: "app.wasm"}, nil
}

func (f fakeImages) Release(_ context.Context, id string) error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	delete(f.w.leases, id)
	return nil
}

func (f fakeImages) Leased(context.Context) ([]string, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	return slices.Collect(maps.Keys(f.w.leases)), nil
}

type fakeNets struct{ w *world }

func (f fakeNets) Create(_ context.Context, id string) (string, error) {
	if err := f.w.fails("network"); err != nil {
		return "", err
	}
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.w.nets[id] = true
	return "/run/netns/" + id, nil
}

func (f fakeNets) Remove(_ context.Context, id string) error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	delete(f.w.nets, id)
	return nil
}

func (f fakeNets) List() ([]string, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	return slices.Collect(maps.Keys(f.w.nets)), nil
}

type fakeHosts struct{ w *world }

func (f fakeHosts) Create(_ context.Context, c *spec.Container, _ *os.File) (Host, error) {
	if err := f.w.fails("host"); err != nil {
		return nil, err
	}
	h := &fakeHost{w: f.w, spec: c, phase: spec.PhaseReady, done: make(chan struct{})}
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.w.hosts[c.ID] = h
	return h, nil
}

func (f fakeHosts) Adopt(_ context.Context, c *spec.Container) (Host, error) {
	if err := f.w.fails("adopt"); err != nil {
		return nil, err
	}
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if h, ok := f.w.hosts[c.ID]; ok {
		return h, nil
	}
	return nil, ErrNotFound
}

func (f fakeHosts) Remove(_ context.Context, c *spec.Container) error {
	f.w.mu.Lock()
	h := f.w.hosts[c.ID]
	delete(f.w.hosts, c.ID)
	f.w.mu.Unlock()
	if h != nil {
		h.end(spec.CodeKilled, spec.ReasonKilled)
	}
	return os.RemoveAll(c.Dir)
}

// fakeHost is a process. deaf ones ignore the stop signal; those that hang do
// not answer at all.
type fakeHost struct {
	w     *world
	spec  *spec.Container
	deaf  bool
	hangs bool
	done  chan struct{}
	mu    sync.Mutex
	phase spec.Phase
	exit  spec.Exit
	limit *specs.LinuxResources
	bound shim.Bound
	oom   int
	logs  int
}

func (h *fakeHost) end(code int32, r spec.Reason) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.phase == spec.PhaseEnding {
		return
	}
	h.phase = spec.PhaseEnding
	h.exit = spec.Exit{Code: code, Reason: r, At: time.Now(), Message: "ended by the test"}
	close(h.done)
}

// answers waits, as one does for a host that hangs.
func (h *fakeHost) answers(ctx context.Context) error {
	if !h.hangs {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-h.done:
		return shim.ErrEnded
	}
}

func (h *fakeHost) Start(ctx context.Context) error {
	if err := errors.Join(h.w.fails("start"), h.answers(ctx)); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.phase = spec.PhaseRunning
	return nil
}

func (h *fakeHost) Stop(ctx context.Context, s syscall.Signal) error {
	if err := errors.Join(h.w.fails("stop"), h.answers(ctx)); err != nil {
		return err
	}
	if !h.deaf {
		h.end(spec.CodeSignalBase+int32(s), spec.ReasonStopped)
	}
	return nil
}

func (h *fakeHost) Kill() error {
	if err := h.w.fails("kill"); err != nil {
		return err
	}
	h.end(spec.CodeKilled, spec.ReasonKilled)
	return nil
}

func (h *fakeHost) ReopenLog(context.Context) error { h.logs++; return nil }

func (h *fakeHost) Resize(_ context.Context, r *specs.LinuxResources, b shim.Bound) error {
	if err := h.w.fails("resize"); err != nil {
		return err
	}
	h.limit, h.bound = r, b
	return nil
}

func (h *fakeHost) SetOOMScoreAdj(n int) error { h.oom = n; return nil }

func (h *fakeHost) Stats() (cgroup.Stats, error) {
	return cgroup.Stats{At: time.Now(), MemoryUsage: 3, MemoryWorkingSet: 2, MemoryRSS: 1, CPUNanoseconds: 4}, nil
}

func (h *fakeHost) Phase() spec.Phase {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.phase
}

func (h *fakeHost) Done() <-chan struct{} { return h.done }
func (h *fakeHost) Exit() spec.Exit       { return h.exit }
func (h *fakeHost) PID() int              { return 4242 }

// node is a world with a disk, on which managers can be started again.
type node struct {
	*world
	t   testing.TB
	cfg Config
}

func newNode(t testing.TB) *node {
	t.Helper()
	c := DefaultConfig()
	dir, err := os.MkdirTemp("", "pod")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c.Root, c.Run = filepath.Join(dir, "root"), filepath.Join(dir, "run")
	return &node{world: newWorld(), t: t, cfg: c}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start starts a daemon on the node.
func (n *node) start() *Manager {
	n.t.Helper()
	m, err := New(n.cfg, fakeImages{n.world}, fakeHosts{n.world}, fakeNets{n.world}, quiet())
	if err != nil {
		n.t.Fatal(err)
	}
	if err := m.Recover(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { m.Close() })
	return m
}

func (n *node) host(id string) *fakeHost {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hosts[id]
}

// leftovers are what is on the node: of the world and on disk.
func (n *node) leftovers() []string {
	l := n.inventory()
	for _, d := range n.cfg.folders() {
		entries, err := os.ReadDir(d)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, e := range entries {
			l = append(l, "folder "+filepath.Base(d)+"/"+e.Name())
		}
	}
	return l
}

func podConfig(name string) *runtime.PodSandboxConfig {
	return &runtime.PodSandboxConfig{
		Metadata: &runtime.PodSandboxMetadata{Name: name, Namespace: "ns", Uid: "uid-" + name},
		Hostname: name, LogDirectory: "/tmp/limpet-logs-of-tests", Labels: map[string]string{"io.kubernetes.pod.uid": "uid-" + name},
		Annotations: map[string]string{"kept": "as it is"},
		Linux:       &runtime.LinuxPodSandboxConfig{CgroupParent: "/kubepods/besteffort/pod" + name},
	}
}

func containerConfig(name string) *runtime.ContainerConfig {
	return &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: name}, Image: &runtime.ImageSpec{Image: testImage, UserSpecifiedImage: "example.test/app:1"},
		Labels: map[string]string{"io.kubernetes.container.name": name}, Annotations: map[string]string{"hash": "\u00e9"},
		Envs: []*runtime.KeyValue{{Key: "BYTES", Value: []byte{0xff, 0xfe}}},
	}
}

func request(pod string, c *runtime.ContainerConfig) *runtime.CreateContainerRequest {
	return &runtime.CreateContainerRequest{PodSandboxId: pod, Config: c}
}

// running makes a pod with one running container.
func running(t testing.TB, m *Manager, name string) (pod, ctr string) {
	t.Helper()
	pod, err := m.RunPodSandbox(t.Context(), podConfig(name), "")
	if err != nil {
		t.Fatal(err)
	}
	if ctr, err = m.CreateContainer(t.Context(), request(pod, containerConfig("c"))); err != nil {
		t.Fatal(err)
	}
	if err := m.StartContainer(t.Context(), ctr); err != nil {
		t.Fatal(err)
	}
	return pod, ctr
}

func status(t testing.TB, m *Manager, id string) *runtime.ContainerStatus {
	t.Helper()
	r, err := m.ContainerStatus(id, true)
	if err != nil {
		t.Fatal(err)
	}
	return r.GetStatus()
}

// awaitExit waits until a container's end is recorded.
func awaitExit(t testing.TB, m *Manager, id string) *runtime.ContainerStatus {
	t.Helper()
	c, err := m.index.container(id)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.exited:
	case <-t.Context().Done():
		t.Fatal("test ended first")
	}
	return status(t, m, id)
}

func must(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", what, err))
	}
}
