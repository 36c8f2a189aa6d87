//go:build cgo

package confine

// #cgo CFLAGS: -Wall -Wextra
// #include "confine.h"
import "C"

// Confined reports whether the constructor has confined this process. A host
// that is not confined must not run a guest.
func Confined() bool { return C.limpet_confined != 0 }

// Steps returns the names of the constructor's steps, in their order.
func Steps() []string {
	var names []string
	for i := C.int(0); ; i++ {
		name := C.limpet_confine_step(i)
		if name == nil {
			return names
		}
		names = append(names, C.GoString(name))
	}
}
