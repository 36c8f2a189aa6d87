package binary

// Meta is what custom sections tell for people. Nothing depends on it; what
// cannot be read is left out.
type Meta struct {
	// Name is the module's or component's name from its name section.
	Name string
	// Producers are the tools that made the file.
	Producers []Producer
	// Notes are the sections that describe a package: version, description,
	// authors, licenses, source, homepage, revision.
	Notes []Note
	// Customs are the custom sections, as many as are kept.
	Customs []Custom
}

// Producer is one entry of the producers section.
type Producer struct {
	Field, Name, Version string
}

// Note is a custom section that holds text.
type Note struct {
	Name, Text string
}

// Custom is a custom section.
type Custom struct {
	Name string
	Size int64 // of its content
}

// Note returns the text of that note, or "".
func (m *Meta) Note(name string) string {
	for _, n := range m.Notes {
		if n.Name == name {
			return n.Text
		}
	}
	return ""
}

func isNote(name string) bool {
	switch name {
	case "version", "description", "authors", "licenses", "source", "homepage", "revision":
		return true
	}
	return false
}

// custom reads one custom section. Only its name can be at fault.
func (m *Meta) custom(s *reader) {
	name := s.name()
	if !s.ok() || len(m.Customs) >= maxCustoms {
		return
	}
	m.Customs = append(m.Customs, Custom{Name: name, Size: s.left()})
	content := newReader(s.src, s.pos, s.end)
	content.names = maxText
	switch {
	case name == "name" && m.Name == "":
		m.Name = content.nameSection(0)
	case name == "component-name" && m.Name == "":
		m.Name = content.nameSection(0)
	case name == "producers" && m.Producers == nil:
		m.Producers = content.producers()
	case isNote(name) && content.left() <= maxText && m.Note(name) == "":
		if text := content.text(int(content.left())); content.ok() {
			m.Notes = append(m.Notes, Note{name, text})
		}
	}
}

// nameSection returns the name in subsection id, which comes first if it is
// there at all.
func (r *reader) nameSection(id byte) string {
	if r.left() == 0 || r.u8() != id {
		return ""
	}
	r.u32() // the subsection's length
	name := r.name()
	if !r.ok() {
		return ""
	}
	return name
}

func (r *reader) producers() []Producer {
	var list []Producer
	fields := r.count(maxProducers, "fields")
	for i := 0; i < fields && r.ok(); i++ {
		field := r.name()
		values := r.count(maxProducers, "values")
		for j := 0; j < values && r.ok() && len(list) < maxProducers; j++ {
			p := Producer{field, r.name(), r.name()}
			if r.ok() {
				list = append(list, p)
			}
		}
	}
	return list
}
