package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/cgroup"
	"github.com/limpet-cri/limpet/shim/confine"
	"github.com/limpet-cri/limpet/shim/confine/filter"
)

// Errors of this package.
var (
	// ErrNoHost is returned by Adopt when no host was ever made ready for the
	// container.
	ErrNoHost = errors.New("no host was made for the container")
	// ErrExists is returned by Create when a host of the container lives.
	ErrExists = errors.New("a host of the container lives already")
	// ErrHostFailed is returned when a host cannot be made ready or ends
	// while it is asked something; the text says what it had to say.
	ErrHostFailed = errors.New("host failed")
	// ErrInvalid is returned for a container that cannot be run as described.
	ErrInvalid = errors.New("invalid container")
	// ErrEnded is returned for a request to a host that has ended.
	ErrEnded = errors.New("the host has ended")
	// ErrClosed is returned for calls after Close.
	ErrClosed = errors.New("supervisor is closed")
)

// Config is what a Supervisor is told about the node.
type Config struct {
	// HostPath is the limpet-host binary.
	HostPath string
	// RunDir holds the control sockets; it is made if it is missing.
	RunDir string
	// Cgroups is the node's hierarchy; nil runs hosts without cgroups.
	Cgroups *cgroup.Hierarchy
	// Compilers is the number of modules compiled at a time; 0 means as many
	// as there are processors.
	Compilers int
	// CompileCgroup is the parent of the compilers' cgroups, and CompileMemory
	// the memory limit of one; 0 means DefaultCompileMemory.
	CompileCgroup string
	CompileMemory int64
	// CompileTime bounds the compilation of a small module; 0 means
	// DefaultCompileTime.
	CompileTime time.Duration
	// Checkpoint is called between the steps of Create and Remove; tests end
	// the process in it.
	Checkpoint func(step string)
}

// Bounds of waiting.
const (
	// readyTimeout bounds how long a host may take to become ready. It takes
	// some 3 ms; a node in trouble takes a thousand times as long.
	readyTimeout = 30 * time.Second
	// replyTimeout bounds how long a host may take to answer a request.
	replyTimeout = 10 * time.Second
	// helloTimeout bounds how long an adopted host may take to say its phase;
	// one that does not (its node is in trouble) counts as running.
	helloTimeout = 2 * time.Second
	// removeTimeout bounds the undoing of a failed Create.
	removeTimeout = 10 * time.Second
)

// Supervisor makes and watches hosts.
type Supervisor struct {
	cfg Config
	log *slog.Logger

	emptyNS, null  *os.File
	run, seal      []byte // seccomp programs of a host
	compileFilters []byte
	compilers      chan struct{} // holds a token per running compiler

	compiled atomic.Uint64 // names the compilers' cgroups

	closing chan struct{}
	wg      sync.WaitGroup // the watchers

	mu     sync.Mutex
	closed bool
	hosts  map[string]*Host // those watched, by container
}

// New returns a Supervisor. It finds no hosts by itself: see Adopt. Compilers
// that a killed daemon left are ended.
func New(cfg Config, log *slog.Logger) (*Supervisor, error) {
	if cfg.Compilers <= 0 {
		cfg.Compilers = runtime.NumCPU()
	}
	if cfg.CompileMemory <= 0 {
		cfg.CompileMemory = DefaultCompileMemory
	}
	if cfg.CompileTime <= 0 {
		cfg.CompileTime = DefaultCompileTime
	}
	s := &Supervisor{
		cfg: cfg, log: log, compilers: make(chan struct{}, cfg.Compilers),
		closing: make(chan struct{}), hosts: make(map[string]*Host),
	}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, s.closeFiles())
	}
	s.logMissing(confine.LandlockABI())
	s.sweepCompilers()
	return s, nil
}

// logMissing tells once what hosts do without on this node.
func (s *Supervisor) logMissing(landlock int) {
	for _, what := range confine.LandlockLacks(landlock) {
		s.log.Warn("the kernel lacks something", "what", what)
	}
	if s.cfg.Cgroups == nil {
		s.log.Warn("no cgroups are used: containers have no limits and no statistics")
		return
	}
	for _, what := range s.cfg.Cgroups.Missing() {
		s.log.Warn("the node's cgroups lack something", "what", what)
	}
}

// prepare makes what all hosts start from.
func (s *Supervisor) prepare() error {
	if err := unix.Access(s.cfg.HostPath, unix.X_OK); err != nil {
		return fmt.Errorf("host binary %s: %w; build it, or say where it is", s.cfg.HostPath, err)
	}
	if err := os.MkdirAll(s.cfg.RunDir, 0o700); err != nil {
		return fmt.Errorf("folder of the control sockets: %w", err)
	}
	var err error
	if s.emptyNS, err = confine.EmptyMountNS(); err != nil {
		return fmt.Errorf("empty mount namespace (are we root?): %w", err)
	}
	if s.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return err
	}
	if s.run, err = filter.Run(); err != nil {
		return fmt.Errorf("filter of system calls: %w", err)
	}
	if s.seal, err = filter.Seal(); err != nil {
		return fmt.Errorf("filter of executable mappings: %w", err)
	}
	if s.compileFilters, err = filter.Compile(); err != nil {
		return fmt.Errorf("filter of the compiler's system calls: %w", err)
	}
	return nil
}

// Close ends the watching and waits until it has ended. The hosts live on; a
// Host's Done is never closed afterwards.
func (s *Supervisor) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.closing)
	for _, h := range s.hosts {
		h.wake()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return s.closeFiles()
}

func (s *Supervisor) closeFiles() error {
	var errs []error
	for _, f := range []*os.File{s.emptyNS, s.null} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// watch registers the host and starts its watcher.
func (s *Supervisor) watch(h *Host) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if s.hosts[h.id] != nil {
		return fmt.Errorf("container %s: %w", h.id, ErrExists)
	}
	s.hosts[h.id] = h
	s.wg.Go(h.watch)
	return nil
}

func (s *Supervisor) forget(h *Host) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hosts[h.id] == h {
		delete(s.hosts, h.id)
	}
}

func (s *Supervisor) watched(id string) *Host {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hosts[id]
}

// checkpoint marks the border between two steps.
func (s *Supervisor) checkpoint(step string) {
	if s.cfg.Checkpoint != nil {
		s.cfg.Checkpoint(step)
	}
}

// undo runs its steps in reverse; success empties it.
type undo struct{ steps []func() }

func (u *undo) add(f func()) { u.steps = append(u.steps, f) }
func (u *undo) succeed()     { u.steps = nil }

func (u *undo) run() {
	for i := len(u.steps) - 1; i >= 0; i-- {
		u.steps[i]()
	}
	u.steps = nil
}

// undoContext is for the undoing that a cancelled request must not stop.
func undoContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
}
