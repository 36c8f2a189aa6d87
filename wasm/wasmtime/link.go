package wasmtime

// #include "glue.h"
import "C"

import (
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/limpet-cri/limpet/wasm"
)

const (
	// maxImports bounds what a module may import; preview 1 has 46 functions.
	maxImports = 10_000
	// maxReported bounds how many imports an error names.
	maxReported = 16
)

// Mismatch is an import that a host offers with another type.
type Mismatch struct {
	Import Extern
	Offers wasm.FuncType
}

// MissingImportsError names everything that a module imports and a host cannot
// give.
type MissingImportsError struct {
	Missing    []Extern   // not offered under that name
	Mismatched []Mismatch // offered, with another type
}

func (e *MissingImportsError) Error() string {
	var b strings.Builder
	part := func(intro string, n int, item func(i int)) {
		if n == 0 {
			return
		}
		if b.Len() > 0 {
			b.WriteString("; ")
		}
		b.WriteString(intro)
		for i := range min(n, maxReported) {
			if i > 0 {
				b.WriteString(", ")
			}
			item(i)
		}
		if n > maxReported {
			b.WriteString(" and ")
			b.WriteString(strconv.Itoa(n - maxReported))
			b.WriteString(" more")
		}
	}
	part("the module imports what this host does not offer: ", len(e.Missing), func(i int) {
		writeImport(&b, &e.Missing[i])
	})
	part("the module imports with another type: ", len(e.Mismatched), func(i int) {
		writeImport(&b, &e.Mismatched[i].Import)
		b.WriteString(" (offered as ")
		b.WriteString(funcText(e.Mismatched[i].Offers))
		b.WriteByte(')')
	})
	return b.String()
}

func writeImport(b *strings.Builder, x *Extern) {
	b.WriteString(printable(x.Module))
	b.WriteByte('.')
	b.WriteString(printable(x.Name))
	b.WriteByte(' ')
	b.WriteString(x.Type())
}

// Linked is a module with its imports resolved.
type Linked struct {
	engine *Engine
	pre    *C.wasmtime_instance_pre_t
	// funcs are the host functions in the order that the engine numbers them.
	funcs []hostFunc
}

// hostFunc is what a call from the guest needs to know.
type hostFunc struct {
	call         wasm.HostFunc
	module, name string
}

// Link resolves the module's imports among those given; what it does not
// import costs nothing. What it imports and nobody gives is a
// *MissingImportsError.
func (e *Engine) Link(m *Module, imports []wasm.Import) (*Linked, error) {
	var v C.wasm_importtype_vec_t
	C.wasmtime_module_imports(m.c, &v)
	defer C.wasm_importtype_vec_delete(&v)
	if v.size > maxImports {
		return nil, &opError{"link " + strconv.FormatUint(uint64(v.size), 10) + " imports", ErrTooManyImports}
	}
	linker := C.wasmtime_linker_new(e.c)
	defer C.wasmtime_linker_delete(linker)
	// A module may import the same function twice.
	C.wasmtime_linker_allow_shadowing(linker, true)

	l := &Linked{engine: e, funcs: make([]hostFunc, 0, int(v.size))}
	if err := l.define(linker, m.types, &v, imports); err != nil {
		return nil, err
	}
	if err := takeError("link", C.wasmtime_linker_instantiate_pre(linker, m.c, &l.pre)); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Linked) define(linker *C.wasmtime_linker_t, types bool, v *C.wasm_importtype_vec_t, imports []wasm.Import) error {
	var missing MissingImportsError
	var it C.lp_item
	for i := range int(v.size) {
		C.lp_import(v, C.size_t(i), C.bool(types), &it)
		imp := find(imports, view(it.module, it.module_len), view(it.name, it.name_len))
		switch {
		case imp == nil:
			missing.Missing = append(missing.Missing, externOf(&it))
			continue
		case ExternKind(it.kind) != KindFunc, types && !isFunc(&it, &imp.Type):
			// Without types the engine itself compares, when all is defined.
			missing.Mismatched = append(missing.Mismatched, Mismatch{externOf(&it), imp.Type})
			continue
		}
		index := len(l.funcs)
		l.funcs = append(l.funcs, hostFunc{imp.Func, imp.Module, imp.Name})
		if err := takeError("link", defineFunc(linker, &it, imp, index)); err != nil {
			return err
		}
	}
	if missing.Missing != nil || missing.Mismatched != nil {
		return &missing
	}
	return nil
}

func defineFunc(linker *C.wasmtime_linker_t, it *C.lp_item, imp *wasm.Import, index int) *C.wasmtime_error_t {
	p, r := imp.Type.Params, imp.Type.Results
	return C.lp_define(linker, it, (*C.uint8_t)(unsafe.SliceData(p)), C.size_t(len(p)),
		(*C.uint8_t)(unsafe.SliceData(r)), C.size_t(len(r)), C.uint8_t(fastOf(imp)), C.uint32_t(index))
}

// find looks through the list in order: some 50 imports among some 90, without
// a map that would stay in the heap of every host.
func find(imports []wasm.Import, module, name string) *wasm.Import {
	for i := range imports {
		if imports[i].Name == name && imports[i].Module == module {
			return &imports[i]
		}
	}
	return nil
}

// fastOf returns imp.Fast if the engine can answer a function of that type.
func fastOf(imp *wasm.Import) wasm.Fast {
	var params []wasm.ValType
	switch imp.Fast {
	case wasm.FastClockTimeGet:
		params = []wasm.ValType{wasm.I32, wasm.I64, wasm.I32}
	case wasm.FastSchedYield:
	case wasm.FastRandomGet:
		params = []wasm.ValType{wasm.I32, wasm.I32}
	default:
		return wasm.FastNone
	}
	if !slices.Equal(imp.Type.Params, params) || !slices.Equal(imp.Type.Results, []wasm.ValType{wasm.I32}) {
		return wasm.FastNone
	}
	return imp.Fast
}

// Close frees the linked module. Instances made of it may go on.
func (l *Linked) Close() {
	if l.pre != nil {
		C.wasmtime_instance_pre_delete(l.pre)
		l.pre = nil
	}
}
