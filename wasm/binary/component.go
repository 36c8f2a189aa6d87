package binary

import (
	"io"
	"strconv"
	"strings"
)

// Component is what the top level of a component says about it.
type Component struct {
	Size             int64
	Imports, Exports []ComponentItem
	// CoreModules and Components count what it holds on its top level.
	CoreModules, Components int
	// Partial is true if something could not be decoded, so that names may be
	// missing: the binary format of components still grows.
	Partial bool
	code    bool // anything that could run
	Meta
}

// ComponentItem is an import or export of a component, such as an instance
// named "wasi:http/incoming-handler@0.2.0".
type ComponentItem struct {
	Name, Kind string
}

// WITOnly says whether the component is an interface package: it declares
// types, and there is nothing to run in it.
func (c *Component) WITOnly() bool {
	if c.Partial || c.code {
		return false
	}
	for _, x := range c.Exports {
		if x.Kind != "type" && x.Kind != "component" {
			return false
		}
	}
	return true
}

// shownItems bounds the names in a sentence; shownName the length of each.
const (
	shownItems = 8
	shownName  = 128
)

// String returns what the component is as a noun phrase for people.
func (c *Component) String() string {
	var b strings.Builder
	if c.WITOnly() {
		b.WriteString("an interface package (WIT) with nothing to run")
	} else {
		b.WriteString("a component")
	}
	switch {
	case len(c.Exports) > 0:
		b.WriteString(" exporting ")
		writeItems(&b, c.Exports)
	case len(c.Imports) > 0:
		b.WriteString(" importing ")
		writeItems(&b, c.Imports)
	}
	return b.String()
}

func writeItems(b *strings.Builder, items []ComponentItem) {
	for i := range min(len(items), shownItems) {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(Printable(items[i].Name, shownName))
	}
	if n := len(items) - shownItems; n > 0 {
		b.WriteString(" and ")
		b.WriteString(strconv.Itoa(n))
		b.WriteString(" more")
	}
}

// Sections of a component: component model, Binary.md.
const (
	csecCoreModule   = 1
	csecCoreInstance = 2
	csecCoreType     = 3
	csecComponent    = 4
	csecInstance     = 5
	csecAlias        = 6
	csecType         = 7
	csecCanon        = 8
	csecStart        = 9
	csecImport       = 10
	csecExport       = 11
	csecValue        = 12
)

// ReadComponent reads the top level of a component. What it cannot decode it
// leaves out (Partial); a file that is no component, or whose sections do not
// add up, is an error.
func ReadComponent(src io.ReaderAt, size int64) (*Component, error) {
	head, err := readAt(src, 0, min(size, headerLen))
	if err != nil {
		return nil, err
	}
	if Sniff(head) != KindComponent {
		return nil, &Error{Text: "found " + Sniff(head).String() + ", wanted a component", Err: ErrMalformed}
	}
	c := &Component{Size: size}
	r := newReader(src, headerLen, size)
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
		s := newReader(src, r.pos, r.pos+length)
		s.names = r.names
		if err := c.section(id, s); err != nil {
			return nil, err
		}
		r.names = s.names
		r.skip(length)
	}
	return c, r.err
}

func (c *Component) section(id byte, s *reader) error {
	switch id {
	case secCustom:
		c.custom(s)
		return s.err
	case csecCoreModule:
		c.CoreModules++
		c.code = true
	case csecComponent:
		c.Components++
		c.code = true
	case csecCoreInstance, csecCanon, csecStart:
		c.code = true
	case csecCoreType, csecInstance, csecAlias, csecType, csecValue:
	case csecImport:
		return c.items(s, &c.Imports, MaxImports, (*reader).componentImport)
	case csecExport:
		return c.items(s, &c.Exports, MaxExports, (*reader).componentExport)
	default:
		c.Partial = true
	}
	return nil
}

// items reads a section of imports or exports. A bound is an error, anything
// that cannot be decoded ends the section.
func (c *Component) items(s *reader, list *[]ComponentItem, limit int, read func(*reader) ComponentItem) error {
	n := s.count(limit-len(*list), "names")
	for i := 0; i < n && s.ok(); i++ {
		if item := read(s); s.ok() {
			*list = append(*list, item)
		}
	}
	s.done("a section of names")
	if e, ok := s.err.(*Error); ok && e.Err == ErrMalformed {
		c.Partial = true
		return nil
	}
	return s.err
}

// componentName reads importname' or exportname': a tag byte and a name.
func (r *reader) componentName() string {
	if tag := r.u8(); tag > 1 {
		r.malformed("a name of form " + strconv.Itoa(int(tag)))
	}
	return r.name()
}

var componentSorts = [...]string{"core", "func", "value", "type", "component", "instance"}

func (r *reader) componentImport() ComponentItem {
	return ComponentItem{r.componentName(), r.externDesc()}
}

func (r *reader) componentExport() ComponentItem {
	name := r.componentName()
	sort := r.sort()
	r.u32()
	if r.u8() != 0 {
		r.externDesc()
	}
	return ComponentItem{name, sort}
}

func (r *reader) sort() string {
	b := r.u8()
	if int(b) >= len(componentSorts) {
		r.malformed("a sort of " + strconv.Itoa(int(b)))
		return ""
	}
	if b == 0 {
		r.u8() // the core sort
	}
	return componentSorts[b]
}

func (r *reader) externDesc() string {
	b := r.u8()
	switch b {
	case 0, 1, 4, 5: // core module type (after a byte 0x11), func, component, instance
		if b == 0 {
			r.u8()
		}
		r.u32()
	case 2: // value: eq of a value, or a type
		if r.u8() == 0 {
			r.u32()
		} else {
			r.s33()
		}
	case 3: // type: eq of a type, or a new resource
		if r.u8() == 0 {
			r.u32()
		}
	default:
		r.malformed("an extern of form " + strconv.Itoa(int(b)))
		return ""
	}
	return componentSorts[b]
}
