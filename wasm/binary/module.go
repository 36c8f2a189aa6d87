package binary

import (
	"io"
	"strconv"
)

// Info is what a core module says about itself. Whether it is valid is not
// known.
type Info struct {
	Size     int64
	Imports  []Import
	Exports  []Export
	Memories []Memory // imported ones first
	// Functions counts those the module defines.
	Functions int
	// Start is true if the module names a start function.
	Start bool
	Meta
}

// Kinds of imports and exports, as the text format spells them.
const (
	ExternFunc   = "func"
	ExternTable  = "table"
	ExternMemory = "memory"
	ExternGlobal = "global"
	ExternTag    = "tag"
)

// Import is one import. Type is its type as text, such as
// "func(i32, i64) -> i32" or "memory 1..".
type Import struct {
	Module, Name string
	Kind, Type   string
}

// Export is one export. Type is set for functions.
type Export struct {
	Name, Kind, Type string
	index            uint32
}

// Export returns the export of that name, or nil.
func (i *Info) Export(name string) *Export {
	for n := range i.Exports {
		if i.Exports[n].Name == name {
			return &i.Exports[n]
		}
	}
	return nil
}

func (i *Info) exportsEntry(name string) bool {
	x := i.Export(name)
	return x != nil && x.Type == "func()"
}

// IsCommand says whether the module has the entry point of a WASI command.
func (i *Info) IsCommand() bool { return i.exportsEntry("_start") }

// IsReactor says whether the module is a WASI reactor: initialized once, then
// called by its exports.
func (i *Info) IsReactor() bool { return !i.IsCommand() && i.exportsEntry("_initialize") }

// WASI returns the module name of the WASI preview 1 that the module imports
// ("wasi_snapshot_preview1", "wasi_unstable"), or "".
func (i *Info) WASI() string {
	for n := range i.Imports {
		if m := i.Imports[n].Module; m == "wasi_snapshot_preview1" || m == "wasi_unstable" {
			return m
		}
	}
	return ""
}

// Sections of a core module: core specification, section 5.5.2.
const (
	secCustom   = 0
	secType     = 1
	secImport   = 2
	secFunction = 3
	secMemory   = 5
	secExport   = 7
	secStart    = 8
	secLast     = 13 // tags
)

const headerLen = 8

// module is the state of one reading.
type module struct {
	src      io.ReaderAt
	info     *Info
	names    int
	sections [secLast + 1]struct{ at, end int64 } // of those read again later
	imported []uint32                             // type of each imported function
	typeOf   []uint32                             // type of each import, noType if it is no function
}

const noType = ^uint32(0)

// ReadModule reads a core module of size bytes. A file of another kind is a
// *NotModuleError that says what it is.
func ReadModule(r io.ReaderAt, size int64) (*Info, error) {
	kind, err := SniffFile(r, size)
	if err != nil {
		return nil, err
	}
	if kind != KindModule {
		e := &NotModuleError{Kind: kind}
		if kind == KindComponent {
			if e.Component, err = ReadComponent(r, size); err != nil {
				return nil, err
			}
		}
		return nil, e
	}
	m := &module{src: r, info: &Info{Size: size}, names: maxNames}
	if err := m.walk(size); err != nil {
		return nil, err
	}
	if err := m.resolve(); err != nil {
		return nil, err
	}
	return m.info, nil
}

// walk visits every section once.
func (m *module) walk(size int64) error {
	r := newReader(m.src, headerLen, size)
	r.names = m.names
	for n := 0; r.ok() && r.left() > 0; n++ {
		if n > MaxSections {
			r.fail(ErrTooLarge, "sections")
			break
		}
		id, length := r.u8(), int64(r.u32())
		if length > r.left() {
			r.malformed("a section beyond the end")
		}
		if !r.ok() {
			break
		}
		s := newReader(m.src, r.pos, r.pos+length)
		s.names = r.names
		if err := m.section(id, s); err != nil {
			return err
		}
		r.names = s.names
		r.skip(length)
	}
	m.names = r.names
	return r.err
}

func (m *module) section(id byte, s *reader) error {
	if id == secCustom {
		m.info.custom(s)
		return s.err
	}
	if id > secLast {
		s.malformed("a section of kind " + strconv.Itoa(int(id)))
		return s.err
	}
	if m.sections[id].end != 0 {
		s.malformed("a second section of kind " + strconv.Itoa(int(id)))
		return s.err
	}
	m.sections[id].at, m.sections[id].end = s.pos, s.end
	switch id {
	case secImport:
		m.imports(s)
	case secFunction:
		m.info.Functions = s.count(maxFuncs, "functions")
	case secMemory:
		m.memories(s)
	case secExport:
		m.exports(s)
	case secStart:
		m.info.Start = true
	}
	return s.err
}

