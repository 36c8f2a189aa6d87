package host

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/confine"
	"github.com/limpet-cri/limpet/shim/logs"
	"github.com/limpet-cri/limpet/shim/spec"
	"github.com/limpet-cri/limpet/wasm/wasi"
	"github.com/limpet-cri/limpet/wasm/wasip1"
	"github.com/limpet-cri/limpet/wasm/wasmtime"
)

// maxTableElements bounds each table of a guest: a million elements are 16 MB
// that the memory limit does not see until they are touched.
const maxTableElements = 1_000_000

// entry is the export that makes a module a command.
const entry = "_start"

// host is one container's process.
type host struct {
	p      *spec.Payload
	log    *logs.Log
	sys    *wasi.System
	linked *wasmtime.Linked

	phase  atomic.Uint32 // spec.Phase
	ending atomic.Bool   // set by whoever ends the process

	mu       sync.Mutex         // guards p.MemoryLimit and instance
	instance *wasmtime.Instance // nil until the start; never closed
}

// run makes everything ready, waits for the word, and runs the guest. It does
// not return: end leaves the process.
func run(p *spec.Payload) int {
	h := &host{p: p, log: logs.New(spec.FDLog)}
	if err := h.prepare(); err != nil {
		h.end(spec.Exit{Code: spec.CodeHostFailed, Reason: spec.ReasonHostFailed, Message: err.Error()})
	}
	h.phase.Store(uint32(spec.PhaseReady))
	c := newControl(h)
	c.serve()
	go c.serve()
	h.guest(c)
	return spec.CodeHostFailed
}

// prepare does all that can fail before the guest's first instruction.
func (h *host) prepare() error {
	engine, err := wasmtime.NewEngine(wasmtime.Config{Proposals: h.p.Proposals})
	if err != nil {
		return failed("make the engine", err)
	}
	module, err := engine.LoadFile(spec.CodePath)
	if err != nil {
		return failed("map the compiled code", err)
	}
	if !module.HasExport(entry) {
		return &failure{h.name() + " is no command: it exports no function " + entry +
			"; a library or reactor cannot be run as a container"}
	}
	if h.sys, err = h.system(); err != nil {
		return err
	}
	if h.linked, err = engine.Link(module, wasip1.Imports(h.sys)); err != nil {
		return failed("link "+h.name(), err)
	}
	if err := confine.Seal(); err != nil {
		return failed("forbid executable mappings", err)
	}
	return unix.Close(spec.FDOrder)
}

// system makes what the guest has of the outside world.
func (h *host) system() (*wasi.System, error) {
	root, err := openRoot()
	if err != nil {
		return nil, failed("open the guest's root", err)
	}
	cfg := h.config(root)
	if h.p.Stdin {
		if cfg.Stdin, err = openStdin(); err != nil {
			return nil, failed("make the guest's standard input", err)
		}
	}
	for _, l := range h.p.Listen {
		fd, err := listen(l.Address)
		if err != nil {
			return nil, failed("listen on "+l.Address, err)
		}
		cfg.Listeners = append(cfg.Listeners, fd)
	}
	sys, err := wasi.New(cfg)
	if err != nil {
		return nil, failed("prepare "+h.name(), err)
	}
	return sys, nil
}

// config is what the guest has that can be told without opening anything.
func (h *host) config(root int) wasi.Config {
	return wasi.Config{
		Args: h.p.Args, Env: h.p.Env, WorkingDir: h.p.Cwd, Stdin: -1,
		Stdout: h.log.Stream(logs.Stdout), Stderr: h.log.Stream(logs.Stderr),
		Preopens: []wasi.Preopen{{Name: "/", FD: root, Root: true, ReadOnly: h.p.ReadonlyRoot}},
		Places:   h.places(),
	}
}

func (h *host) places() []wasi.Place {
	l := make([]wasi.Place, 0, len(h.p.Readonly)+len(h.p.Writable))
	for _, p := range h.p.Readonly {
		l = append(l, wasi.Place{Path: p, ReadOnly: true})
	}
	for _, p := range h.p.Writable {
		l = append(l, wasi.Place{Path: p})
	}
	return l
}

// openRoot opens the folder that the guest sees as "/". A guest whose user may
// not list it can still reach what is below.
func openRoot() (int, error) {
	fd, err := unix.Open(spec.GuestRoot, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.EACCES {
		return unix.Open(spec.GuestRoot, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	return fd, err
}

// openStdin makes a standard input to which nothing comes, and which does not
// end either until it is closed: the writing end stays open in this process.
func openStdin() (int, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return -1, err
	}
	return p[0], nil
}

func (h *host) name() string {
	if h.p.Module != "" {
		return h.p.Module
	}
	return "the module"
}

// failure is an error with a text of its own.
type failure struct{ text string }

func (f *failure) Error() string { return f.text }

func failed(what string, err error) error { return &failure{what + ": " + err.Error()} }
