package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/cgroup"
	"github.com/limpet-cri/limpet/shim/spec"
)

// newHost returns a host of which nothing is known yet.
func (s *Supervisor) newHost(c *spec.Container) *Host {
	h := &Host{s: s, id: c.ID, dir: c.Dir, socket: c.Socket, logPath: c.Limpet.LogPath, done: make(chan struct{})}
	if s.cfg.Cgroups != nil && c.OCI.Linux != nil && c.OCI.Linux.CgroupsPath != "" {
		h.group = s.cfg.Cgroups.Open(c.OCI.Linux.CgroupsPath)
	}
	switch c.Limpet.OnStop {
	case spec.OnStopDefault:
		h.patient = len(c.Limpet.Listen) > 0
	case spec.OnStopWait, spec.OnStopCloseStdin:
		h.patient = true
	}
	return h
}

// Host is one host: made by Create, or found by Adopt.
type Host struct {
	s               *Supervisor
	id, dir, socket string
	logPath         string
	group           *cgroup.Group // nil without cgroups
	pid             int
	pidfd           *os.File // nil for a host that was found dead
	patient         bool     // a stop waits for the guest's own end
	done            chan struct{}
	exit            spec.Exit // set before done is closed

	mu     sync.Mutex
	phase  spec.Phase
	ready  *conn // the connection that waits for OpStart
	killed bool  // Kill was called

	lifting sync.Mutex // held while limits are lifted or restored
	over    bool       // the host has ended
}

// Done is closed once the host has ended and Exit tells how. After the
// Supervisor's Close it stays as it is.
func (h *Host) Done() <-chan struct{} { return h.done }

// Exit tells how the host ended.
//
// Preconditions: Done is closed.
func (h *Host) Exit() spec.Exit { return h.exit }

// PID is the host's process id as seen from here; 0 for one found dead.
func (h *Host) PID() int { return h.pid }

// Phase is what is known of the host: PhaseReady, PhaseRunning, and
// PhaseEnding once Done is closed.
func (h *Host) Phase() spec.Phase {
	select {
	case <-h.done:
		return spec.PhaseEnding
	default:
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.phase
}

// Start lets the guest run. It returns once the guest is instantiated.
func (h *Host) Start(ctx context.Context) error {
	h.mu.Lock()
	k := h.ready
	h.ready = nil
	h.mu.Unlock()
	err := io.EOF
	if k != nil {
		err = k.request(ctx, &spec.Message{Op: spec.OpStart}, -1)
		k.close()
	}
	if errors.Is(err, io.EOF) {
		err = h.startAnew(ctx, k != nil)
	}
	if err != nil {
		return fmt.Errorf("start container %s: %w", h.id, err)
	}
	h.setPhase(spec.PhaseRunning)
	return nil
}

// startAnew starts the guest on another connection than the one that waited
// for it: an earlier Start was cut off, others have taken its place at the
// host, or the host has ended. asked tells that the host may have heard.
func (h *Host) startAnew(ctx context.Context, asked bool) error {
	if h.Phase() == spec.PhaseEnding {
		return h.because(ctx, io.EOF)
	}
	k, err := h.connect(ctx)
	if err != nil {
		return h.because(ctx, err)
	}
	defer k.close()
	if h.Phase() == spec.PhaseRunning {
		if asked {
			return nil
		}
		return fmt.Errorf("%w: it runs already", ErrInvalid)
	}
	return h.because(ctx, k.request(ctx, &spec.Message{Op: spec.OpStart}, -1))
}

func (h *Host) setPhase(p spec.Phase) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.phase = p
}

// connect makes a connection to a living host and reads its hello.
func (h *Host) connect(ctx context.Context) (*conn, error) {
	k, err := dial(h.socket)
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, err
	}
	phase, err := k.hello(ctx, replyTimeout)
	if err != nil {
		k.close()
		return nil, err
	}
	h.setPhase(phase)
	return k, nil
}

