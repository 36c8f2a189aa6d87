package wasmtime

// #include "glue.h"
import "C"

import (
	"errors"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"github.com/limpet-cri/limpet/wasm"
)

// limpetHostCall runs host function number index of the instance that owner
// points to. base and size are the guest's memory "memory". It returns true to
// end the guest, for the reason kept in the instance.
//
//export limpetHostCall
func limpetHostCall(owner unsafe.Pointer, index uintptr, base *C.uint8_t, size C.size_t, raw *C.wasmtime_val_raw_t, n C.size_t) (end C.bool) {
	i := (*Instance)(owner)
	defer func() {
		// Nothing may unwind through the Wasm frames below.
		if r := recover(); r != nil {
			i.ended = panicError(&i.funcs[index], r)
			end = true
		}
	}()
	mem := unsafe.Slice((*byte)(unsafe.Pointer(base)), int(size))
	stack := unsafe.Slice((*wasm.Raw)(unsafe.Pointer(raw)), int(n))
	if err := i.funcs[index].call(mem, stack); err != nil {
		i.ended = err
		return true
	}
	return false
}

// panicError describes a panic of a host function: a bug of ours, so that the
// place belongs in the message.
func panicError(f *hostFunc, r any) error {
	var b strings.Builder
	b.WriteString("panic in ")
	b.WriteString(f.module)
	b.WriteByte('.')
	b.WriteString(f.name)
	b.WriteString(": ")
	switch v := r.(type) {
	case error:
		b.WriteString(v.Error())
	case string:
		b.WriteString(v)
	default:
		b.WriteString("a value that is no error")
	}
	if place := panicPlace(); place != "" {
		b.WriteString(" at ")
		b.WriteString(place)
	}
	return errors.New(printable(b.String()))
}

// panicPlace returns the innermost frame of the panicking function that is not
// the runtime's.
func panicPlace() string {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		f, more := frames.Next()
		if f.Function != "" && !strings.HasPrefix(f.Function, "runtime.") && !strings.Contains(f.Function, "limpetHostCall") {
			file := f.File[strings.LastIndexByte(f.File, '/')+1:]
			return f.Function + " (" + file + ":" + strconv.Itoa(f.Line) + ")"
		}
		if !more {
			return ""
		}
	}
}
