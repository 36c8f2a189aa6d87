package wasmtime

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/limpet-cri/limpet/wasm"
)

func TestExit(t *testing.T) {
	e := engine(t, Config{})
	exit := wasm.Import{Module: "h", Name: "exit", Type: wasm.FuncType{Params: []wasm.ValType{wasm.I32}},
		Func: func(_ []byte, s []wasm.Raw) error { return &wasm.Exit{Code: s[0].I32()} }}
	const head = `(module (import "h" "exit" (func $e (param i32)))
		(func $f (call $e (i32.const 300)) unreachable)`
	i := start(t, e, head+`(export "_start" (func $f)))`, []wasm.Import{exit}, wasm.Limits{})
	var x *wasm.Exit
	if err := i.Call("_start"); !errors.As(err, &x) || x.Code != 300 {
		t.Errorf("got %v", err)
	}
	x = nil
	_, err := instantiate(t, e, head+`(start $f))`, []wasm.Import{exit}, wasm.Limits{})
	if !errors.As(err, &x) || x.Code != 300 {
		t.Errorf("from the start function: got %v", err)
	}
}

// TestShapes passes every type of value in both directions.
func TestShapes(t *testing.T) {
	all := []wasm.ValType{wasm.I32, wasm.I64, wasm.F32, wasm.F64}
	var got [4]wasm.Raw
	many := make([]wasm.ValType, 16)
	sum := uint32(0)
	imports := []wasm.Import{
		{Module: "h", Name: "in", Type: wasm.FuncType{Params: all}, Func: func(_ []byte, s []wasm.Raw) error {
			copy(got[:], s)
			return nil
		}},
		{Module: "h", Name: "out", Type: wasm.FuncType{Results: all}, Func: func(mem []byte, s []wasm.Raw) error {
			if mem != nil || len(s) != 4 {
				return errors.New("wrong view")
			}
			s[0].SetI32(math.MaxUint32)
			s[1].SetI64(math.MaxUint64 - 1)
			s[2].SetI32(math.Float32bits(1.5))
			s[3].SetI64(math.Float64bits(-2.25))
			return nil
		}},
		{Module: "h", Name: "many", Type: wasm.FuncType{Params: many, Results: many[:1]}, Func: func(_ []byte, s []wasm.Raw) error {
			sum = 0
			for i := range s {
				sum += s[i].I32() * uint32(i+1)
			}
			s[0].SetI32(sum)
			return nil
		}},
		{Module: "h", Name: "none", Func: func(_ []byte, s []wasm.Raw) error {
			if len(s) != 0 {
				return errors.New("a stack for nothing")
			}
			return nil
		}},
	}
	var args strings.Builder
	for i := range 16 {
		args.WriteString("(i32.const " + string(rune('0'+i%10)) + ")")
	}
	i := start(t, engine(t, Config{}), `(module
		(import "h" "in" (func $in (param i32 i64 f32 f64)))
		(import "h" "out" (func $out (result i32 i64 f32 f64)))
		(import "h" "many" (func $many (param `+strings.Repeat("i32 ", 16)+`) (result i32)))
		(import "h" "none" (func $none))
		(func (export "_start")
			call $none
			(call $in (call $out))
			(if (i32.ne (call $many `+args.String()+`) (i32.const 550)) (then unreachable))))`, imports, wasm.Limits{})
	if err := i.Call("_start"); err != nil {
		t.Error(err)
	}
	if got[0].I32() != math.MaxUint32 || got[1].I64() != math.MaxUint64-1 ||
		math.Float32frombits(got[2].I32()) != 1.5 || math.Float64frombits(got[3].I64()) != -2.25 {
		t.Errorf("got %v", got)
	}
	if sum != 550 {
		t.Errorf("sum %d", sum)
	}
}

func TestEntry(t *testing.T) {
	i := start(t, engine(t, Config{}), `(module (memory (export "memory") 1) (table (export "t") 1 funcref)
		(func (export "p") (param i32)) (func (export "r") (result i32) unreachable) (func (export "")))`, nil, wasm.Limits{})
	for name, want := range map[string]error{
		"memory": ErrNotCallable, "t": ErrNotCallable, "p": ErrNotCallable, "r": ErrNotCallable, "_start": ErrNoExport, "": nil,
	} {
		if err := i.Call(name); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", name, err, want)
		}
	}
}

