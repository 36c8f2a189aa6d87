package wasmtime

import (
	"errors"
	"strings"
	"testing"

	"github.com/limpet-cri/limpet/wasm"
)

func nop(_ []byte, _ []wasm.Raw) error { return nil }

func TestMissingImports(t *testing.T) {
	const text = `(module
		(import "env" "f" (func (param i32 i64 f32 f64) (result i32)))
		(import "env" "refs" (func (param v128 externref funcref)))
		(import "env" "mem" (memory 1))
		(import "env" "tab" (table 1 funcref))
		(import "env" "g" (global i32))
		(import "h" "good" (func (param i32)))
		(import "h" "other" (func (param i64) (result i64 i32)))
		(import "h" "kind" (global i32)))`
	i32 := []wasm.ValType{wasm.I32}
	offered := []wasm.Import{
		{Module: "h", Name: "good", Type: wasm.FuncType{Params: i32}, Func: nop},
		{Module: "h", Name: "other", Type: wasm.FuncType{Params: i32, Results: i32}, Func: nop},
		{Module: "h", Name: "kind", Func: nop},
		{Module: "h", Name: "unused", Func: nop},
	}
	e := engine(t, Config{})
	_, err := e.Link(build(t, e, text), offered)
	var missing *MissingImportsError
	if !errors.As(err, &missing) || len(missing.Missing) != 5 || len(missing.Mismatched) != 2 {
		t.Fatalf("got %v", err)
	}
	const want = "the module imports what this host does not offer: " +
		"env.f func(i32, i64, f32, f64) -> i32, env.refs func(v128, externref, funcref), " +
		"env.mem memory, env.tab table, env.g global; " +
		"the module imports with another type: h.other func(i64) -> i64, i32 (offered as func(i32) -> i32), " +
		"h.kind global (offered as func())"
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}

// TestHostileNames: names come from strangers and go to logs.
func TestHostileNames(t *testing.T) {
	var b strings.Builder
	b.WriteString(`(module`)
	for range 40 {
		b.WriteString(` (import "a\n\u{202e}\00" "` + strings.Repeat("x", 10_000) + `" (func))`)
	}
	b.WriteString(`)`)
	e := engine(t, Config{})
	_, err := e.Link(build(t, e, b.String()), nil)
	if err == nil || len(err.Error()) > 10_000 || strings.ContainsAny(err.Error(), "\n\x00\u202e") ||
		!strings.HasSuffix(err.Error(), " and 24 more") {
		t.Errorf("got %q", err)
	}
}

func TestManyParameters(t *testing.T) {
	e := engine(t, Config{})
	m := build(t, e, `(module (import "a" "b" (func (param `+strings.Repeat("i32 ", 100)+`))))`)
	if _, err := e.Link(m, nil); err == nil || !strings.HasSuffix(err.Error(), "a.b func") {
		t.Errorf("got %v", err)
	}
	f := wasm.Import{Module: "a", Name: "b", Type: wasm.FuncType{Params: make([]wasm.ValType, 100)}, Func: nop}
	if _, err := e.Link(m, []wasm.Import{f}); err == nil {
		t.Error("a type beyond what can be compared was linked")
	}
}

func TestTooManyImports(t *testing.T) {
	e := engine(t, Config{})
	m := build(t, e, `(module`+strings.Repeat(` (import "a" "b" (func))`, maxImports+1)+`)`)
	if _, err := e.Link(m, nil); !errors.Is(err, ErrTooManyImports) {
		t.Errorf("got %v", err)
	}
}

func TestImportTwice(t *testing.T) {
	e := engine(t, Config{})
	calls := 0
	f := wasm.Import{Module: "a", Name: "b", Func: func([]byte, []wasm.Raw) error { calls++; return nil }}
	i := start(t, e, `(module (import "a" "b" (func $x)) (import "a" "b" (func $y))
		(func (export "f") call $x call $y))`, []wasm.Import{f}, wasm.Limits{})
	if err := i.Call("f"); err != nil || calls != 2 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func TestImportsExports(t *testing.T) {
	e := engine(t, Config{})
	m := build(t, e, `(module (import "a" "b" (func (param i32))) (memory (export "memory") 1)
		(func (export "_start")) (func (export "f") (result f64) unreachable))`)
	if l := m.Imports(); len(l) != 1 || l[0].Module != "a" || l[0].Name != "b" || l[0].Type() != "func(i32)" {
		t.Errorf("imports %v", l)
	}
	var got []string
	for _, x := range m.Exports() {
		got = append(got, x.Name+" "+x.Type())
	}
	if s := strings.Join(got, "; "); s != "memory memory; _start func(); f func() -> f64" {
		t.Errorf("exports %s", s)
	}
	if !m.HasExport("_start") || m.HasExport("_star") || m.HasExport("") {
		t.Error("HasExport is wrong")
	}
}

// TestNewReferences: the API aborts when asked for the type of a reference
// that a later proposal brought.
func TestNewReferences(t *testing.T) {
	e := engine(t, Config{Proposals: Known()})
	m := build(t, e, `(module (type $a (array i32))
		(import "a" "f" (func (param (ref null any))))
		(import "a" "g" (global (ref null $a)))
		(import "a" "t" (table 1 (ref null struct)))
		(import "h" "ok" (func $ok (param i32)))
		(import "a" "e" (tag (param i32)))
		(func (export "x") (result (ref null $a)) unreachable)
		(func (export "_start") (call $ok (i32.const 7))))`)
	ok := wasm.Import{Module: "h", Name: "ok", Type: wasm.FuncType{Params: []wasm.ValType{wasm.I32}}, Func: nop}
	_, err := e.Link(m, []wasm.Import{ok})
	if err == nil || err.Error() != "the module imports what this host does not offer: a.f func, a.g global, a.t table, a.e tag" {
		t.Errorf("got %v", err)
	}
	if len(m.Exports()) != 2 || !m.HasExport("x") {
		t.Error("exports are wrong")
	}

	m = build(t, e, `(module (type $a (array i32)) (import "h" "ok" (func $ok (param i32)))
		(func (export "x") (result (ref null $a)) unreachable)
		(func (export "_start") (call $ok (i32.const 7))))`)
	bad := ok
	bad.Type.Params = nil
	if _, err := e.Link(m, []wasm.Import{bad}); err == nil || !strings.Contains(err.Error(), "incompatible import type for `h::ok`") {
		t.Errorf("got %v", err)
	}
	l, err := e.Link(m, []wasm.Import{ok})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	i, err := l.Instantiate(wasm.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if err := i.Call("_start"); err != nil {
		t.Error(err)
	}
	if err := i.Call("x"); !errors.Is(err, ErrNotCallable) {
		t.Errorf("got %v", err)
	}
}
