package pod

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

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
	// acts hears of everything that changes the world.
	acts func(what string)
	// prepares, if not nil, is what Prepare does first.
	prepares func(context.Context) error
}

// act tells that something is about to change.
func (w *world) act(what string) {
	if w.acts != nil {
		w.acts(what)
	}
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

func (f fakeImages) Prepare(ctx context.Context, ref, id, _ string, _ []string) (*image.Prepared, error) {
	f.w.act("image prepared")
	if f.w.prepares != nil {
		if err := f.w.prepares(ctx); err != nil {
			return nil, err
		}
	}
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
	f.w.act("image released")
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
	f.w.act("network made")
	if err := f.w.fails("network"); err != nil {
		return "", err
	}
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.w.nets[id] = true
	return "/run/netns/" + id, nil
}

func (f fakeNets) Remove(_ context.Context, id string) error {
	f.w.act("network removed")
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
	f.w.act("host made")
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

func (f fakeHosts) End(_ context.Context, c *spec.Container) error {
	if err := f.w.fails("end"); err != nil {
		return err
	}
	f.w.mu.Lock()
	h := f.w.hosts[c.ID]
	f.w.mu.Unlock()
	if h != nil {
		h.end(spec.CodeKilled, spec.ReasonKilled)
	}
	return nil
}

func (f fakeHosts) Remove(_ context.Context, c *spec.Container) error {
	f.w.mu.Lock()
	h := f.w.hosts[c.ID]
	delete(f.w.hosts, c.ID)
	f.w.mu.Unlock()
	f.w.act("host removed")
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
	stuck bool // in the kernel: no kill ends it
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
	h.w.act("host started")
	if err := errors.Join(h.w.fails("start"), h.answers(ctx)); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.phase = spec.PhaseRunning
	return nil
}

func (h *fakeHost) Stop(ctx context.Context, s syscall.Signal) error {
	h.w.act("host stopped")
	if err := errors.Join(h.w.fails("stop"), h.answers(ctx)); err != nil {
		return err
	}
	if !h.deaf {
		h.end(spec.CodeSignalBase+int32(s), spec.ReasonStopped)
	}
	return nil
}

func (h *fakeHost) Kill() error {
	h.w.act("host killed")
	if err := h.w.fails("kill"); err != nil {
		return err
	}
	if !h.stuck {
		h.end(spec.CodeKilled, spec.ReasonKilled)
	}
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
