package wasmtime

// #include "glue.h"
import "C"

import (
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/limpet-cri/limpet/wasm"
)

// Bounds of what is taken over from the engine's words, which may repeat names
// that a module's author chose.
const (
	maxErrorText = 4096
	maxName      = 256  // as printed
	maxSymbol    = 1024 // of a frame, before it is demangled
	maxFrames    = 64   // the engine gives 20
)

// takeError turns an error of the engine into ours and frees it.
func takeError(op string, e *C.wasmtime_error_t) error {
	if e == nil {
		return nil
	}
	var v C.wasm_name_t
	C.wasmtime_error_message(e, &v)
	C.wasmtime_error_delete(e)
	return &Error{Op: op, Text: oneLine(takeText(&v, maxErrorText))}
}

// oneLine joins an engine's message, which lists its causes below "Caused by:",
// outermost first, into one line.
func oneLine(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line == "Caused by:" {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(line)
	}
	return b.String()
}

// takeText copies an engine's text and frees it.
func takeText(v *C.wasm_name_t, limit int) string {
	s := nameText(v, limit)
	C.wasm_byte_vec_delete(v)
	return s
}

func nameText(v *C.wasm_name_t, limit int) string {
	n := min(int(v.size), limit)
	if n == 0 {
		return ""
	}
	s := string(unsafe.Slice((*byte)(unsafe.Pointer(v.data)), n))
	s = strings.ToValidUTF8(strings.TrimRight(s, "\x00"), "")
	if int(v.size) > limit {
		s += "..."
	}
	return s
}

// takeTrap turns a trap of the engine into ours and frees it.
func takeTrap(t *C.wasm_trap_t) *wasm.Trap {
	// A trap that is not the engine's own is that of a host function, which the
	// caller knows, or an exception that nobody caught.
	trap := &wasm.Trap{Code: wasm.TrapException}
	var code C.uint8_t
	if bool(C.wasmtime_trap_code(t, &code)) { // 0 is a valid code
		trap.Code = wasm.TrapCode(code)
	}
	var v C.wasm_name_t
	C.wasm_trap_message(t, &v)
	trap.Detail = detail(trap.Code, takeText(&v, maxErrorText))
	var fv C.wasm_frame_vec_t
	C.wasm_trap_trace(t, &fv)
	trap.Frames = takeFrames(&fv)
	C.wasm_trap_delete(t)
	return trap
}

// takeFailure does the same for an error that ended a call: what a host
// function returned, or an engine failure at run time.
func takeFailure(op string, e *C.wasmtime_error_t) (*Error, []wasm.Frame) {
	var fv C.wasm_frame_vec_t
	C.wasmtime_error_wasm_trace(e, &fv)
	frames := takeFrames(&fv)
	var v C.wasm_name_t
	C.wasmtime_error_message(e, &v)
	C.wasmtime_error_delete(e)
	return &Error{Op: op, Text: lastLine(takeText(&v, maxErrorText))}, frames
}

func takeFrames(v *C.wasm_frame_vec_t) []wasm.Frame {
	var frames []wasm.Frame
	for _, f := range unsafe.Slice(v.data, min(int(v.size), maxFrames)) {
		fr := wasm.Frame{Index: uint32(C.wasm_frame_func_index(f)), Offset: uint64(C.wasm_frame_module_offset(f))}
		if n := C.wasmtime_frame_func_name(f); n != nil {
			fr.Func = nameText((*C.wasm_name_t)(unsafe.Pointer(n)), maxSymbol)
		}
		frames = append(frames, fr)
	}
	C.wasm_frame_vec_delete(v)
	return frames
}

// detail finds what the engine's message says beyond the trap's code: for a
// memory fault the address, for a trap without code its cause.
func detail(code wasm.TrapCode, text string) string {
	if code == wasm.TrapException {
		return lastLine(text)
	}
	if i := strings.Index(text, "memory fault at "); i >= 0 {
		line, _, _ := strings.Cut(text[i:], "\n")
		return line
	}
	return ""
}

// lastLine returns the innermost cause of an engine's message, which lists a
// backtrace and then causes, outermost first.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	if i := strings.LastIndexByte(text, '\n'); i >= 0 {
		text = strings.TrimSpace(text[i+1:])
	}
	// "1: cause" becomes "cause".
	if n, rest, ok := strings.Cut(text, ": "); ok && len(n) <= 2 && strings.Trim(n, "0123456789") == "" {
		text = rest
	}
	return text
}

// printable makes a name that a module's author chose safe to print on one
// line, and short.
func printable(s string) string {
	if len(s) > maxName {
		cut := maxName
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError || (r >= 0x80 && r < 0xa0) || (r >= 0x2028 && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) {
			return '?'
		}
		return r
	}, s)
}

func quote(s string) string { return `"` + printable(s) + `"` }
