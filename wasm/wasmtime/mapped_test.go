package wasmtime

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
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
