// Package wasi owns the state that a guest has in the outside world, for all
// previews of WASI: its table of descriptors with their rights, the folders,
// files, sockets and standard streams behind them, clocks, random numbers and
// the one place where a guest waits.
//
// Every path is resolved by the kernel with openat2 beneath a preopened folder
// (in-root for the preopen "/", so that absolute links work); no path of a
// guest reaches a system call that could follow a link out of it. Nothing here
// knows how a call of some preview looks in guest memory: that is wasm/wasip1.
//
// A System belongs to one goroutine, the one that runs the guest. Interrupt,
// CloseStdin, StopListening and Err may be called from any goroutine, at any
// time; the one lock there is keeps them and Close apart. A guest that waits
// does so in one ppoll on its own thread, whose first descriptor is the eventfd
// that Interrupt writes to: an idle guest costs no second thread and no CPU
// time.
package wasi

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Bounds of what one guest may hold or ask for in one call.
const (
	MaxDescriptors   = 4096    // open descriptors, all kinds
	MaxVectors       = 1024    // buffers of one vectored read or write; the kernel's IOV_MAX
	MaxPath          = 4095    // bytes of a path; the kernel's PATH_MAX without its NUL
	MaxSubscriptions = 8192    // subscriptions of one poll
	MaxDirBuffer     = 1 << 15 // bytes asked of the kernel at once while listing a folder
	MaxRandom        = 1 << 20 // bytes asked of the kernel at once
	MaxStrings       = 1 << 20 // bytes of all arguments, and of all variables
	maxRetries       = 64      // of an openat2 that raced with a rename (EAGAIN)
)

// FirstPreopen is the number of the first preopened folder.
const FirstPreopen = 3

// Variables that New adds to the environment unless they are set.
const (
	EnvWorkingDir = "PWD"              // Config.WorkingDir
	EnvListen     = "LIMPET_LISTEN_FD" // the first listening socket's descriptor
)

// Errors besides those of the kernel, which are unix.Errno values.
var (
	// ErrNotCapable means that a right is missing or that a path leads out of
	// its folder.
	ErrNotCapable = errors.New("capabilities insufficient")
	// ErrInterrupted means that Interrupt was called; Err returns its error.
	ErrInterrupted = errors.New("guest interrupted")
	// ErrConfig is wrapped by every error of New that the caller's Config is
	// at fault for.
	ErrConfig = errors.New("invalid WASI configuration")
)

// Output receives what a guest writes to a standard stream. Write must not
// keep p. Flush is called before the guest waits and when it ends.
type Output interface {
	Write(p []byte) (int, error)
	Flush() error
}

// Preopen is a folder that the guest finds open.
type Preopen struct {
	Name string // as the guest sees it
	FD   int    // an open folder; the System owns it from New on, even if New fails
	// Root makes links and ".." resolve as in a process whose root is this
	// folder; otherwise what leads out of the folder is refused.
	Root bool
	// ReadOnly refuses writing below the folder, other than in a Place.
	ReadOnly bool
}

// Place is a mount below the Root preopen and whether the guest may write to
// it. Places are told apart by their mounts, never by text, so that links and
// ".." cannot confuse them; the longest match is what the kernel finds.
type Place struct {
	Path     string // absolute, in the guest's root
	ReadOnly bool
}

// Config describes what a guest starts with.
type Config struct {
	Args, Env []string
	// Stdin is a descriptor that the System owns from New on, or -1: standard
	// input is at its end.
	Stdin int
	// Stdout and Stderr may be nil: what is written there is dropped.
	Stdout, Stderr Output
	Preopens       []Preopen
	// WorkingDir, if not empty, is an absolute path below the Root preopen; it
	// becomes the preopen "." in front of all others, and PWD.
	WorkingDir string
	Places     []Place
	// Listeners are listening sockets, owned by the System from New on. They
	// follow the preopens in the guest's table.
	Listeners []int
}

// System is what one guest has of the outside world.
type System struct {
	args, env []string
	table     table
	places    places
	stdout    stream
	stderr    stream
	stdin     int

	stop       atomic.Pointer[interrupt]
	stdinEnded atomic.Bool

	// mu keeps Close from taking descriptors away from those who use them on
	// other goroutines. The System's own goroutine reads them without it.
	mu        sync.Mutex
	wake      int   // eventfd, readable once the guest must look up from its wait
	listeners []int // duplicates, for StopListening

	// Scratch space of the call in progress, so that calls do not allocate.
	vec    Buffers
	path   [2]pathBuf
	how    unix.OpenHow
	ts     unix.Timespec
	pair   [2]unix.PollFd
	polled []unix.PollFd
	subs   []Subscription
	dir    []byte
}

type interrupt struct{ err error }

