package wasm

import "strconv"

// Exit is the error of a host function that ends the guest in an orderly way,
// as preview 1's proc_exit does.
type Exit struct {
	// Code is the guest's exit code as it gave it, not yet cut to 8 bits.
	Code uint32
}

func (e *Exit) Error() string {
	return "guest exited with code " + strconv.FormatUint(uint64(e.Code), 10)
}

// TrapCode says why a guest trapped. The numbers are those of the engine.
type TrapCode uint8

// The traps of the core specification, as the engine reports them.
const (
	TrapStackOverflow     TrapCode = 0
	TrapMemoryOutOfBounds TrapCode = 1
	TrapHeapMisaligned    TrapCode = 2
	TrapTableOutOfBounds  TrapCode = 3
	TrapIndirectToNull    TrapCode = 4
	TrapBadSignature      TrapCode = 5
	TrapIntegerOverflow   TrapCode = 6
	TrapDivisionByZero    TrapCode = 7
	TrapBadConversion     TrapCode = 8
	TrapUnreachable       TrapCode = 9
	TrapInterrupt         TrapCode = 10
	TrapOutOfFuel         TrapCode = 11
	// TrapException is an exception that the guest threw and did not catch;
	// the engine has no number for it.
	TrapException TrapCode = 254
	// TrapHost is a trap raised by a host function; the engine has no number
	// for it.
	TrapHost TrapCode = 255
)

// String returns the trap's name as people search for it.
func (c TrapCode) String() string {
	switch c {
	case TrapStackOverflow:
		return "call stack exhausted"
	case TrapMemoryOutOfBounds:
		return "out of bounds memory access"
	case TrapHeapMisaligned:
		return "misaligned memory access"
	case TrapTableOutOfBounds:
		return "undefined element: out of bounds table access"
	case TrapIndirectToNull:
		return "uninitialized element"
	case TrapBadSignature:
		return "indirect call type mismatch"
	case TrapIntegerOverflow:
		return "integer overflow"
	case TrapDivisionByZero:
		return "integer divide by zero"
	case TrapBadConversion:
		return "invalid conversion to integer"
	case TrapUnreachable:
		return "unreachable executed"
	case TrapInterrupt:
		return "interrupted"
	case TrapOutOfFuel:
		return "out of fuel"
	case TrapException:
		return "uncaught exception"
	case TrapHost:
		return "host function failed"
	}
	return "trap " + strconv.Itoa(int(c))
}

// Frame is one frame of a Wasm backtrace, innermost first.
type Frame struct {
	// Func is the function's name from the name section, or empty.
	Func string
	// Index is the function's index in the module.
	Index uint32
	// Offset is the byte offset in the module, or NoOffset.
	Offset uint64
}

// NoOffset is the Offset of a frame whose place is not known, such as the
// innermost one of an exhausted call stack.
const NoOffset = ^uint64(0)

// Trap is the error of a guest that trapped.
type Trap struct {
	Code   TrapCode
	Detail string // what the engine or the host function said beyond the code; may be empty
	Frames []Frame
}

func (t *Trap) Error() string {
	if t.Detail == "" {
		return t.Code.String()
	}
	return t.Code.String() + ": " + t.Detail
}
