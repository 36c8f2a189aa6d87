package wasmtime

import (
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/limpet-cri/limpet/wasm"
)

var trapCases = []struct {
	name, body string
	code       wasm.TrapCode
	detail     string
}{
	{"unreachable", `unreachable`, wasm.TrapUnreachable, ""},
	{"load", `(drop (i32.load (i32.const 70000)))`, wasm.TrapMemoryOutOfBounds,
		"memory fault at wasm address 0x11170 in linear memory of size 0x10000"},
	{"straddling", `(drop (i32.load (i32.const 65533)))`, wasm.TrapMemoryOutOfBounds,
		"memory fault at wasm address 0x"}, // of the access or of the page that faults: the processor's choice
	{"far", `(i64.store offset=4294967295 (i32.const -1) (i64.const 0))`, wasm.TrapMemoryOutOfBounds, ""}, // no access at all
	{"fill", `(memory.fill (i32.const 1) (i32.const 0) (i32.const 65536))`, wasm.TrapMemoryOutOfBounds, ""},
	{"divide", `(drop (i32.div_u (i32.const 1) (i32.const 0)))`, wasm.TrapDivisionByZero, ""},
	{"overflow", `(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))`, wasm.TrapIntegerOverflow, ""},
	{"convert", `(drop (i32.trunc_f32_s (f32.const nan)))`, wasm.TrapBadConversion, ""},
	{"convert large", `(drop (i32.trunc_f64_s (f64.const 1e300)))`, wasm.TrapIntegerOverflow, ""},
	{"table", `(call_indirect (type $v) (i32.const 9))`, wasm.TrapTableOutOfBounds, ""},
	{"null", `(call_indirect (type $v) (i32.const 1))`, wasm.TrapIndirectToNull, ""},
	{"signature", `(call_indirect (type $i) (i32.const 1) (i32.const 0))`, wasm.TrapBadSignature, ""},
	{"recursion", `call $f`, wasm.TrapStackOverflow, ""},
	{"host", `call $host`, wasm.TrapHost, "the host says no"},
	{"panic", `call $panic`, wasm.TrapHost, "panic in h.panic: runtime error: index out of range [7] with length 0 at "},
}

func trapModule(body string) string {
	return `(module (type $v (func)) (type $i (func (param i32)))
		(import "h" "host" (func $host)) (import "h" "panic" (func $panic))
		(memory 1) (table 2 funcref) (elem (i32.const 0) $f)
		(func $f ` + body + `)
		(func $outer call $f)
		(func (export "_start") call $outer))`
}

func trapImports() []wasm.Import {
	return []wasm.Import{
		{Module: "h", Name: "host", Func: func([]byte, []wasm.Raw) error { return errors.New("the host says no") }},
		{Module: "h", Name: "panic", Func: func(_ []byte, s []wasm.Raw) error { s[7].SetI32(0); return nil }},
	}
}

func TestTraps(t *testing.T) {
	e := engine(t, Config{})
	for _, c := range trapCases {
		t.Run(c.name, func(t *testing.T) {
			i := start(t, e, trapModule(c.body), trapImports(), wasm.Limits{})
			for range 2 { // an instance can be called again after a trap
				checkTrap(t, i.Call("_start"), c.code, c.detail)
			}
		})
	}
}

func checkTrap(t *testing.T, err error, code wasm.TrapCode, detail string) {
	t.Helper()
	var trap *wasm.Trap
	if !errors.As(err, &trap) || trap.Code != code || !strings.HasPrefix(trap.Detail, detail) || (detail == "") != (trap.Detail == "") {
		t.Fatalf("got %#v", err)
	}
	if code == wasm.TrapStackOverflow {
		if len(trap.Frames) == 0 || trap.Frames[0].Offset != wasm.NoOffset {
			t.Errorf("frames %v", trap.Frames)
		}
		return
	}
	var names []string
	for _, f := range trap.Frames {
		names = append(names, f.Func)
		if f.Offset == wasm.NoOffset || f.Offset == 0 || f.Index < 2 {
			t.Errorf("frame %+v", f)
		}
	}
	if s := strings.Join(names, " "); s != "f outer " {
		t.Errorf("frames %q", s)
	}
}

func TestException(t *testing.T) {
	i := start(t, engine(t, Config{Proposals: []string{"exception-handling"}}),
		`(module (tag $t) (func (export "_start") throw $t))`, nil, wasm.Limits{})
	var trap *wasm.Trap
	if err := i.Call("_start"); !errors.As(err, &trap) || trap.Code != wasm.TrapException || trap.Detail != "thrown Wasm exception" {
		t.Errorf("got %#v", err)
	}
}

