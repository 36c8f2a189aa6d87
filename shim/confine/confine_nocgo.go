//go:build !cgo

package confine

// Confined reports whether the constructor has confined this process; without
// cgo there is none.
func Confined() bool { return false }

// Steps returns the names of the constructor's steps; without cgo it has none.
func Steps() []string { return nil }
