//go:build !wasmtime_external

package wasmtime

// The engine as bundled by its Go module. Only its link flags are wanted; its
// Go code is dropped by the linker.
import _ "github.com/bytecodealliance/wasmtime-go/v44"

// engineBuild names the build of the engine library.
const engineBuild = "wasmtime-go/v44.0.0"