// TestPanics: a panic that crossed Wasm frames would leave the engine's list
// of activations dangling, and a later trap would abort the process. So: a
// thousand panics of all kinds, from several goroutines, each followed by
// traps that walk the stack.
func TestPanics(t *testing.T) {
	e := engine(t, Config{})
	m := build(t, e, `(module (import "h" "panic" (func $p)) (memory 1)
		(func $deep (param i32)
			(if (i32.eqz (local.get 0)) (then call $p) (else (call $deep (i32.sub (local.get 0) (i32.const 1))))))
		(func (export "_start") (call $deep (i32.const 30)))
		(func (export "fault") (drop (i32.load (i32.const 65536))))
		(func (export "recurse") (call $r)) (func $r (call $r)))`)
	panics := []func(){
		func() { panic("text") },
		func() { panic(errors.New("an error")) },
		func() { panic(7) },
		func() { var p *int; *p = 1 },
		func() { var s []int; s[len(s)] = 1 },
		func() { panic(nil) },
		func() { defer func() { panic("again") }(); panic("first") },
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			n := g
			l, err := e.Link(m, []wasm.Import{{Module: "h", Name: "panic", Func: func([]byte, []wasm.Raw) error {
				panics[n%len(panics)]()
				return nil
			}}})
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Close()
			i, err := l.Instantiate(wasm.Limits{})
			if err != nil {
				t.Error(err)
				return
			}
			defer i.Close()
			for ; n < 1000; n++ {
				var trap *wasm.Trap
				if err := i.Call("_start"); !errors.As(err, &trap) || trap.Code != wasm.TrapHost ||
					!strings.HasPrefix(trap.Detail, "panic in h.panic: ") || len(trap.Frames) < 20 {
					t.Errorf("panic %d: %#v", n%len(panics), err)
					return
				}
				if err := i.Call("fault"); !errors.As(err, &trap) || trap.Code != wasm.TrapMemoryOutOfBounds {
					t.Errorf("got %#v", err)
					return
				}
				if n%100 == 0 {
					runtime.GC()
					if err := i.Call("recurse"); !errors.As(err, &trap) || trap.Code != wasm.TrapStackOverflow {
						t.Errorf("got %#v", err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

// TestStackGrowth: a host function may use far more stack than a goroutine
// starts with, which moves the goroutine's stack while the guest is below.
func TestStackGrowth(t *testing.T) {
	var deep func(n int) int
	deep = func(n int) int {
		var pad [1 << 10]byte
		if n == 0 {
			return int(pad[0])
		}
		return deep(n-1) + int(pad[n%len(pad)]) + 1
	}
	got := 0
	f := wasm.Import{Module: "h", Name: "f", Func: func([]byte, []wasm.Raw) error {
		got = deep(1000)
		runtime.GC()
		return nil
	}}
	e := engine(t, Config{})
	i := start(t, e, `(module (import "h" "f" (func $f)) (func (export "_start") call $f))`, []wasm.Import{f}, wasm.Limits{})
	done := make(chan error)
	go func() { done <- i.Call("_start") }()
	if err := <-done; err != nil || got != 1000 {
		t.Errorf("%v, %d", err, got)
	}
}

// TestGoFaults: the engine's signal handlers leave Go's own faults alone.
func TestGoFaults(t *testing.T) {
	e := engine(t, Config{})
	i := start(t, e, trapModule(`unreachable`), trapImports(), wasm.Limits{})
	for range 100 {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			var p *int
			*p = 1
		}()
		checkTrap(t, i.Call("_start"), wasm.TrapUnreachable, "")
	}
}

func TestBacktrace(t *testing.T) {
	i := start(t, engine(t, Config{}), trapModule(`(drop (i32.load (i32.const 70000)))`), trapImports(), wasm.Limits{})
	var trap *wasm.Trap
	if err := i.Call("_start"); !errors.As(err, &trap) {
		t.Fatal(err)
	}
	const want = `wasm trap: out of bounds memory access: memory fault at wasm address 0x11170 in linear memory of size 0x10000
wasm backtrace, innermost first:
  0: 0x57 app.wasm!f
  1: 0x5e app.wasm!outer
  2: 0x63 app.wasm!func[4]`
	if got := Backtrace("app.wasm", trap); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	hostile := &wasm.Trap{Code: wasm.TrapHost, Detail: "a\nb\x1b[31m", Frames: []wasm.Frame{{Func: "x\n\r" + strings.Repeat("é", 1000)}}}
	got := Backtrace("m\n", hostile)
	if strings.Count(got, "\n") != 2 || strings.ContainsAny(got, "\r\x1b") || len(got) > 1000 {
		t.Errorf("got %q", got)
	}
}

func TestEpoch(t *testing.T) {
	e := engine(t, Config{Epoch: true})
	entered := make(chan struct{})
	f := wasm.Import{Module: "h", Name: "f", Func: func([]byte, []wasm.Raw) error { close(entered); return nil }}
	i := start(t, e, `(module (import "h" "f" (func $f)) (func (export "_start") call $f (loop $l (br $l))))`,
		[]wasm.Import{f}, wasm.Limits{})
	done := make(chan error)
	go func() { done <- i.Call("_start") }()
	<-entered
	e.Interrupt()
	var trap *wasm.Trap
	if err := <-done; !errors.As(err, &trap) || trap.Code != wasm.TrapInterrupt {
		t.Errorf("got %v", err)
	}
}
