package wasmtime

import (
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm"
)

// fastImports are the functions that C may answer; Go's half counts its calls
// and answers with an errno that C never gives.
func fastImports(calls *int) []wasm.Import {
	const answer = 76
	inGo := func(_ []byte, s []wasm.Raw) error { *calls++; s[0].SetI32(answer); return nil }
	i32 := []wasm.ValType{wasm.I32}
	return []wasm.Import{
		{Module: "p", Name: "clock_time_get", Fast: wasm.FastClockTimeGet, Func: inGo,
			Type: wasm.FuncType{Params: []wasm.ValType{wasm.I32, wasm.I64, wasm.I32}, Results: i32}},
		{Module: "p", Name: "sched_yield", Fast: wasm.FastSchedYield, Func: inGo, Type: wasm.FuncType{Results: i32}},
		{Module: "p", Name: "random_get", Fast: wasm.FastRandomGet, Func: inGo,
			Type: wasm.FuncType{Params: []wasm.ValType{wasm.I32, wasm.I32}, Results: i32}},
		{Module: "p", Name: "report", Type: wasm.FuncType{Params: i32}},
	}
}

func runFast(t *testing.T, memory, body string) (result uint32, mem []byte, calls int) {
	t.Helper()
	imports := fastImports(&calls)
	imports[3].Func = func(m []byte, s []wasm.Raw) error {
		result, mem = s[0].I32(), append([]byte(nil), m...)
		return nil
	}
	i := start(t, engine(t, Config{}), `(module
		(import "p" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
		(import "p" "sched_yield" (func $yield (result i32)))
		(import "p" "random_get" (func $random (param i32 i32) (result i32)))
		(import "p" "report" (func $report (param i32)))
		`+memory+` (func (export "_start") (call $report `+body+`)))`, imports, wasm.Limits{})
	if err := i.Call("_start"); err != nil {
		t.Fatal(err)
	}
	return result, mem, calls
}

const onePage = `(memory (export "memory") 1)`

func TestFastClock(t *testing.T) {
	monotonic := func() uint64 {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			t.Fatal(err)
		}
		return uint64(ts.Nano())
	}
	for id, now := range []func() uint64{func() uint64 { return uint64(time.Now().UnixNano()) }, monotonic} {
		before := now()
		errno, mem, calls := runFast(t, onePage, `(call $clock (i32.const `+string(rune('0'+id))+`) (i64.const 1) (i32.const 65528))`)
		got := binary.LittleEndian.Uint64(mem[65528:])
		if errno != 0 || calls != 0 || got < before || got > now() {
			t.Errorf("clock %d: errno %d, %d calls, %d", id, errno, calls, got)
		}
	}
}

func TestFastRandom(t *testing.T) {
	errno, mem, calls := runFast(t, onePage, `(call $random (i32.const 65280) (i32.const 256))`)
	zeros := 0
	for _, b := range mem[65280:] {
		if b == 0 {
			zeros++
		}
	}
	if errno != 0 || calls != 0 || zeros > 32 {
		t.Errorf("errno %d, %d calls, %d zeros", errno, calls, zeros)
	}
	for _, b := range mem[:65280] {
		if b != 0 {
			t.Fatal("written outside of the buffer")
		}
	}
}

// TestFast: what C answers itself and what it leaves to Go.
func TestFast(t *testing.T) {
	for _, c := range []struct {
		memory, body string
		inGo         bool
	}{
		{onePage, `(call $yield)`, false},
		{``, `(call $yield)`, false},
		{onePage, `(call $random (i32.const 0) (i32.const 0))`, false},
		{onePage, `(call $random (i32.const 65536) (i32.const 0))`, false},
		{onePage, `(call $random (i32.const 65537) (i32.const 0))`, true},
		{onePage, `(call $random (i32.const 65535) (i32.const 2))`, true},
		{onePage, `(call $random (i32.const -1) (i32.const 2))`, true},
		{onePage, `(call $random (i32.const 0) (i32.const 257))`, true},
		{onePage, `(call $random (i32.const 0) (i32.const -1))`, true},
		{``, `(call $random (i32.const 0) (i32.const 1))`, true},
		{onePage, `(call $clock (i32.const 0) (i64.const 0) (i32.const 65529))`, true},
		{onePage, `(call $clock (i32.const 1) (i64.const 0) (i32.const -8))`, true},
		{onePage, `(call $clock (i32.const 2) (i64.const 0) (i32.const 0))`, true},
		{onePage, `(call $clock (i32.const 3) (i64.const 0) (i32.const 0))`, true},
		{onePage, `(call $clock (i32.const 4) (i64.const 0) (i32.const 0))`, true},
		{onePage, `(call $clock (i32.const -1) (i64.const 0) (i32.const 0))`, true},
		{onePage, `(call $clock (i32.const 0) (i64.const -1) (i32.const 1))`, false}, // not aligned
		{``, `(call $clock (i32.const 0) (i64.const 0) (i32.const 0))`, true},
	} {
		errno, _, calls := runFast(t, c.memory, c.body)
		if c.inGo && (calls != 1 || errno != 76) || !c.inGo && (calls != 0 || errno != 0) {
			t.Errorf("%s %s: errno %d, %d calls of Go", c.memory, c.body, errno, calls)
		}
	}
}

// TestFastType: a function of another type is never answered in C.
func TestFastType(t *testing.T) {
	for fast := range wasm.FastRandomGet + 2 {
		called := 0
		f := wasm.Import{Module: "p", Name: "f", Fast: fast, Type: wasm.FuncType{Params: []wasm.ValType{wasm.I64}},
			Func: func([]byte, []wasm.Raw) error { called++; return nil }}
		i := start(t, engine(t, Config{}), `(module (import "p" "f" (func $f (param i64)))
			(func (export "_start") (call $f (i64.const 1))))`, []wasm.Import{f}, wasm.Limits{})
		if err := i.Call("_start"); err != nil || called != 1 {
			t.Errorf("fast %d: %v, called %d", fast, err, called)
		}
	}
}