// because turns the end of a connection into the reason for it.
func (h *Host) because(ctx context.Context, err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	select {
	case <-h.done:
		return fmt.Errorf("%w with %d (%s): %s", ErrEnded, h.exit.Code, h.exit.Reason, h.exit.Message)
	case <-h.s.closing:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ask makes one request on a connection of its own.
func (h *Host) ask(ctx context.Context, m *spec.Message, fd int) error {
	k, err := h.connect(ctx)
	if err != nil {
		return err
	}
	defer k.close()
	return k.request(ctx, m, fd)
}

// Stop gives the host the stop signal, which it treats as the container's
// OnStop says, and returns; Done tells the end. Stopping what has ended is no
// error.
//
// A limit of CPU time is lifted if the host is to end at once: throttled, it
// would take as long as the limit is tight. A guest that is given time to end
// by itself keeps its limit until Kill.
func (h *Host) Stop(ctx context.Context, sig syscall.Signal) error {
	select {
	case <-h.done:
		return nil
	default:
	}
	if !h.patient {
		h.lift()
	}
	err := h.ask(ctx, &spec.Message{Op: spec.OpStop, Signal: uint8(sig)}, -1)
	if err == nil || errors.Is(err, io.EOF) {
		return nil // it ended meanwhile, or because of it
	}
	return fmt.Errorf("stop container %s: %w", h.id, err)
}

// Kill ends the host at once. Killing what has ended is no error.
func (h *Host) Kill() error {
	if h.pidfd == nil {
		return nil
	}
	h.mu.Lock()
	h.killed = true
	h.mu.Unlock()
	h.lift()
	err := signalPidfd(h.pidfd, unix.SIGKILL)
	if err == nil || errors.Is(err, unix.ESRCH) {
		return nil
	}
	select {
	case <-h.done: // its pidfd is closed then
		return nil
	case <-h.s.closing:
		err = ErrClosed
	default:
	}
	return fmt.Errorf("kill host of container %s: %w", h.id, err)
}

// ReopenLog lets the host go on in a new file at the container's log path.
func (h *Host) ReopenLog(ctx context.Context) error {
	if h.logPath == "" {
		return nil
	}
	f, err := openLog(h.logPath)
	if err != nil {
		return fmt.Errorf("reopen log of container %s: %w", h.id, err)
	}
	defer f.Close()
	if err := h.ask(ctx, &spec.Message{Op: spec.OpReopenLog}, int(f.Fd())); err != nil {
		return fmt.Errorf("reopen log of container %s: %w", h.id, h.because(ctx, err))
	}
	return nil
}

// Update changes the limits of the container's cgroup.
func (h *Host) Update(_ context.Context, r *specs.LinuxResources) error {
	if h.group == nil {
		return fmt.Errorf("update container %s: %w", h.id, cgroup.ErrNotFound)
	}
	return h.group.Update(r)
}

// Stats measures the container's cgroup.
func (h *Host) Stats() (cgroup.Stats, error) {
	if h.group == nil {
		return cgroup.Stats{}, fmt.Errorf("measure container %s: %w", h.id, cgroup.ErrNotFound)
	}
	return h.group.Stats()
}

// lift lifts the limit of CPU time for an end; that it cannot be lifted costs
// time alone. After the end nothing is lifted: nobody would restore it.
func (h *Host) lift() {
	if h.group == nil {
		return
	}
	h.lifting.Lock()
	defer h.lifting.Unlock()
	if h.over {
		return
	}
	if err := h.group.LiftCPU(); err != nil && !errors.Is(err, cgroup.ErrNotFound) {
		h.s.log.Warn("CPU limit is not lifted for the end", "container", h.id, "error", err)
	}
}

// restore takes back what was lifted from the pod, once the host has ended.
func (h *Host) restore() {
	if h.group == nil {
		return
	}
	h.lifting.Lock()
	defer h.lifting.Unlock()
	h.over = true
	if err := h.group.RestoreCPU(); err != nil {
		h.s.log.Warn("the pod keeps a CPU limit that was raised for the end of a container", "container", h.id, "error", err)
	}
}

// wait waits for the end, at most for the time given.
func (h *Host) wait(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	select {
	case <-h.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("host of container %s (pid %d) does not end: %w", h.id, h.pid, context.Cause(ctx))
	}
}
