// Package wasmtime owns the engine: a thin layer over the C API of libwasmtime
// with prototypes of its own (api.h). It compiles modules, maps compiled ones,
// links the host functions that a module imports, and runs instances.
//
// It knows no WASI, reads no configuration and keeps nothing between engines.
// A host makes one Engine in its life. cgo lives here and in shim/confine only.
//
// The rules that keep the process alive:
//   - A Go panic never crosses Wasm frames: it would leave the engine's list of
//     activations dangling, and the next trap would abort the process. Every
//     call into Go recovers. runtime.Goexit cannot be recovered; no host
//     function may call it.
//   - Compiled code is trusted by the engine. LoadFile is for files that our
//     own compile child wrote.
//   - A configuration the engine dislikes aborts the process, so that NewEngine
//     refuses what was not tested.
//
// An Engine and a Module may be shared between goroutines; a Linked too. An
// Instance belongs to one goroutine at a time, but for BoundMemory. There are no
// locks. Everything
// with C memory has a Close, and nothing may be used after it.
package wasmtime

// #include "glue.h"
import "C"

import (
	"errors"
	"strconv"
	"unsafe"
)

// Bounds of Config.MaxWasmStack. Guests run on the stack of a thread, which
// has 8 MiB on most nodes and 2 MiB at least.
const (
	DefaultWasmStack = 1 << 20
	MinWasmStack     = 64 << 10
	MaxWasmStack     = 6 << 20
	// hostStack is what the engine and the Go runtime need of a thread's stack
	// beside the guest.
	hostStack = 256 << 10
)

// Config describes an engine. The process that compiles and the one that runs
// give the same Proposals and the same Epoch, or the code is refused at load.
type Config struct {
	// Proposals are names of Known, switched on beyond the default set.
	Proposals []string
	// Epoch makes running code check for Interrupt. It costs up to 30 % of
	// tight loops: handlers want it, commands do not.
	Epoch bool
	// Parallel compiles on all processors. Only for a process that compiles.
	Parallel bool
	// MaxWasmStack bounds the stack a guest may use, in bytes; zero means
	// DefaultWasmStack.
	MaxWasmStack uint64
}

// Errors of this package; they come wrapped with what was attempted.
var (
	ErrUnknownProposal = errors.New("unknown WebAssembly proposal")
	ErrWasmStack       = errors.New("unusable size of the WebAssembly stack")
	ErrNoExport        = errors.New("no such export")
	ErrNotCallable     = errors.New("the export is not a function without parameters and results")
	ErrBusy            = errors.New("the instance is running already")
	ErrTooManyImports  = errors.New("more imports than a host links")
)

// Error is what the engine itself says when it refuses something.
type Error struct {
	Op   string // what was attempted
	Text string // the engine's words, bounded
}

func (e *Error) Error() string { return e.Op + ": " + e.Text }

// opError wraps a cause once with what was attempted.
type opError struct {
	op  string
	err error
}

func (e *opError) Error() string { return e.op + ": " + e.err.Error() }
func (e *opError) Unwrap() error { return e.err }

// Engine compiles, maps and runs modules under one configuration.
type Engine struct {
	c            *C.wasm_engine_t
	epoch, types bool
}

// NewEngine makes an engine. A name in cfg.Proposals that is not in Known is
// ErrUnknownProposal; a stack that the process's threads cannot give is
// ErrWasmStack.
func NewEngine(cfg Config) (*Engine, error) {
	s := C.lp_settings{parallel: C.bool(cfg.Parallel), epoch: C.bool(cfg.Epoch)}
	bits, err := proposalBits(cfg.Proposals)
	if err != nil {
		return nil, err
	}
	s.proposals = C.uint32_t(bits)
	stack, err := wasmStack(cfg.MaxWasmStack)
	if err != nil {
		return nil, err
	}
	s.max_wasm_stack = C.size_t(stack)
	return &Engine{c: C.lp_engine_new(&s), epoch: cfg.Epoch, types: bits&newReferences == 0}, nil
}

func wasmStack(want uint64) (uint64, error) {
	if want == 0 {
		want = DefaultWasmStack
	}
	if want < MinWasmStack || want > MaxWasmStack {
		return 0, &opError{"wasm stack of " + strconv.FormatUint(want, 10) + " bytes, wanted " +
			strconv.Itoa(MinWasmStack) + " to " + strconv.Itoa(MaxWasmStack), ErrWasmStack}
	}
	if have := uint64(C.lp_thread_stack()); have != 0 && have < want+hostStack {
		return 0, &opError{"wasm stack of " + strconv.FormatUint(want, 10) + " bytes on threads of " +
			strconv.FormatUint(have, 10) + " (raise the stack limit of the daemon)", ErrWasmStack}
	}
	return want, nil
}

// Close frees the engine. Its modules and instances must be closed before.
func (e *Engine) Close() {
	if e.c != nil {
		C.wasm_engine_delete(e.c)
		e.c = nil
	}
}

// Interrupt ends every running instance of an engine with Config.Epoch by
// TrapInterrupt; it does nothing without. Any goroutine may call it.
func (e *Engine) Interrupt() {
	if e.epoch {
		C.wasmtime_engine_increment_epoch(e.c)
	}
}

// Validate checks that wasm is a valid core module under the engine's
// proposals.
func (e *Engine) Validate(wasm []byte) error {
	return takeError("validate", C.wasmtime_module_validate(e.c, bytesPtr(wasm), C.size_t(len(wasm))))
}

// Compile compiles a core module and returns the code for LoadFile.
func (e *Engine) Compile(wasm []byte) ([]byte, error) {
	var code []byte
	err := e.CompileTo(wasm, func(b []byte) error {
		code = append(code, b...)
		return nil
	})
	return code, err
}

// CompileTo compiles a core module and gives the code to write, which must not
// keep it.
func (e *Engine) CompileTo(wasm []byte, write func(code []byte) error) error {
	var m *C.wasmtime_module_t
	if err := takeError("compile", C.wasmtime_module_new(e.c, bytesPtr(wasm), C.size_t(len(wasm)), &m)); err != nil {
		return err
	}
	defer C.wasmtime_module_delete(m)
	var v C.wasm_byte_vec_t
	if err := takeError("serialize", C.wasmtime_module_serialize(m, &v)); err != nil {
		return err
	}
	defer C.wasm_byte_vec_delete(&v)
	return write(unsafe.Slice((*byte)(unsafe.Pointer(v.data)), int(v.size)))
}

// Wat translates the text format of a module, or of a component, to binary.
func Wat(text []byte) ([]byte, error) {
	var v C.wasm_byte_vec_t
	p := (*C.char)(unsafe.Pointer(bytesPtr(text)))
	if err := takeError("wat", C.wasmtime_wat2wasm(p, C.size_t(len(text)), &v)); err != nil {
		return nil, err
	}
	defer C.wasm_byte_vec_delete(&v)
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(v.data)), int(v.size))...), nil
}

// bytesPtr returns a pointer to b's bytes that is never nil: the engine makes
// a slice of it.
func bytesPtr(b []byte) *C.uint8_t {
	if len(b) == 0 {
		b = make([]byte, 1)
	}
	return (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(b)))
}

func stringPtr(s string) *C.char {
	if s == "" {
		s = "\x00"
	}
	return (*C.char)(unsafe.Pointer(unsafe.StringData(s)))
}
