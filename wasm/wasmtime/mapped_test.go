package wasmtime

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm"
)

// mapped are the lines of this process's memory that a file lies behind.
func mapped(t *testing.T, path string) (lines []string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasSuffix(line, " "+path+"\n") {
			lines = append(lines, line)
		}
	}
	return lines
}

// tellsExecutable reports whether a page within a mapping that was made
// executable, as the engine makes those of code, is told as such. The emulator
// under which make arm64 runs tells of a mapping what its first page is.
func tellsExecutable(t *testing.T) bool {
	t.Helper()
	path, page := filepath.Join(t.TempDir(), "control"), os.Getpagesize()
	if err := os.WriteFile(path, make([]byte, 3*page), 0o444); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, 3*page, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(b); err != nil {
			t.Error(err)
		}
	}()
	if err := unix.Mprotect(b[page:2*page], unix.PROT_READ|unix.PROT_EXEC); err != nil {
		t.Fatal(err)
	}
	for _, l := range mapped(t, path) {
		if strings.Contains(strings.Fields(l)[1], "x") {
			return true
		}
	}
	return false
}

// Compiled code is mapped, not copied: all hosts of a node share its pages, and
// nobody can write to those that are executed. They go with the module.
func TestCodeIsMapped(t *testing.T) {
	e := engine(t, Config{})
	code, err := e.Compile(wat(t, `(module (memory 1) (func (export "_start")))`))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(path, code, 0o444); err != nil {
		t.Fatal(err)
	}
	m, err := e.LoadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(mapped(t, path)) == 0 {
		t.Fatal("nothing of the file is mapped")
	}
	if !tellsExecutable(t) {
		t.Skip("needs a kernel that tells which pages can be executed; an emulator does not")
	}
	executable := 0
	for _, l := range mapped(t, path) {
		mode := strings.Fields(l)[1]
		if strings.Contains(mode, "x") {
			executable++
			if strings.Contains(mode, "w") {
				t.Errorf("it can be written to: %s", l)
			}
		}
	}
	if executable == 0 {
		t.Error("no executable page is the file's")
	}
	m.Close()
	if l := mapped(t, path); len(l) != 0 {
		t.Errorf("still mapped: %q", l)
	}
}

// What a guest's memory begins with is a private mapping of the file, of which
// only the pages that are written to are copied: an instance that stays idle
// holds none of its own.
func TestMemoryIsMapped(t *testing.T) {
	e := engine(t, Config{})
	data := strings.Repeat("image", 32<<10)
	code, err := e.Compile(wat(t, `(module (memory 4) (data (i32.const 0) "`+data+`") (func (export "_start")))`))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(path, code, 0o444); err != nil {
		t.Fatal(err)
	}
	m, err := e.LoadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	l, err := e.Link(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	before := len(mapped(t, path))
	for n := 1; n <= 2; n++ {
		i, err := l.Instantiate(wasm.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		defer i.Close()
		lines := mapped(t, path)
		memories := 0
		for _, line := range lines {
			if strings.HasPrefix(strings.Fields(line)[1], "rw-p") {
				memories++
			}
		}
		if memories != n || len(lines) != before+n {
			t.Errorf("%d instances, %d memories of the file's among\n%s", n, memories, strings.Join(lines, ""))
		}
	}
}

// What enters the key besides the build and the settings: for which processor
// the code is, by family and by the features that it uses.
func TestKeyKnowsTheProcessor(t *testing.T) {
	code, err := engine(t, Config{}).Compile(wat(t, `(module)`))
	if err != nil {
		t.Fatal(err)
	}
	section := elfSection(code, ".wasmtime.engine")
	wants := map[string][]string{"amd64": {"x86_64", "has_avx2", "has_sse42"}, "arm64": {"aarch64", "has_lse"}}[runtime.GOARCH]
	for _, want := range wants {
		if !bytes.Contains(section, []byte(want)) {
			t.Errorf("the section does not tell of %s: %q", want, section)
		}
	}
}
