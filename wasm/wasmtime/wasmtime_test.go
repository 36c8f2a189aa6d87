package wasmtime

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/limpet-cri/limpet/wasm"
)

// build compiles text through a file, as a host gets its code.
func build(t testing.TB, e *Engine, text string) *Module {
	t.Helper()
	bin, err := Wat([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	code, err := e.Compile(bin)
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
	t.Cleanup(m.Close)
	return m
}

func engine(t testing.TB, cfg Config) *Engine {
	t.Helper()
	e, err := NewEngine(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func start(t testing.TB, e *Engine, text string, imports []wasm.Import, limits wasm.Limits) *Instance {
	t.Helper()
	i, err := instantiate(t, e, text, imports, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	return i
}

func instantiate(t testing.TB, e *Engine, text string, imports []wasm.Import, limits wasm.Limits) (*Instance, error) {
	t.Helper()
	l, err := e.Link(build(t, e, text), imports)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l.Instantiate(limits)
}

// TestVectors: the files that wasm/binary is tested with are what the text
// beside them says.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob("../binary/testdata/*.wat")
	if err != nil || len(files) == 0 {
		t.Fatal("no vectors: ", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(strings.TrimSuffix(name, ".wat") + ".wasm")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, wat(t, string(text))) {
			t.Errorf("%s was not made of its text", name)
		}
	}
}
