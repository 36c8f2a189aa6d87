package record

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type fact struct {
	Name  string
	Count int
	Bytes []byte
}

var kind = Kind{Magic: [4]byte{'T', 'E', 'S', 'T'}, Version: 2}

func TestWriteRead(t *testing.T) {
	for _, d := range []Durability{Killed, PowerLoss} {
		path := filepath.Join(t.TempDir(), "record")
		for _, want := range []fact{{}, {Name: "a", Count: 7, Bytes: []byte{0, 255, 1}}, {Name: strings.Repeat("x", 1<<16)}} {
			if err := Write(path, kind, want, d); err != nil {
				t.Fatal(err)
			}
			var got fact
			if err := Read(path, kind, &got); err != nil {
				t.Fatal(err)
			}
			if got.Name != want.Name || got.Count != want.Count || string(got.Bytes) != string(want.Bytes) {
				t.Errorf("read %.40v, want %.40v", got, want)
			}
		}
		if names, _ := filepath.Glob(path + "*"); len(names) != 1 {
			t.Errorf("files after writing: %v", names)
		}
		if err := Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := Remove(path); err != nil {
			t.Errorf("second Remove: %v", err)
		}
		if err := Read(path, kind, &fact{}); err != ErrAbsent {
			t.Errorf("Read after Remove: %v", err)
		}
	}
}

// Every file that a crash or a disk may leave, at every length.
func TestReadTolerates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record")
	whole, err := encode(kind, fact{Name: "whole"})
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		write(t, path, whole[:n])
		err := Read(path, kind, &fact{})
		var damaged *DamagedError
		if !errors.As(err, &damaged) || !errors.Is(err, ErrAbsent) {
			t.Fatalf("first %d of %d bytes: %v", n, len(whole), err)
		}
	}
	for i := range whole {
		b := slices.Clone(whole)
		b[i] ^= 0x40
		write(t, path, b)
		if err := Read(path, kind, &fact{}); !errors.Is(err, ErrAbsent) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	write(t, path, append(slices.Clone(whole), 0))
	if err := Read(path, kind, &fact{}); !errors.Is(err, ErrAbsent) {
		t.Fatalf("a byte too many: %v", err)
	}
}

func TestReadTemporary(t *testing.T) {
	older, _ := encode(kind, fact{Name: "older"})
	newer, _ := encode(kind, fact{Name: "newer"})
	for _, c := range []struct {
		name        string
		final, temp []byte
		want        string // empty: absent
	}{
		{"only temporary", nil, newer, "newer"},
		{"final empty", []byte{}, newer, "newer"},
		{"final damaged", older[:20], newer, "newer"},
		{"both whole: not renamed yet", older, newer, "older"},
		{"temporary cut", older, newer[:9], "older"},
		{"both cut", older[:3], newer[:9], ""},
		{"only temporary, cut", nil, newer[:9], ""},
	} {
		path := filepath.Join(t.TempDir(), "record")
		write(t, path, c.final)
		write(t, path+tempSuffix, c.temp)
		var got fact
		err := Read(path, kind, &got)
		if c.want == "" {
			var damaged *DamagedError
			if !errors.As(err, &damaged) {
				t.Errorf("%s: %v", c.name, err)
			}
		} else if err != nil || got.Name != c.want {
			t.Errorf("%s: %q, %v", c.name, got.Name, err)
		}
	}
}

func TestVersions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record")
	older, newer := kind, kind
	older.Version, newer.Version = 1, 3
	if err := Write(path, older, fact{Name: "old"}, Killed); err != nil {
		t.Fatal(err)
	}
	var got fact
	if err := Read(path, kind, &got); err != nil || got.Name != "old" {
		t.Errorf("older record: %v, %v", got, err)
	}
	if err := Write(path, newer, fact{}, Killed); err != nil {
		t.Fatal(err)
	}
	if err := Read(path, kind, &got); !errors.Is(err, ErrNewer) || errors.Is(err, ErrAbsent) {
		t.Errorf("newer record: %v", err)
	}
	if err := Write(path, kind, map[string]int{"Unheard": 1}, Killed); err != nil {
		t.Fatal(err)
	}
	if err := Read(path, kind, &got); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "Unheard") {
		t.Errorf("unknown field: %v", err)
	}
}

func TestRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "record")
	if err := Write(path, kind, fact{Name: strings.Repeat("x", MaxSize)}, Killed); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if err := Write(path, kind, func() {}, Killed); err == nil {
		t.Error("a function was written")
	}
	if err := Write(filepath.Join(dir, "none", "record"), kind, fact{}, Killed); err == nil {
		t.Error("written into a missing folder")
	}
	if err := os.Symlink("/etc/passwd", path); err != nil {
		t.Fatal(err)
	}
	if err := Read(path, kind, &fact{}); err == nil || errors.Is(err, ErrAbsent) {
		t.Errorf("a link was followed: %v", err)
	}
}

func TestList(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"b", "a"} {
		if err := os.Mkdir(filepath.Join(dir, n), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "file"), []byte("x"))
	if got, err := List(dir); err != nil || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := List(filepath.Join(dir, "none")); err != nil || got != nil {
		t.Errorf("missing folder: %v, %v", got, err)
	}
}

// A reader never panics, and what it takes for a record is one: written again
// and read again it says the same.
func FuzzRead(f *testing.F) {
	whole, _ := encode(kind, fact{Name: "seed", Count: 1, Bytes: []byte("b")})
	f.Add(whole)
	f.Add(whole[:20])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var got fact
		found, err := decode(b, kind, &got)
		if found != "" || err != nil {
			return
		}
		again, err := encode(kind, got)
		if err != nil {
			t.Fatal(err)
		}
		var second fact
		if found, err := decode(again, kind, &second); found != "" || err != nil || second.Name != got.Name {
			t.Fatalf("%q, %v", found, err)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	v := fact{Bytes: make([]byte, 3000)}
	for name, d := range map[string]Durability{"Killed": Killed, "PowerLoss": PowerLoss} {
		b.Run(name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "record")
			for b.Loop() {
				if err := Write(path, kind, v, d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// write makes a file; nil makes none.
func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if b == nil {
		return
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
