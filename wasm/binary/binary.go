// Package binary owns the reading of WebAssembly files: what a file is
// (Sniff), what a core module imports and exports (ReadModule), what a
// component is for (ReadComponent). The daemon looks at guest bytes through
// this package only.
//
// It decides nothing: whether a module is valid, and whether it may run, is
// said by the engine in a confined process. It never reads function bodies or
// data, never follows what a file says without a bound, and keeps no state.
package binary

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds. What exceeds one is ErrTooLarge. Real modules stay far below: the
// largest seen had 1,400 imports, 9,000 exports and 60 custom sections.
const (
	MaxImports  = 10_000
	MaxExports  = 100_000
	MaxSections = 100_000 // of a component, whose sections alternate
	maxFuncs    = 1_000_000
	maxTypes    = 1_000_000
	maxMemories = 100
	maxFields   = 100_000 // of a struct type, of a recursion group
	// maxName bounds one name, as the engine does; maxNames all that are kept.
	maxName  = 100_000
	maxNames = 8 << 20
	// maxValues bounds the parameters and results of a function type.
	maxValues = 2_000
	// maxShown bounds how many of them are spelled out.
	maxShown = 64
)

// Bounds of what is kept of custom sections; the rest is left out silently,
// since nothing depends on it.
const (
	maxCustoms   = 256
	maxProducers = 64
	maxText      = 4 << 10
)

// Errors of this package; they come wrapped with the place.
var (
	ErrMalformed = errors.New("malformed WebAssembly")
	ErrTooLarge  = errors.New("WebAssembly beyond the bounds of this node")
	ErrNotModule = errors.New("not a core WebAssembly module")
)

// Error says where in a file what was wrong.
type Error struct {
	Offset int64
	Text   string
	Err    error // ErrMalformed, ErrTooLarge, or what reading said
}

func (e *Error) Error() string {
	return e.Err.Error() + " at offset " + strconv.FormatInt(e.Offset, 10) + ": " + e.Text
}

func (e *Error) Unwrap() error { return e.Err }

// NotModuleError is returned by ReadModule for a file of another kind.
type NotModuleError struct {
	Kind Kind
	// Component is what is known of a component, or nil.
	Component *Component
}

func (e *NotModuleError) Error() string {
	if e.Component != nil {
		return ErrNotModule.Error() + ": " + e.Component.String()
	}
	return ErrNotModule.Error() + ": " + e.Kind.String()
}

func (e *NotModuleError) Unwrap() error { return ErrNotModule }

// Printable makes a name from a file safe to print on one line, and at most
// limit bytes long (and a little more when it was cut).
func Printable(s string, limit int) string {
	if len(s) > limit {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = s[:limit] + "..."
	}
	return strings.Map(func(r rune) rune {
		// Controls, and what turns the direction of text around.
		if r < ' ' || r == utf8.RuneError || (r >= 0x7f && r < 0xa0) || (r >= 0x2028 && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) {
			return '?'
		}
		return r
	}, s)
}
