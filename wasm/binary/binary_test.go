package binary

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func file(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func read(t testing.TB, name string) *Info {
	t.Helper()
	b := file(t, name)
	info, err := ReadModule(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return info
}

func TestSniff(t *testing.T) {
	tar := make([]byte, 512)
	copy(tar[257:], "ustar\x00")
	for _, c := range []struct {
		head string
		want Kind
	}{
		{"", KindEmpty},
		{"\x00", KindUnknown},
		{"\x00asm", KindOtherWasm},
		{"\x00asm\x01\x00\x00", KindOtherWasm},
		{"\x00asm\x01\x00\x00\x00", KindModule},
		{"\x00asm\x02\x00\x00\x00", KindOtherWasm},
		{"\x00asm\x0d\x00\x01\x00more", KindComponent},
		{"\x00asm\x0a\x00\x01\x00", KindOtherWasm},
		{"\x00aot\x03\x00\x00\x00", KindAOT},
		{"wasmer-universal", KindAOT},
		{"\x7fELF\x02\x01\x01\x00", KindELF},
		{"\x7fELF\x02\x01\x01\xc8", KindPrecompiled},
		{"\x7fELF\x02\x01\x01\x00 \x00.wasmtime.engine\x00", KindPrecompiled},
		{"\x7fELF", KindELF},
		{"\x1f\x8b\x08\x00", KindGzip},
		{"\x28\xb5\x2f\xfd\x00", KindZstd},
		{"PK\x03\x04", KindZip},
		{string(tar), KindTar},
		{"#!/bin/sh\n", KindScript},
		{"(module)", KindText},
		{" \n;; a comment\n(; another ;)\n( component", KindText},
		{"(; never ends (module)", KindUnknown},
		{";; no line end", KindUnknown},
		{"(moo)", KindUnknown},
		{"{}", KindUnknown},
	} {
		if got := Sniff([]byte(c.head)); got != c.want {
			t.Errorf("%.40q: got %v, want %v", c.head, got, c.want)
		}
	}
}

func TestSniffFile(t *testing.T) {
	elf := append([]byte("\x7fELF\x02\x01\x01\x00"), make([]byte, 200_000)...)
	sniff := func(b []byte) Kind {
		k, err := SniffFile(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	if k := sniff(elf); k != KindELF {
		t.Errorf("got %v", k)
	}
	if k := sniff(append(elf, "\x00.text\x00.wasmtime.engine\x00"...)); k != KindPrecompiled {
		t.Errorf("got %v", k)
	}
	if _, err := SniffFile(bytes.NewReader(elf), int64(len(elf))+1); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short file: %v", err)
	}
}

func TestCommand(t *testing.T) {
	m := read(t, "command.wasm")
	if !m.IsCommand() || m.IsReactor() || m.Start || m.WASI() != "wasi_snapshot_preview1" || m.Name != "hello" || m.Functions != 1 {
		t.Errorf("got %+v", m)
	}
	var got []string
	for _, i := range m.Imports {
		got = append(got, i.Module+"."+i.Name+" "+i.Type)
	}
	for _, x := range m.Exports {
		got = append(got, x.Name+" "+x.Kind+" "+x.Type)
	}
	for _, x := range m.Memories {
		got = append(got, x.String())
	}
	const want = "wasi_snapshot_preview1.fd_write func(i32, i32, i32, i32) -> i32; wasi_snapshot_preview1.proc_exit func(i32); " +
		"memory memory ; _start func func(); memory 2..10"
	if s := strings.Join(got, "; "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

func TestReactor(t *testing.T) {
	m := read(t, "reactor.wasm")
	if m.IsCommand() || !m.IsReactor() || !m.Start || m.WASI() != "" || m.Note("version") != "1.2.3" ||
		m.Note("description") != "adds numbers" || m.Note("source") != "" {
		t.Errorf("got %+v", m)
	}
	if x := m.Export("add"); x == nil || x.Type != "func(i32, i64) -> f32, f64" {
		t.Errorf("got %+v", x)
	}
}

func TestKinds(t *testing.T) {
	for name, want := range map[string]string{
		"kinds.wasm": "a.f func(i32, i64, f32, f64, v128, funcref, externref) -> i32, i64; a.t table 1..5 externref; " +
			"a.m memory 3..; a.g global i64 mut; a.e tag; " +
			"f func func(i32, i64, f32, f64, v128, funcref, externref) -> i32, i64; own func func() -> f64; t table ; m memory ; g global ; e tag ; " +
			"memory 3..; memory 1..2; memory 10..",
		"gc.wasm": "a.f func((ref 0)) -> (ref null 2); " +
			"a.g func(i31ref, eqref, structref, arrayref, noneref, nofuncref, noexternref, exnref); _start func func()",
	} {
		m := read(t, name)
		var got []string
		for _, i := range m.Imports {
			got = append(got, i.Module+"."+i.Name+" "+i.Type)
		}
		for _, x := range m.Exports {
			got = append(got, x.Name+" "+x.Kind+" "+x.Type)
		}
		for _, x := range m.Memories {
			got = append(got, x.String())
		}
		if s := strings.Join(got, "; "); s != want {
			t.Errorf("got  %s\nwant %s", s, want)
		}
	}
	if m := read(t, "kinds.wasm").Memories; !m[0].Imported || !m[0].Is64 || m[1].Imported || !m[1].Shared || m[2].PageSizeLog2 != 0 {
		t.Errorf("got %+v", m)
	}
}

func TestComponents(t *testing.T) {
	for name, want := range map[string]string{
		"http.wasm": "not a core WebAssembly module: a component exporting wasi:http/incoming-handler@0.2.0, extra",
		"wit.wasm":  "not a core WebAssembly module: an interface package (WIT) with nothing to run exporting api",
	} {
		b := file(t, name)
		_, err := ReadModule(bytes.NewReader(b), int64(len(b)))
		var not *NotModuleError
		if !errors.As(err, &not) || !errors.Is(err, ErrNotModule) || not.Component == nil || not.Component.Partial || err.Error() != want {
			t.Errorf("%s: got %v", name, err)
		}
	}
	b := file(t, "http.wasm")
	c, err := ReadComponent(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if c.CoreModules != 1 || len(c.Imports) != 2 || c.Imports[0] != (ComponentItem{"wasi:http/types@0.2.0", "instance"}) ||
		c.Imports[1] != (ComponentItem{"log", "func"}) || c.Exports[1] != (ComponentItem{"extra", "func"}) {
		t.Errorf("got %+v", c)
	}
}

func TestNotModule(t *testing.T) {
	for content, want := range map[string]string{
		"":                         "not a core WebAssembly module: an empty file",
		"hello":                    "not a core WebAssembly module: not WebAssembly",
		"(module)":                 "not a core WebAssembly module: WebAssembly in its text format (translate it to the binary format)",
		"\x7fELF\x02\x01\x01\xc8":  "not a core WebAssembly module: native code, compiled ahead of time by wasmtime",
		"\x7fELF\x02\x01\x01\x00":  "not a core WebAssembly module: a native program (ELF)",
		"\x00asm\x07\x00\x00\x00":  "not a core WebAssembly module: WebAssembly of a version that is not known",
		"\x00aot\x01\x00\x00\x00x": "not a core WebAssembly module: native code, compiled ahead of time by another WebAssembly engine",
	} {
		_, err := ReadModule(strings.NewReader(content), int64(len(content)))
		if err == nil || err.Error() != want {
			t.Errorf("%q: got %v", content, err)
		}
	}
}

// module builds a module of sections given as id and content.
func moduleOf(sections ...string) []byte {
	b := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range sections {
		b = append(b, s[0])
		b = appendLEB(b, uint64(len(s)-1))
		b = append(b, s[1:]...)
	}
	return b
}

func appendLEB(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func leb(v uint64) string { return string(appendLEB(nil, v)) }

// TestMalformed: each a clear error, and the control that the rest of the
// module is good.
func TestMalformed(t *testing.T) {
	const good = "\x01\x01\x60\x00\x00" // one type: func()
	for _, c := range []struct {
		name     string
		sections []string
		want     error
		text     string
	}{
		{"control", []string{good}, nil, ""},
		{"control export", []string{good, "\x03\x01\x00", "\x07\x01\x01f\x00\x00"}, nil, ""},
		{"unknown section", []string{"\x0e"}, ErrMalformed, "section of kind 14"},
		{"twice", []string{good, good}, ErrMalformed, "second section of kind 1"},
		{"empty import section", []string{"\x02"}, ErrMalformed, "unexpected end"},
		{"trailing bytes", []string{"\x02\x00\x00"}, ErrMalformed, "longer than its content"},
		{"count beyond the end", []string{"\x02" + leb(5)}, ErrMalformed, "beyond the end"},
		{"huge count", []string{"\x02\xff\xff\xff\xff\x0f"}, ErrMalformed, "beyond the end"},
		{"overlong number", []string{"\x02\xff\xff\xff\xff\x1f"}, ErrMalformed, "number too large"},
		{"six bytes of number", []string{"\x02\x80\x80\x80\x80\x80\x00"}, ErrMalformed, "number too large"},
		{"name beyond the end", []string{"\x02\x01\x05a"}, ErrMalformed, "beyond the end"},
		{"name not UTF-8", []string{"\x02\x01\x01\xff\x01a\x00\x00"}, ErrMalformed, "not UTF-8"},
		{"import of no kind", []string{"\x02\x01\x01a\x01a\x09\x00"}, ErrMalformed, "import of kind 9"},
		{"export of no kind", []string{"\x07\x01\x01a\x09\x00"}, ErrMalformed, "export of kind 9"},
		{"bad limits", []string{"\x05\x01\x10\x00"}, ErrMalformed, "limits with unknown flags"},
		{"bad page size", []string{"\x05\x01\x08\x00\x11"}, ErrMalformed, "page size"},
		{"custom without a name", []string{"\x00"}, ErrMalformed, "unexpected end"},
		{"many imports", []string{"\x02" + leb(MaxImports+1) + strings.Repeat("\x00\x00\x00\x00", MaxImports+1)}, ErrTooLarge, "imports, at most"},
		{"many exports", []string{"\x07" + leb(MaxExports+1) + strings.Repeat("\x00\x00\x00", MaxExports+1)}, ErrTooLarge, "exports, at most"},
		{"many memories", []string{"\x05" + leb(101) + strings.Repeat("\x00\x00", 101)}, ErrTooLarge, "memories, at most"},
		{"long name", []string{"\x07\x01" + leb(maxName+1) + strings.Repeat("x", maxName+1) + "\x00\x00"}, ErrTooLarge, "bytes of a name"},
		{"many names", []string{"\x07" + leb(100) + strings.Repeat(leb(maxName)+strings.Repeat("x", maxName)+"\x01\x00", 100)}, ErrTooLarge, "names of more than"},
		{"bad value type", []string{"\x01\x01\x60\x01\x01\x00", "\x02\x01\x01a\x01a\x00\x00"}, ErrMalformed, "value type of 0x1"},
		{"bad type form", []string{"\x01\x01\x11\x00"}, ErrMalformed, "type of form 0x11"},
		{"many parameters", []string{"\x01\x01\x60" + leb(maxValues+1) + strings.Repeat("\x7f", maxValues+1) + "\x00"}, ErrTooLarge, "parameters"},
	} {
		b := moduleOf(c.sections...)
		_, err := ReadModule(bytes.NewReader(b), int64(len(b)))
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

// TestTruncated cuts real files at every byte: never a panic, and a file that
// is shorter than it is said to be is never good.
func TestTruncated(t *testing.T) {
	for _, name := range []string{"command.wasm", "kinds.wasm", "gc.wasm", "http.wasm"} {
		b := file(t, name)
		for n := range b {
			if m, err := ReadModule(bytes.NewReader(b[:n]), int64(n)); (m == nil) == (err == nil) {
				t.Errorf("%s cut at %d: neither a module nor an error", name, n)
			}
			if _, err := ReadModule(bytes.NewReader(b[:n]), int64(len(b))); err == nil {
				t.Errorf("%s: %d bytes in place of %d are good", name, n, len(b))
			}
		}
	}
}

// TestLazy: what a module defines is not kept, and bodies are not read.
func TestLazy(t *testing.T) {
	const n = 500_000
	types := "\x01" + leb(n) + strings.Repeat("\x60\x02\x7f\x7f\x01\x7f", n)
	funcs := "\x03" + leb(n) + strings.Repeat(leb(5), n)
	code := "\x0a" + strings.Repeat("x", 64<<20)
	b := moduleOf(types, funcs, "\x07\x01\x01f\x00"+leb(n-1), code)
	src := &counting{r: bytes.NewReader(b)}
	var m *Info
	allocs := testing.AllocsPerRun(1, func() {
		src.n = 0
		var err error
		if m, err = ReadModule(src, int64(len(b))); err != nil {
			t.Fatal(err)
		}
	})
	if m.Functions != n || m.Exports[0].Type != "func(i32, i32) -> i32" {
		t.Errorf("got %+v", m)
	}
	if limit := int64(len(types) + len(funcs) + 1<<16); src.n > limit {
		t.Errorf("read %d bytes, at most %d", src.n, limit)
	}
	if allocs > 3000 {
		t.Errorf("%v allocations", allocs)
	}
}

type counting struct {
	r io.ReaderAt
	n int64
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	c.n += int64(len(p))
	return c.r.ReadAt(p, off)
}

func TestProducers(t *testing.T) {
	content := "\x09producers\x01\x08language\x01\x02Go\x041.26"
	b := moduleOf("\x00"+content, "\x00\x05other"+strings.Repeat("x", 1000))
	m, err := ReadModule(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Producers) != 1 || m.Producers[0] != (Producer{"language", "Go", "1.26"}) {
		t.Errorf("got %+v", m.Producers)
	}
	if len(m.Customs) != 2 || m.Customs[1] != (Custom{"other", 1000}) {
		t.Errorf("got %+v", m.Customs)
	}
	// What cannot be read is left out, and is no fault.
	for n := range content {
		b := moduleOf("\x00" + "\x09producers" + content[10:max(10, n)])
		if _, err := ReadModule(bytes.NewReader(b), int64(len(b))); err != nil {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

func TestPrintable(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"plain", 5, "plain"},
		{"plain", 4, "plai..."},
		{"a\nb\x00c\x1b[1m", 20, "a?b?c?[1m"},
		{"ab\u202eba", 20, "ab?ba"},
		{"\xff\x9b", 20, "??"},
		{"ééé", 5, "éé..."},
	} {
		if got := Printable(c.in, c.limit); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}