// New makes a System. The descriptors in cfg belong to it from then on and are
// closed when New fails.
func New(cfg Config) (*System, error) {
	s := &System{args: cfg.Args, env: append([]string(nil), cfg.Env...), stdin: cfg.Stdin, wake: -1}
	s.stdout.out, s.stderr.out = cfg.Stdout, cfg.Stderr
	s.addStdio()
	err := s.setUp(&cfg)
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *System) setUp(cfg *Config) error {
	// Everything that was handed over is taken first, so that Close finds it.
	root := -1
	if cfg.WorkingDir != "" {
		s.table.add(&Descriptor{kind: kindEmpty, fd: -1})
	}
	for i, p := range cfg.Preopens {
		d := newFolder(p.FD)
		d.name, d.preopen, d.root, d.readonly = p.Name, true, p.Root, p.ReadOnly
		if _, err := s.table.add(d); err != nil {
			closeAll(cfg.Preopens[i:], cfg.Listeners)
			return configError("too many preopened folders")
		}
		if p.Root && root < 0 {
			root = p.FD
		}
	}
	first := len(s.table.slots)
	for i, fd := range cfg.Listeners {
		if _, err := s.table.add(newListener(fd)); err != nil {
			closeAll(nil, cfg.Listeners[i:])
			return configError("too many listening sockets")
		}
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return sysError("make the eventfd of a guest", err)
	}
	s.wake = wake
	if err := s.setUpListeners(cfg.Listeners, first); err != nil {
		return err
	}
	if err := s.setUpWorkingDir(cfg, root); err != nil {
		return err
	}
	if err := s.places.init(s, cfg.Places, root); err != nil {
		return err
	}
	return s.checkStrings()
}

func closeAll(preopens []Preopen, fds []int) {
	for _, p := range preopens {
		unix.Close(p.FD)
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func (s *System) setUpListeners(fds []int, first int) error {
	for _, fd := range fds {
		if err := unix.SetNonblock(fd, true); err != nil {
			return sysError("make a listening socket non-blocking", err)
		}
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return sysError("duplicate a listening socket", err)
		}
		s.listeners = append(s.listeners, dup)
	}
	if len(fds) > 0 {
		s.setEnv(EnvListen, strconv.Itoa(first))
	}
	return nil
}

// setUpWorkingDir opens the working folder as the preopen ".". Its paths are
// resolved from the root with the folder's path in front, so that ".." and
// links work there as they do from the root.
//
// It comes before "/" in the table: wasi-libc strips both names to nothing and
// takes the last one that matches, for absolute paths too.
func (s *System) setUpWorkingDir(cfg *Config, root int) error {
	if cfg.WorkingDir == "" {
		return nil
	}
	if root < 0 || cfg.WorkingDir[0] != '/' || len(cfg.WorkingDir) > MaxPath/2 {
		return configError("working directory " + strconv.Quote(cfg.WorkingDir) + ": want an absolute path below a root")
	}
	rel := strings.Trim(cfg.WorkingDir, "/")
	if rel == "" {
		rel = "."
	}
	at := &Descriptor{kind: kindFolder, fd: root, root: true}
	fd, err := s.openAt(&s.path[0], at, rel, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == unix.EACCES { // as a process may be where it may not list
		fd, err = s.openAt(&s.path[0], at, rel, unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		return sysError("open the working directory "+strconv.Quote(cfg.WorkingDir), err)
	}
	d := newFolder(fd)
	d.name, d.preopen, d.root = ".", true, true
	s.table.slots[FirstPreopen] = d
	d.readonly = s.rootReadOnly(root)
	if d.from, err = unix.FcntlInt(uintptr(root), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		d.from = -1
		return sysError("duplicate the root", err)
	}
	d.prefix = rel
	s.setEnv(EnvWorkingDir, cfg.WorkingDir)
	return nil
}

func (s *System) rootReadOnly(root int) bool {
	for _, d := range s.table.slots {
		if d != nil && d.fd == root {
			return d.readonly
		}
	}
	return false
}

func (s *System) setEnv(name, value string) {
	for _, v := range s.env {
		if strings.HasPrefix(v, name+"=") {
			return
		}
	}
	s.env = append(s.env, name+"="+value)
}

func (s *System) checkStrings() error {
	for _, list := range [][]string{s.args, s.env} {
		n := 0
		for _, v := range list {
			if strings.IndexByte(v, 0) >= 0 {
				return configError("argument or variable with a NUL byte: " + strconv.Quote(v))
			}
			n += len(v) + 1
		}
		if n > MaxStrings || len(list) > MaxStrings/4 {
			return configError("arguments or environment of " + strconv.Itoa(n) + " bytes: want at most " + strconv.Itoa(MaxStrings))
		}
	}
	return nil
}

// Args returns the arguments; the caller must not change them.
func (s *System) Args() []string { return s.args }

// Env returns the environment; the caller must not change it.
func (s *System) Env() []string { return s.env }

// Close flushes the standard streams and closes every descriptor. The guest
// must have ended.
func (s *System) Close() error {
	err := s.Flush()
	for i, d := range s.table.slots {
		if d != nil {
			d.close()
			s.table.slots[i] = nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fd := range s.listeners {
		unix.Close(fd)
	}
	s.listeners = nil
	if s.wake >= 0 {
		unix.Close(s.wake)
		s.wake = -1
	}
	return err
}

func configError(text string) error { return &setUpError{text: text, err: ErrConfig} }

// sysError wraps an error of the kernel once with what was attempted.
func sysError(what string, err error) error { return &setUpError{text: what, err: err} }

type setUpError struct {
	text string
	err  error
}

func (e *setUpError) Error() string { return e.text + ": " + e.err.Error() }
func (e *setUpError) Unwrap() error { return e.err }
