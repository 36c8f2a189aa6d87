package wasmtime

import (
	"os"
	"path/filepath"
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
