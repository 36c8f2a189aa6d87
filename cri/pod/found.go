package pod

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxFound bounds what a refusal quotes of a request, in bytes.
const maxFound = 100

// found writes the value of a field of the table, as far as it is one value: a
// person who is told that something is refused wants to see what.
func (s subject) found(path string) string {
	m := protoreflect.Message(nil)
	switch {
	case s.mount != nil:
		m, path = s.mount.ProtoReflect(), strings.TrimPrefix(path, "mounts[].")
	case s.ctr != nil:
		m = s.ctr.ProtoReflect()
	default:
		m = s.pod.ProtoReflect()
	}
	for {
		name, rest, deeper := strings.Cut(path, ".")
		fd := m.Descriptor().Fields().ByName(protoreflect.Name(name))
		if fd == nil {
			return ""
		}
		if !deeper {
			return shown(fd, m.Get(fd))
		}
		m, path = m.Get(fd).Message(), rest
	}
}

func shown(fd protoreflect.FieldDescriptor, v protoreflect.Value) string {
	text := ""
	switch {
	case fd.IsMap():
		return "" // annotations: the sentence says which are meant, the rest may be anything
	case fd.IsList():
		if fd.Message() != nil {
			return ""
		}
		var all []string
		for i := range v.List().Len() {
			all = append(all, v.List().Get(i).String())
		}
		text = strings.Join(all, ", ")
	case fd.Message() != nil, fd.Kind() == protoreflect.BoolKind:
		return ""
	case fd.Enum() != nil:
		text = fmt.Sprint(v.Enum())
		if e := fd.Enum().Values().ByNumber(v.Enum()); e != nil {
			text = string(e.Name())
		}
	case fd.Kind() == protoreflect.StringKind:
		text = strconv.Quote(v.String())
	default:
		text = v.String()
	}
	if len(text) > maxFound {
		text = strings.ToValidUTF8(text[:maxFound], "") + "..."
	}
	return text
}
