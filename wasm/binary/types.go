package binary

import (
	"strconv"
	"strings"
)

// Encodings of types: core specification, section 5.3.
const (
	typeFunc     = 0x60
	typeStruct   = 0x5f
	typeArray    = 0x5e
	typeSub      = 0x50
	typeSubFinal = 0x4f
	typeRec      = 0x4e
	refNullable  = 0x63
	refNonNull   = 0x64
)

// valType reads a value type and returns it as text.
func (r *reader) valType() string {
	switch b := r.u8(); b {
	case 0x7f:
		return "i32"
	case 0x7e:
		return "i64"
	case 0x7d:
		return "f32"
	case 0x7c:
		return "f64"
	case 0x7b:
		return "v128"
	case 0x70:
		return "funcref"
	case 0x6f:
		return "externref"
	case refNullable:
		return "(ref null " + r.heapType() + ")"
	case refNonNull:
		return "(ref " + r.heapType() + ")"
	default:
		if name := abstractHeap(int64(b) - 0x80); name != "" {
			return name + "ref"
		}
		r.malformed("a value type of 0x" + strconv.FormatUint(uint64(b), 16))
		return ""
	}
}

func (r *reader) heapType() string {
	v := r.s33()
	if v >= 0 {
		return strconv.FormatInt(v, 10)
	}
	name := abstractHeap(v)
	if name == "" {
		r.malformed("a heap type of " + strconv.FormatInt(v, 10))
	}
	return name
}

func abstractHeap(v int64) string {
	switch v + 0x80 {
	case 0x68:
		return "cont"
	case 0x69:
		return "exn"
	case 0x6a:
		return "array"
	case 0x6b:
		return "struct"
	case 0x6c:
		return "i31"
	case 0x6d:
		return "eq"
	case 0x6e:
		return "any"
	case 0x6f:
		return "extern"
	case 0x70:
		return "func"
	case 0x71:
		return "none"
	case 0x72:
		return "noextern"
	case 0x73:
		return "nofunc"
	case 0x74:
		return "noexn"
	case 0x75:
		return "nocont"
	}
	return ""
}

// typeSection walks the types and hands the text of those asked for to use.
func (r *reader) typeSection(wanted map[uint32]string) {
	n := r.count(maxTypes, "types")
	index := uint32(0)
	for i := 0; i < n && r.ok(); i++ {
		group := 1
		form := r.u8()
		if form == typeRec {
			if group = r.count(maxFields, "types of a group"); group > 0 {
				form = r.u8()
			}
		}
		for g := range group {
			if g > 0 {
				form = r.u8()
			}
			_, want := wanted[index]
			text := r.subType(form, want)
			if want {
				wanted[index] = text
			}
			index++
			if !r.ok() || index > maxTypes {
				r.fail(ErrTooLarge, "types")
				return
			}
		}
	}
	r.done("a type section")
}

// subType reads one type after its first byte, and returns a function type's
// text if it is wanted.
func (r *reader) subType(form byte, want bool) string {
	if form == typeSub || form == typeSubFinal {
		for range r.count(maxFields, "supertypes") {
			r.u32()
		}
		form = r.u8()
	}
	switch form {
	case typeFunc:
		return r.funcType(want)
	case typeArray:
		r.field()
		return "array"
	case typeStruct:
		n := r.count(maxFields, "fields")
		for i := 0; i < n && r.ok(); i++ {
			r.field()
		}
		return "struct"
	}
	r.malformed("a type of form 0x" + strconv.FormatUint(uint64(form), 16))
	return ""
}

func (r *reader) field() {
	const i8, i16 = 0x78, 0x77
	at := r.pos
	if b := r.u8(); b != i8 && b != i16 {
		r.pos = at
		r.valType()
	}
	r.u8() // mutability
}

// funcType reads a function type, and spells it out if it is wanted.
func (r *reader) funcType(want bool) string {
	params := r.valTypes("parameters", want)
	results := r.valTypes("results", want)
	switch {
	case !want:
		return ""
	case len(results) == 0:
		return "func(" + strings.Join(params, ", ") + ")"
	}
	return "func(" + strings.Join(params, ", ") + ") -> " + strings.Join(results, ", ")
}

func (r *reader) valTypes(what string, want bool) []string {
	var list []string
	n := r.count(maxValues, what)
	for i := 0; i < n && r.ok(); i++ {
		t := r.valType()
		switch {
		case !want || i > maxShown:
		case i == maxShown:
			list = append(list, "...")
		default:
			list = append(list, t)
		}
	}
	return list
}

// Memory is the type of a memory.
type Memory struct {
	Imported bool
	// Min and Max are in pages; HasMax says whether there is a maximum.
	Min, Max     uint64
	HasMax       bool
	Is64, Shared bool
	PageSizeLog2 uint8 // 16 but for custom page sizes
}

func (m *Memory) String() string {
	return "memory " + limitsText(m.Min, m.Max, m.HasMax)
}

func limitsText(low, high uint64, hasMax bool) string {
	s := strconv.FormatUint(low, 10) + ".."
	if hasMax {
		s += strconv.FormatUint(high, 10)
	}
	return s
}

// limits reads the limits of a memory or a table.
func (r *reader) limits() (m Memory) {
	const hasMax, shared, is64, pageSize = 1, 2, 4, 8
	flags := r.u8()
	if flags > 15 {
		r.malformed("limits with unknown flags")
	}
	m.HasMax, m.Shared, m.Is64, m.PageSizeLog2 = flags&hasMax != 0, flags&shared != 0, flags&is64 != 0, 16
	m.Min = r.u64()
	if m.HasMax {
		m.Max = r.u64()
	}
	if flags&pageSize != 0 {
		v := r.u32()
		if v > 16 {
			r.malformed("a page size of 2^" + strconv.FormatUint(uint64(v), 10))
		}
		m.PageSizeLog2 = uint8(v)
	}
	return m
}
