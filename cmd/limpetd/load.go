package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"reflect"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

const (
	// maxConfigBytes bounds the configuration file.
	maxConfigBytes = 1 << 20
	// maxFaults bounds how many bad values are told at once: the file is read
	// once for each.
	maxFaults = 20
)

// load reads and checks a file. Every fault is reported, each as
// "FILE:LINE: KEY: what was found, what is wanted".
func load(path string) (settings, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return settings{}, fmt.Errorf("configuration: %w; name a file that is there (\"limpetd config default\" prints one to begin with)", err)
	case errors.Is(err, fs.ErrPermission):
		return settings{}, fmt.Errorf("configuration: %w; user %d must be allowed to read it", err, os.Geteuid())
	case err != nil:
		return settings{}, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close() //nolint:errcheck // opened for reading
	data, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err != nil {
		return settings{}, fmt.Errorf("configuration: %w", err)
	}
	if len(data) > maxConfigBytes {
		return settings{}, fmt.Errorf("configuration: %s is larger than %s; is it the right file?", path, sizeOf(maxConfigBytes))
	}
	return parse(path, data)
}

// parse is load without the disk.
func parse(name string, data []byte) (settings, error) {
	f, err := decode(name, data)
	if err != nil {
		return settings{}, err
	}
	s, faults := f.compose()
	if len(faults) == 0 {
		return s, nil
	}
	at := keysOf(data)
	errs := make([]error, 0, len(faults))
	for _, e := range faults {
		errs = append(errs, fmt.Errorf("%s: %w", at.place(name, e.Error()), e))
	}
	return settings{}, errors.Join(errs...)
}

// decode reads the file strictly and tells all that does not read. The decoder
// stops at the first bad value, before it looks for unknown keys: so the line
// of each is left out and the rest read again.
func decode(name string, data []byte) (file, error) {
	var errs []error
	lines := bytes.Split(data, []byte("\n"))
	for range min(len(lines), maxFaults) {
		f := defaults()
		d := toml.NewDecoder(bytes.NewReader(bytes.Join(lines, []byte("\n"))))
		d.DisallowUnknownFields()
		err := d.Decode(&f)
		if err == nil {
			if len(errs) > 0 {
				break
			}
			return f, nil
		}
		line, err := explain(name, bytes.Join(lines, []byte("\n")), err)
		if line == 0 && len(errs) > 0 && !errors.Is(err, errUnknownKey) {
			break // of our own making: a value over several lines, cut
		}
		errs = append(errs, err)
		if line < 1 || line > len(lines) || len(lines[line-1]) == 0 {
			break
		}
		lines[line-1] = nil
	}
	return file{}, errors.Join(errs...)
}

var errUnknownKey = errors.New("there is no such key")

// explain says where and what in the words of the file instead of the Go
// types it is read into. The line is that of a bad value, and 0 for faults
// after which there is nothing more to find.
func explain(name string, data []byte, err error) (int, error) {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		errs := make([]error, 0, len(unknown.Errors))
		for i := range unknown.Errors {
			e := &unknown.Errors[i]
			line, _ := e.Position()
			errs = append(errs, fmt.Errorf("%s:%d: %s: %w; %s", name, line, strings.Join(e.Key(), "."), errUnknownKey, offer(e.Key())))
		}
		return 0, errors.Join(errs...)
	}
	var fault *toml.DecodeError
	if !errors.As(err, &fault) {
		return explainValue(name, data, err)
	}
	line, _ := fault.Position()
	// For what is inside of a value the decoder may give the file's beginning.
	line = max(line, keysOf(data)[strings.Join(fault.Key(), ".")].line)
	text := strings.TrimPrefix(fault.Error(), "toml: ")
	if m := mismatch().FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("found %s %s (%s), wanted %s", article(m[1]), m[1], lineOf(data, line), wanted(fault.Key()))
	}
	if t := typeOf(fault.Key()); t != nil && unfit().MatchString(text) {
		text = fmt.Sprintf("found %s, wanted %s", lineOf(data, line), span(t))
	}
	if key := strings.Join(fault.Key(), "."); key != "" {
		return line, fmt.Errorf("%s:%d: %s: %s", name, line, key, text)
	}
	return 0, fmt.Errorf("%s:%d: %s", name, line, text)
}

