//go:build !cgo

package confine

// Confined reports whether the constructor has confined this process; without
// cgo there is none.
func Confined() bool { return false }
