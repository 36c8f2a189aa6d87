//go:build wasmtime_external

package wasmtime

// An engine library given at build time: make build WASMTIME_LIB=DIR puts -L
// into CGO_LDFLAGS and names the build with -X. prototype_test.go proves that
// it fits.

// #cgo LDFLAGS: -lwasmtime -lm -ldl -pthread
import "C"

// engineBuild names the build of the engine library. It enters Key, so that it
// must differ between libraries that differ; it is set by the linker and never
// at run time.
var engineBuild = "external"