// explainValue finds the key of a value that is no text in the file: the
// decoder hands out the error of reading such a one as it is.
func explainValue(name string, data []byte, err error) (int, error) {
	var value *valueError
	if !errors.As(err, &value) {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	best, at := "", keysOf(data)
	for key, p := range at {
		t := typeOf(strings.Split(key, "."))
		takes := t == reflect.TypeFor[size]() || t == reflect.TypeFor[duration]()
		if takes && p.value == value.found && (best == "" || p.line < at[best].line) {
			best = key
		}
	}
	if best == "" {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return at[best].line, fmt.Errorf("%s:%d: %s: %w", name, at[best].line, best, err)
}

func mismatch() *regexp.Regexp { return regexp.MustCompile(`^cannot decode TOML (\w+) into`) }

// unfit recognises what the decoder says of a whole number that its field
// cannot hold.
func unfit() *regexp.Regexp {
	return regexp.MustCompile(`cannot be stored in|too large to fit|overflows`)
}

// span is what a field of whole numbers takes.
func span(t reflect.Type) string {
	if t.Kind() == reflect.Uint32 {
		return fmt.Sprintf("a whole number from 0 to %d", uint32(math.MaxUint32))
	}
	return fmt.Sprintf("a whole number of at most %d", int64(math.MaxInt64))
}

func article(noun string) string {
	if strings.ContainsAny(noun[:1], "aeiou") {
		return "an"
	}
	return "a"
}

func lineOf(data []byte, line int) string {
	lines := strings.Split(string(data), "\n")
	if line < 1 || line > len(lines) {
		return ""
	}
	return strings.TrimSpace(lines[line-1])
}

// typeOf follows a key through the file's type; nil if there is no such key.
func typeOf(key []string) reflect.Type {
	t := reflect.TypeFor[file]()
	for _, k := range key {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch t.Kind() {
		case reflect.Map:
			t = t.Elem()
		case reflect.Struct:
			next := reflect.Type(nil)
			for f := range t.Fields() {
				if f.Tag.Get("toml") == k {
					next = f.Type
				}
			}
			if next == nil {
				return nil
			}
			t = next
		default:
			return nil
		}
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// wanted names the kind of value that a key takes.
func wanted(key []string) string {
	t := typeOf(key)
	switch {
	case t == nil:
		return "another kind of value"
	case t == reflect.TypeFor[duration]():
		return `a duration such as "20s"`
	case t == reflect.TypeFor[size]():
		return `a number of bytes such as 65536 or "64KiB"`
	case t.Kind() == reflect.String:
		return `text in quotes`
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Slice:
		return `a list such as ["a", "b"]`
	case t.Kind() == reflect.Struct || t.Kind() == reflect.Map:
		return "a table: [" + strings.Join(key, ".") + "]"
	}
	return "a whole number"
}

// offer lists the keys that exist where an unknown one was found.
func offer(key []string) string {
	for n := len(key) - 1; n >= 0; n-- {
		t := typeOf(key[:n])
		if t == nil || t.Kind() != reflect.Struct {
			continue
		}
		names := make([]string, 0, t.NumField())
		for f := range t.Fields() {
			names = append(names, f.Tag.Get("toml"))
		}
		where := "the top level has"
		if n > 0 {
			where = "[" + strings.Join(key[:n], ".") + "] has"
		}
		return where + " " + strings.Join(names, ", ")
	}
	return "see limpetd config default"
}

// keys are where the keys of a document stand, and the values that are not
// text, tables or lists.
type keys map[string]place

type place struct {
	line  int
	value string
}

// keysOf finds them, up to the first error in the document, if it has one.
func keysOf(data []byte) keys {
	found, table := keys{}, ""
	line, counted := 1, 0 // lines are counted once, as the keys go by
	p := unstable.Parser{}
	p.Reset(data)
	for p.NextExpression() {
		e := p.Expression()
		path := []string{}
		for it := e.Key(); it.Next(); {
			n := it.Node()
			path = append(path, string(n.Data))
			if at := int(n.Raw.Offset); at > counted {
				line, counted = line+bytes.Count(data[counted:at], []byte("\n")), at
			}
		}
		name := strings.Join(path, ".")
		if e.Kind == unstable.Table || e.Kind == unstable.ArrayTable {
			table = name
		} else if table != "" {
			name = table + "." + name
		}
		at := place{line: line}
		if e.Kind == unstable.KeyValue {
			at.value = string(e.Value().Data)
		}
		found[name] = at
	}
	return found
}

// place finds the key that a complaint such as "pods: handler "x": root_size
// is ..." is about: the innermost one whose words all occur, the one named
// first if several do. A complaint about what the file does not say has the
// file as its place.
func (k keys) place(name, complaint string) string {
	words := " " + plain(complaint) + " "
	best, depth, first := "", 0, 0
	for key := range k {
		parts, at := strings.Split(key, "."), 0
		for _, part := range parts {
			if plain(part) == "" {
				continue // a name without a word in it
			}
			if at = mention(words, plain(part)); at < 0 {
				break
			}
		}
		if at < 0 || len(parts) < depth || len(parts) == depth && at >= first {
			continue
		}
		best, depth, first = key, len(parts), at
	}
	if best == "" {
		return name
	}
	return fmt.Sprintf("%s:%d", name, k[best].line)
}

// mention returns where words has a word, in the plural or the singular, or -1.
func mention(words, word string) int {
	if at := strings.Index(words, " "+word+" "); at >= 0 {
		return at
	}
	return strings.Index(words, " "+strings.TrimSuffix(word, "s")+" ")
}

// plain reduces text to lower-case words.
func plain(s string) string {
	f := strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
	return strings.Join(f, " ")
}
