package binary

import (
	"bytes"
	"path/filepath"
	"testing"
)

func seeds(f *testing.F) {
	f.Helper()
	files, err := filepath.Glob("testdata/*.wasm")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds: ", err)
	}
	for _, name := range files {
		f.Add(file(f, filepath.Base(name)))
	}
	f.Add(moduleOf("\x00\x09producers\x01\x08language\x01\x02Go\x041.26", "\x00\x04name\x00\x02\x01m"))
	f.Add([]byte("\x7fELF\x02\x01\x01\xc8"))
}

// FuzzReadModule: no panic, nothing kept beyond what the file holds, and the
// same answer twice.
func FuzzReadModule(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ReadModule(bytes.NewReader(b), int64(len(b)))
		if (m == nil) == (err == nil) {
			t.Fatal("neither a module nor an error")
		}
		if err != nil {
			if err.Error() == "" || len(err.Error()) > 4096 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if len(m.Imports) > len(b) || len(m.Exports) > len(b) || len(m.Memories) > maxMemories || len(m.Customs) > maxCustoms {
			t.Error("more than the file can hold")
		}
		for _, i := range m.Imports {
			if i.Kind == ExternFunc && len(i.Type) > 64*maxShown {
				t.Errorf("a type of %d bytes", len(i.Type))
			}
		}
		m.IsCommand()
		m.IsReactor()
	})
}

func FuzzReadComponent(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ReadComponent(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if s := c.String(); len(s) > 2048 || Printable(s, 4096) != s {
			t.Errorf("got %q", s)
		}
	})
}
