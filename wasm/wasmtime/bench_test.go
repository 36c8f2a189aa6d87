package wasmtime

import (
	"strconv"
	"testing"

	"github.com/limpet-cri/limpet/wasm"
)

// benchCalls measures one call of body's function, from a loop in the guest.
func benchCalls(b *testing.B, imports []wasm.Import, decl, body string) {
	i := start(b, engine(b, Config{}), `(module `+decl+` (memory (export "memory") 1) (func (export "_start")
		(local $n i64) (loop $l `+body+`
			(br_if $l (i64.lt_u (local.tee $n (i64.add (local.get $n) (i64.const 1))) (i64.const `+strconv.Itoa(b.N)+`))))))`,
		imports, wasm.Limits{})
	b.ResetTimer()
	if err := i.Call("_start"); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkHostCall(b *testing.B) {
	f := wasm.Import{Module: "h", Name: "f", Type: wasm.FuncType{Params: []wasm.ValType{wasm.I32, wasm.I32}, Results: []wasm.ValType{wasm.I32}},
		Func: func(mem []byte, s []wasm.Raw) error { mem[8] = 1; s[0].SetI32(0); return nil }}
	benchCalls(b, []wasm.Import{f}, `(import "h" "f" (func $f (param i32 i32) (result i32)))`, `(drop (call $f (i32.const 1) (i32.const 2)))`)
}

func BenchmarkFastClock(b *testing.B) {
	calls := 0
	benchCalls(b, fastImports(&calls)[:1], `(import "p" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))`,
		`(drop (call $clock (i32.const 1) (i64.const 1) (i32.const 64)))`)
}

func BenchmarkFastRandom16(b *testing.B) {
	calls := 0
	benchCalls(b, fastImports(&calls)[2:3], `(import "p" "random_get" (func $random (param i32 i32) (result i32)))`,
		`(drop (call $random (i32.const 64) (i32.const 16)))`)
}

func BenchmarkGuestCall(b *testing.B) {
	i := start(b, engine(b, Config{}), `(module (func (export "f")))`, nil, wasm.Limits{})
	f, err := i.Func("f")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := f.Call(); err != nil {
			b.Fatal(err)
		}
	}
}

const benchModule = `(module
	(import "p" "clock_time_get" (func (param i32 i64 i32) (result i32)))
	(import "p" "sched_yield" (func (result i32)))
	(import "p" "random_get" (func (param i32 i32) (result i32)))
	(memory (export "memory") 2) (data (i32.const 1024) "hello") (func (export "_start")))`

func BenchmarkLink(b *testing.B) {
	calls := 0
	e := engine(b, Config{})
	m := build(b, e, benchModule)
	imports := fastImports(&calls)
	for b.Loop() {
		l, err := e.Link(m, imports)
		if err != nil {
			b.Fatal(err)
		}
		l.Close()
	}
}

// BenchmarkLink45 links as many functions as preview 1 has.
func BenchmarkLink45(b *testing.B) {
	text := `(module`
	imports := make([]wasm.Import, 0, 90)
	for i := range 90 {
		imports = append(imports, wasm.Import{Module: "wasi_snapshot_preview1", Name: "function_" + strconv.Itoa(i),
			Type: wasm.FuncType{Params: []wasm.ValType{wasm.I32, wasm.I32, wasm.I64}, Results: []wasm.ValType{wasm.I32}}, Func: nop})
		if i < 45 {
			text += ` (import "wasi_snapshot_preview1" "` + imports[i].Name + `" (func (param i32 i32 i64) (result i32)))`
		}
	}
	e := engine(b, Config{})
	m := build(b, e, text+`)`)
	for b.Loop() {
		l, err := e.Link(m, imports)
		if err != nil {
			b.Fatal(err)
		}
		l.Close()
	}
}

func BenchmarkInstantiate(b *testing.B) {
	calls := 0
	e := engine(b, Config{})
	l, err := e.Link(build(b, e, benchModule), fastImports(&calls))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	b.ReportAllocs()
	for b.Loop() {
		i, err := l.Instantiate(wasm.Limits{Memory: 1 << 24})
		if err != nil {
			b.Fatal(err)
		}
		i.Close()
	}
}

func BenchmarkEngine(b *testing.B) {
	for b.Loop() {
		e, err := NewEngine(Config{})
		if err != nil {
			b.Fatal(err)
		}
		e.Close()
	}
}

func BenchmarkTrap(b *testing.B) {
	i := start(b, engine(b, Config{}), `(module (func (export "_start") unreachable))`, nil, wasm.Limits{})
	for b.Loop() {
		if i.Call("_start") == nil {
			b.Fatal("no trap")
		}
	}
}
