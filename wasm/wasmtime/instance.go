package wasmtime

// #cgo noescape lp_entry
// #cgo nocallback lp_entry
// #include "glue.h"
import "C"

import (
	"errors"
	"math"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/limpet-cri/limpet/wasm"
)

// Bounds of a store beside those of wasm.Limits. Limits.Memory counts for each
// memory, so that their number has to be small too.
const (
	maxInstances = 1
	maxTables    = 64
	maxMemories  = 16
)

// Instance is one instance of a module and the store it lives in.
type Instance struct {
	c       *C.lp_guest
	pre     *C.wasmtime_instance_pre_t
	funcs   []hostFunc
	pin     runtime.Pinner
	running atomic.Bool
	// ended is why a host function ended the guest, until Call takes it.
	ended error
}

// Instantiate makes an instance under the given limits and runs the module's
// start function, if it has one. The error is as that of Call.
func (l *Linked) Instantiate(limits wasm.Limits) (*Instance, error) {
	i, err := l.Store(limits)
	if err != nil {
		return nil, err
	}
	if err := i.Instantiate(); err != nil {
		i.Close()
		return nil, err
	}
	return i, nil
}

// Store makes an instance of which only the store exists yet, so that BoundMemory
// reaches it while Instantiate runs the module's start function.
func (l *Linked) Store(limits wasm.Limits) (*Instance, error) {
	i := &Instance{funcs: l.funcs, pre: l.pre}
	i.c = C.lp_guest_new(l.engine.c, limit(limits.Memory), limit(limits.TableElements),
		maxInstances, maxTables, maxMemories)
	if i.c == nil {
		return nil, &Error{Op: "instantiate", Text: "out of memory"}
	}
	// C keeps the pointer for the trampoline, which hands it back and never
	// looks inside.
	i.pin.Pin(i)
	i.c.owner = unsafe.Pointer(i)
	return i, nil
}

// Instantiate does, once, what Linked.Instantiate does. An instance for which it
// fails is good for Close alone.
func (i *Instance) Instantiate() error {
	i.running.Store(true)
	ok := bool(C.lp_instantiate(i.c, i.pre))
	i.running.Store(false)
	if ok {
		return nil
	}
	return i.takeEnd("instantiate")
}

// BoundMemory changes Limits.Memory. Any goroutine may call it while the guest
// runs, one at a time; growth sees the new bound from its next attempt on. What
// a memory has beyond a lower bound it keeps.
//
// Preconditions: the instance is not closed, and nobody closes it meanwhile.
func (i *Instance) BoundMemory(bytes uint64) { C.lp_guest_bound(i.c, limit(bytes)) }

// limit turns a bound of ours into one of the engine. None is a number that no
// memory reaches, not the engine's own none: see lp_guest_bound.
func limit(n uint64) C.int64_t {
	if n == 0 || n > math.MaxInt64 {
		return math.MaxInt64
	}
	return C.int64_t(n)
}

// Func is an export that can be called.
type Func struct {
	instance *Instance
	c        C.wasmtime_func_t
}

// Func looks up an exported function without parameters and results.
func (i *Instance) Func(export string) (*Func, error) {
	f := &Func{instance: i}
	switch C.lp_entry(i.c, stringPtr(export), C.size_t(len(export)), &f.c) {
	case C.LP_FOUND:
		return f, nil
	case C.LP_NO_EXPORT:
		return nil, &opError{"export " + quote(export), ErrNoExport}
	}
	return nil, &opError{"export " + quote(export), ErrNotCallable}
}

// Call runs the function. It returns the *wasm.Exit that a host function gave,
// a *wasm.Trap, or an *Error when the engine failed. After any of them the
// instance's state is whatever the guest left.
func (f *Func) Call() error {
	i := f.instance
	if !i.running.CompareAndSwap(false, true) {
		return ErrBusy
	}
	ok := bool(C.lp_call(i.c, f.c))
	i.running.Store(false)
	if ok {
		return nil
	}
	return i.takeEnd("call")
}

// Call runs an exported function without parameters and results; see
// Func.Call.
func (i *Instance) Call(export string) error {
	f, err := i.Func(export)
	if err != nil {
		return err
	}
	return f.Call()
}

// takeEnd tells how the last call ended.
func (i *Instance) takeEnd(op string) error {
	trap, failure := i.c.trap, i.c.error
	i.c.trap, i.c.error = nil, nil
	ended := i.ended
	i.ended = nil

	var exit *wasm.Exit
	if errors.As(ended, &exit) {
		if trap != nil {
			C.wasm_trap_delete(trap)
		}
		if failure != nil {
			C.wasmtime_error_delete(failure)
		}
		return exit
	}
	if trap != nil {
		t := takeTrap(trap)
		if ended != nil {
			t.Code, t.Detail = wasm.TrapHost, ended.Error()
		}
		return t
	}
	e, frames := takeFailure(op, failure)
	if ended != nil {
		return &wasm.Trap{Code: wasm.TrapHost, Detail: ended.Error(), Frames: frames}
	}
	return e
}

// Close frees the instance. It does nothing while the guest runs, which would
// pull the memory from under it: end the guest first.
func (i *Instance) Close() {
	if i.c == nil || !i.running.CompareAndSwap(false, true) {
		return
	}
	C.lp_guest_delete(i.c)
	i.c = nil
	i.pin.Unpin()
}
