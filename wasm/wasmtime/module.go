package wasmtime

// #include "glue.h"
import "C"

import (
	"strconv"
	"strings"
	"unsafe"

	"github.com/limpet-cri/limpet/wasm"
)

// Module is compiled code, mapped and ready to be linked.
type Module struct {
	c *C.wasmtime_module_t
	// types is false under proposals that allow references of which the API
	// can not tell the type.
	types bool
}

// LoadFile maps a file that Compile of an engine with the same configuration
// wrote. The file must be trusted: the engine checks its form, version and
// settings, not its instructions.
func (e *Engine) LoadFile(path string) (*Module, error) {
	if strings.IndexByte(path, 0) >= 0 {
		return nil, &Error{Op: "load compiled code", Text: "a path with a zero byte"}
	}
	z := append([]byte(path), 0)
	m := &Module{types: e.types}
	err := takeError("load compiled code", C.wasmtime_module_deserialize_file(e.c, (*C.char)(unsafe.Pointer(&z[0])), &m.c))
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Close frees the module. Code in use by an instance stays until that is closed.
func (m *Module) Close() {
	if m.c != nil {
		C.wasmtime_module_delete(m.c)
		m.c = nil
	}
}

// ExternKind says what an import or export is. The numbers are the engine's.
type ExternKind uint8

// The kinds of imports and exports.
const (
	KindFunc   ExternKind = 0
	KindGlobal ExternKind = 1
	KindTable  ExternKind = 2
	KindMemory ExternKind = 3
	KindTag    ExternKind = 4
)

// String returns the kind as the text format spells it.
func (k ExternKind) String() string {
	switch k {
	case KindFunc:
		return "func"
	case KindGlobal:
		return "global"
	case KindTable:
		return "table"
	case KindMemory:
		return "memory"
	case KindTag:
		return "tag"
	}
	return "extern " + strconv.Itoa(int(k))
}

// Extern is one import or export of a module. Module is empty for an export.
// Func is set for a function whose type is known (Typed); its types are those
// of the engine, so that vectors and references (4, 128, 129) can occur. Types
// are not known for more than 64 parameters and results together, and under
// proposals that bring new kinds of references.
type Extern struct {
	Module, Name string
	Kind         ExternKind
	Typed        bool
	Func         wasm.FuncType
}

// Type returns the type as text, such as "func(i32, i64) -> i32" or "memory".
func (x *Extern) Type() string {
	if !x.Typed {
		return x.Kind.String()
	}
	return funcText(x.Func)
}

func funcText(t wasm.FuncType) string {
	var b strings.Builder
	b.WriteString("func(")
	writeTypes(&b, t.Params)
	b.WriteByte(')')
	if len(t.Results) > 0 {
		b.WriteString(" -> ")
		writeTypes(&b, t.Results)
	}
	return b.String()
}

func writeTypes(b *strings.Builder, types []wasm.ValType) {
	for i, t := range types {
		if i > 0 {
			b.WriteString(", ")
		}
		switch t {
		case wasm.I32:
			b.WriteString("i32")
		case wasm.I64:
			b.WriteString("i64")
		case wasm.F32:
			b.WriteString("f32")
		case wasm.F64:
			b.WriteString("f64")
		case typeV128:
			b.WriteString("v128")
		case typeExternref:
			b.WriteString("externref")
		case typeFuncref:
			b.WriteString("funcref")
		default:
			b.WriteByte('?')
		}
	}
}

// The engine's value types beyond those of host functions.
const (
	typeV128      wasm.ValType = 4
	typeExternref wasm.ValType = 128
	typeFuncref   wasm.ValType = 129
)

// Imports returns what the module imports, in its order.
func (m *Module) Imports() []Extern {
	var v C.wasm_importtype_vec_t
	C.wasmtime_module_imports(m.c, &v)
	defer C.wasm_importtype_vec_delete(&v)
	list := make([]Extern, 0, int(v.size))
	var it C.lp_item
	for i := range int(v.size) {
		C.lp_import(&v, C.size_t(i), C.bool(m.types), &it)
		list = append(list, externOf(&it))
	}
	return list
}

// Exports returns what the module exports, in its order.
func (m *Module) Exports() []Extern {
	var v C.wasm_exporttype_vec_t
	C.wasmtime_module_exports(m.c, &v)
	defer C.wasm_exporttype_vec_delete(&v)
	list := make([]Extern, 0, int(v.size))
	var it C.lp_item
	for i := range int(v.size) {
		C.lp_export(&v, C.size_t(i), C.bool(m.types), &it)
		list = append(list, externOf(&it))
	}
	return list
}

// HasExport says whether the module exports anything under that name.
func (m *Module) HasExport(name string) bool {
	var v C.wasm_exporttype_vec_t
	C.wasmtime_module_exports(m.c, &v)
	defer C.wasm_exporttype_vec_delete(&v)
	var it C.lp_item
	for i := range int(v.size) {
		C.lp_export(&v, C.size_t(i), false, &it)
		if view(it.name, it.name_len) == name {
			return true
		}
	}
	return false
}

func externOf(it *C.lp_item) Extern {
	x := Extern{
		Module: strings.Clone(view(it.module, it.module_len)),
		Name:   strings.Clone(view(it.name, it.name_len)),
		Kind:   ExternKind(it.kind),
		Typed:  bool(it.typed),
	}
	if x.Typed {
		x.Func = funcType(it)
	}
	return x
}

func funcType(it *C.lp_item) wasm.FuncType {
	types := make([]wasm.ValType, int(it.params+it.results))
	for i := range types {
		types[i] = wasm.ValType(it.types[i])
	}
	return wasm.FuncType{Params: types[:it.params:it.params], Results: types[it.params:]}
}

// isFunc says whether the item is a function of exactly this type.
func isFunc(it *C.lp_item, t *wasm.FuncType) bool {
	if !it.typed || int(it.params) != len(t.Params) || int(it.results) != len(t.Results) {
		return false
	}
	for i, p := range t.Params {
		if wasm.ValType(it.types[i]) != p {
			return false
		}
	}
	for i, r := range t.Results {
		if wasm.ValType(it.types[len(t.Params)+i]) != r {
			return false
		}
	}
	return true
}

// view is an engine's string in place, good as long as what it came from.
func view(p *C.char, n C.size_t) string {
	if n == 0 {
		return ""
	}
	return unsafe.String((*byte)(unsafe.Pointer(p)), int(n))
}
