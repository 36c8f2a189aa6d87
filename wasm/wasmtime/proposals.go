package wasmtime

// #include "glue.h"
import "C"

// proposal is one WebAssembly proposal that the engine can be told about.
type proposal struct {
	name string
	bit  uint32
	on   bool   // part of the default set
	also uint32 // what it needs besides
}

// newReferences are the proposals with references beyond funcref and externref.
const newReferences = C.LP_EXCEPTIONS | C.LP_FUNCTION_REFERENCES | C.LP_GC

// The proposals, by the names of their repositories. Mutable globals, sign
// extension, saturating conversions and extended constants are always on: the
// engine has no switch for them. Threads, stack switching and the component
// model are always off: threads because no guest can start one, the others
// because a host does not offer them.
func proposals() []proposal {
	return []proposal{
		{"tail-call", C.LP_TAIL_CALL, true, 0},
		{"reference-types", C.LP_REFERENCE_TYPES, true, 0},
		{"simd", C.LP_SIMD, true, 0},
		{"relaxed-simd", C.LP_RELAXED_SIMD, true, 0},
		{"bulk-memory-operations", C.LP_BULK_MEMORY, true, 0},
		{"multi-value", C.LP_MULTI_VALUE, true, 0},
		{"multi-memory", C.LP_MULTI_MEMORY, true, 0},
		{"memory64", C.LP_MEMORY64, false, 0},
		{"exception-handling", C.LP_EXCEPTIONS, false, 0},
		{"function-references", C.LP_FUNCTION_REFERENCES, false, 0},
		{"gc", C.LP_GC, false, C.LP_FUNCTION_REFERENCES},
		{"wide-arithmetic", C.LP_WIDE_ARITHMETIC, false, 0},
		{"custom-page-sizes", C.LP_CUSTOM_PAGE_SIZES, false, 0},
	}
}

// Known returns the names that Config.Proposals may hold: what is not part of
// the default set.
func Known() []string {
	var names []string
	for _, p := range proposals() {
		if !p.on {
			names = append(names, p.name)
		}
	}
	return names
}

// Defaults returns the names of the proposals that are always on.
func Defaults() []string {
	var names []string
	for _, p := range proposals() {
		if p.on {
			names = append(names, p.name)
		}
	}
	return names
}

func proposalBits(extra []string) (uint32, error) {
	table := proposals()
	var bits uint32
	for _, p := range table {
		if p.on {
			bits |= p.bit
		}
	}
next:
	for _, name := range extra {
		for _, p := range table {
			if p.name == name {
				bits |= p.bit | p.also
				continue next
			}
		}
		return 0, &opError{quote(name), ErrUnknownProposal}
	}
	return bits, nil
}
