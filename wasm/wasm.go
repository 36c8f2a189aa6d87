// Package wasm owns the engine-neutral words that the host functions and the
// engine share: value types, function types, host functions, limits, traps.
//
// It runs nothing and knows no cgo. wasm/wasip1 describes its calls in these
// words; wasm/wasmtime turns them into an instance.
package wasm

// ValType is the type of a core WebAssembly value (core specification,
// section 2.3.1), restricted to what host functions use.
type ValType uint8

// The value types a host function may take or return. The numbers are those
// of the engine's C API, so that no table is needed on the way.
const (
	I32 ValType = 0
	I64 ValType = 1
	F32 ValType = 2
	F64 ValType = 3
)

// FuncType is the type of a function: its parameters and results in order.
type FuncType struct {
	Params, Results []ValType
}

// Raw is one value slot of a host call, 16 bytes wide. A 32-bit value lives in
// the lower half of the first word; the rest of a slot is undefined on entry.
type Raw [2]uint64

// I32 returns the slot's value as an unsigned 32-bit integer.
func (r *Raw) I32() uint32 { return uint32(r[0]) }

// I64 returns the slot's value as an unsigned 64-bit integer.
func (r *Raw) I64() uint64 { return r[0] }

// SetI32 stores a 32-bit result and clears the rest of the first word.
func (r *Raw) SetI32(v uint32) { r[0] = uint64(v) }

// SetI64 stores a 64-bit result.
func (r *Raw) SetI64(v uint64) { r[0] = v }

// HostFunc is a function that a guest imports. stack holds the parameters on
// entry and the results on return (its length is the larger of the two counts).
// mem is the calling instance's exported memory "memory", nil when it exports
// none; both are valid only until the function returns.
//
// A non-nil error ends the guest: *Exit as an orderly end, anything else as a
// trap that carries the error's text. A panic becomes a trap as well and never
// crosses Wasm frames.
type HostFunc func(mem []byte, stack []Raw) error

// Fast names a host function whose answer needs no policy, so that an engine
// may give it without entering Go. The zero value means: always call Func.
type Fast uint8

// The host functions an engine may answer itself. They all take and return
// what the preview 1 functions of that name do.
const (
	FastNone Fast = iota
	FastClockTimeGet
	FastSchedYield
	FastRandomGet
)

// Import is one host function under the name that guests import it by.
type Import struct {
	Module, Name string
	Type         FuncType
	Func         HostFunc
	Fast         Fast
}

// Limits bound what one guest may hold. A zero field means no bound of ours.
type Limits struct {
	// Memory is the size in bytes that each linear memory may reach; growth
	// beyond it fails in the guest as memory.grow = -1.
	Memory uint64
	// TableElements is the number of elements each table may reach.
	TableElements uint64
}