// TestMemory: the memory that a host function sees is that of now, also after
// growth and in the start function, and writes reach the guest.
func TestMemory(t *testing.T) {
	var sizes []int
	touch := wasm.Import{Module: "h", Name: "touch", Func: func(mem []byte, _ []wasm.Raw) error {
		sizes = append(sizes, len(mem))
		mem[len(mem)-1] = 42
		return nil
	}}
	i := start(t, engine(t, Config{}), `(module (import "h" "touch" (func $touch))
		(memory (export "memory") 1) (start $s) (func $s call $touch)
		(func (export "_start")
			(if (i32.ne (i32.load8_u (i32.const 65535)) (i32.const 42)) (then unreachable))
			(if (i32.ne (memory.grow (i32.const 2)) (i32.const 1)) (then unreachable))
			call $touch
			(if (i32.ne (i32.load8_u (i32.const 196607)) (i32.const 42)) (then unreachable))
			(if (i32.ne (memory.grow (i32.const 2)) (i32.const -1)) (then unreachable))
			(if (i32.ne (memory.grow (i32.const 1)) (i32.const 3)) (then unreachable))
			call $touch))`, []wasm.Import{touch}, wasm.Limits{Memory: 4 << 16})
	if err := i.Call("_start"); err != nil {
		t.Fatal(err)
	}
	if len(sizes) != 3 || sizes[0] != 1<<16 || sizes[1] != 3<<16 || sizes[2] != 4<<16 {
		t.Errorf("sizes %v", sizes)
	}
}

func TestEmptyMemory(t *testing.T) {
	f := wasm.Import{Module: "h", Name: "f", Func: func(mem []byte, _ []wasm.Raw) error {
		if len(mem) != 0 {
			return errors.New("memory where there is none")
		}
		return nil
	}}
	for _, memory := range []string{``, `(memory 1)`, `(memory (export "memory") 0)`, `(func (export "memory"))`} {
		i := start(t, engine(t, Config{}), `(module (import "h" "f" (func $f)) `+memory+
			`(func (export "_start") call $f))`, []wasm.Import{f}, wasm.Limits{})
		if err := i.Call("_start"); err != nil {
			t.Errorf("%s: %v", memory, err)
		}
	}
}

func TestLimits(t *testing.T) {
	e := engine(t, Config{})
	for _, c := range []struct {
		text   string
		limits wasm.Limits
		err    string
	}{
		{`(memory 16)`, wasm.Limits{Memory: 1 << 20}, ""},
		{`(memory 17)`, wasm.Limits{Memory: 1 << 20}, "instantiate: memory minimum size of 17 pages exceeds memory limits"},
		{`(memory 65536)`, wasm.Limits{}, ""},
		{`(memory 1)`, wasm.Limits{Memory: 1}, "instantiate: memory minimum size of 1 pages exceeds memory limits"},
		{`(table 100 funcref)`, wasm.Limits{TableElements: 100}, ""},
		{`(table 101 funcref)`, wasm.Limits{TableElements: 100}, "instantiate: table minimum size of 101 elements exceeds table limits"},
		{strings.Repeat(`(memory 1)`, maxMemories), wasm.Limits{}, ""},
		{strings.Repeat(`(memory 1)`, maxMemories+1), wasm.Limits{}, "instantiate: resource limit exceeded: memory count too high at 17"},
		{strings.Repeat(`(table 1 funcref)`, maxTables), wasm.Limits{}, ""},
		{strings.Repeat(`(table 1 funcref)`, maxTables+1), wasm.Limits{}, "instantiate: resource limit exceeded: table count too high at 65"},
	} {
		i, err := instantiate(t, e, `(module `+c.text+`)`, nil, c.limits)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			i.Close()
		}
		if got != c.err {
			t.Errorf("%.40s %v: got %q, want %q", c.text, c.limits, got, c.err)
		}
	}
	i := start(t, e, `(module (table $t 1 funcref) (func (export "_start")
		(if (i32.ne (table.grow $t (ref.null func) (i32.const 9)) (i32.const 1)) (then unreachable))
		(if (i32.ne (table.grow $t (ref.null func) (i32.const 1)) (i32.const -1)) (then unreachable))))`,
		nil, wasm.Limits{TableElements: 10})
	if err := i.Call("_start"); err != nil {
		t.Error(err)
	}
}

// TestReservation: a memory never moves, so that what does not fit into the
// reservation is refused.
func TestReservation(t *testing.T) {
	i := start(t, engine(t, Config{Proposals: []string{"memory64"}}), `(module (memory i64 1) (func (export "_start")
		(if (i64.ne (memory.grow (i64.const 60000)) (i64.const 1)) (then unreachable))
		(if (i64.ne (memory.grow (i64.const 10000)) (i64.const -1)) (then unreachable))))`, nil, wasm.Limits{})
	if err := i.Call("_start"); err != nil {
		t.Error(err)
	}
}

func TestBusy(t *testing.T) {
	var i *Instance
	var again, entry error
	f := wasm.Import{Module: "h", Name: "f", Func: func([]byte, []wasm.Raw) error {
		again = i.Call("_start")
		i.Close()
		_, entry = i.Func("_start")
		return nil
	}}
	i = start(t, engine(t, Config{}), `(module (import "h" "f" (func $f)) (func (export "_start") call $f))`,
		[]wasm.Import{f}, wasm.Limits{})
	if err := i.Call("_start"); err != nil || !errors.Is(again, ErrBusy) || entry != nil {
		t.Errorf("%v, %v, %v", err, again, entry)
	}
	i.Close()
	i.Close()
}
