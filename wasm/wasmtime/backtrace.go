package wasmtime

import (
	"strconv"
	"strings"

	"github.com/limpet-cri/limpet/wasm"
)

// Backtrace returns a trap as text for people, one line for the trap and one
// for each frame, innermost first, without a newline at the end. module is the
// guest's file name. Names of Rust are demangled; names are cut and freed of
// control characters.
func Backtrace(module string, t *wasm.Trap) string {
	var b strings.Builder
	b.WriteString("wasm trap: ")
	b.WriteString(t.Code.String())
	if t.Detail != "" {
		b.WriteString(": ")
		b.WriteString(printable(t.Detail))
	}
	if len(t.Frames) == 0 {
		return b.String()
	}
	b.WriteString("\nwasm backtrace, innermost first:")
	for i, f := range t.Frames {
		b.WriteString("\n  ")
		b.WriteString(strconv.Itoa(i))
		b.WriteString(": ")
		if f.Offset == wasm.NoOffset {
			b.WriteString("?")
		} else {
			b.WriteString("0x")
			b.WriteString(strconv.FormatUint(f.Offset, 16))
		}
		b.WriteByte(' ')
		b.WriteString(printable(module))
		b.WriteByte('!')
		if f.Func != "" {
			b.WriteString(printable(demangle(f.Func)))
		} else {
			b.WriteString("func[")
			b.WriteString(strconv.FormatUint(uint64(f.Index), 10))
			b.WriteByte(']')
		}
	}
	return b.String()
}