func (m *module) imports(s *reader) {
	n := s.count(MaxImports, "imports")
	for i := 0; i < n && s.ok(); i++ {
		imp := Import{Module: s.name(), Name: s.name()}
		typ := noType
		switch kind := s.u8(); kind {
		case 0:
			imp.Kind, typ = ExternFunc, s.u32()
			m.imported = append(m.imported, typ)
		case 1:
			imp.Kind = ExternTable
			t := s.valType()
			l := s.limits()
			imp.Type = "table " + limitsText(l.Min, l.Max, l.HasMax) + " " + t
		case 2:
			imp.Kind = ExternMemory
			l := s.limits()
			l.Imported = true
			m.memory(s, l)
			imp.Type = l.String()
		case 3:
			imp.Kind = ExternGlobal
			imp.Type = "global " + s.valType()
			if s.u8() != 0 {
				imp.Type += " mut"
			}
		case 4:
			imp.Kind, imp.Type = ExternTag, "tag"
			s.u8()
			s.u32()
		default:
			s.malformed("an import of kind " + strconv.Itoa(int(kind)))
		}
		m.info.Imports = append(m.info.Imports, imp)
		m.typeOf = append(m.typeOf, typ)
	}
	s.done("an import section")
}

func (m *module) memory(s *reader, l Memory) {
	if len(m.info.Memories) >= maxMemories {
		s.fail(ErrTooLarge, "memories, at most "+strconv.Itoa(maxMemories))
		return
	}
	m.info.Memories = append(m.info.Memories, l)
}

func (m *module) memories(s *reader) {
	n := s.count(maxMemories, "memories")
	for i := 0; i < n && s.ok(); i++ {
		m.memory(s, s.limits())
	}
	s.done("a memory section")
}

func (m *module) exports(s *reader) {
	kinds := [...]string{ExternFunc, ExternTable, ExternMemory, ExternGlobal, ExternTag}
	n := s.count(MaxExports, "exports")
	for i := 0; i < n && s.ok(); i++ {
		x := Export{Name: s.name()}
		kind := s.u8()
		if int(kind) >= len(kinds) {
			s.malformed("an export of kind " + strconv.Itoa(int(kind)))
			return
		}
		x.Kind, x.index = kinds[kind], s.u32()
		m.info.Exports = append(m.info.Exports, x)
	}
	s.done("an export section")
}

// resolve finds the types of imported and exported functions by reading the
// function and type sections again: what is kept grows with what is named, not
// with what the module defines.
func (m *module) resolve() error {
	byFunc := map[uint32]uint32{} // exported function -> its type
	for i := range m.info.Exports {
		if x := &m.info.Exports[i]; x.Kind == ExternFunc {
			byFunc[x.index] = noType
		}
	}
	if err := m.functionTypes(byFunc); err != nil {
		return err
	}
	texts := map[uint32]string{}
	for _, t := range m.imported {
		texts[t] = ""
	}
	for _, t := range byFunc {
		texts[t] = ""
	}
	if s := m.sections[secType]; s.end != 0 {
		r := newReader(m.src, s.at, s.end)
		if r.typeSection(texts); r.err != nil {
			return r.err
		}
	}
	for i, t := range m.typeOf {
		if t != noType {
			m.info.Imports[i].Type = texts[t]
		}
	}
	for i := range m.info.Exports {
		if x := &m.info.Exports[i]; x.Kind == ExternFunc {
			x.Type = texts[byFunc[x.index]]
		}
	}
	return nil
}

func (m *module) functionTypes(byFunc map[uint32]uint32) error {
	for i, t := range m.imported {
		if _, want := byFunc[uint32(i)]; want {
			byFunc[uint32(i)] = t
		}
	}
	s := m.sections[secFunction]
	if s.end == 0 || len(byFunc) == 0 {
		return nil
	}
	r := newReader(m.src, s.at, s.end)
	n := r.count(maxFuncs, "functions")
	for i := 0; i < n && r.ok(); i++ {
		t := r.u32()
		index := uint32(len(m.imported) + i)
		if _, want := byFunc[index]; want {
			byFunc[index] = t
		}
	}
	r.done("a function section")
	return r.err
}
