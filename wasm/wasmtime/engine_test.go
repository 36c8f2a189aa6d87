package wasmtime

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/limpet-cri/limpet/wasm"
)

// modules that need one proposal each.
var proposalModules = map[string]string{
	"tail-call":              `(module (func $f return_call $f))`,
	"reference-types":        `(module (table 1 externref) (func (param externref)))`,
	"simd":                   `(module (func (drop (i32x4.add (v128.const i32x4 1 1 1 1) (v128.const i32x4 1 1 1 1)))))`,
	"relaxed-simd":           `(module (func (param v128) (drop (i32x4.relaxed_trunc_f32x4_s (local.get 0)))))`,
	"bulk-memory-operations": `(module (memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))))`,
	"multi-value":            `(module (func (result i32 i32) (i32.const 1) (i32.const 2)))`,
	"multi-memory":           `(module (memory 1) (memory 1))`,
	"memory64":               `(module (memory i64 1) (table i64 1 funcref))`,
	"exception-handling":     `(module (tag $t) (func throw $t))`,
	"function-references":    `(module (type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0))))`,
	"gc":                     `(module (type $s (struct (field i32))) (func (drop (struct.new $s (i32.const 1)))))`,
	"wide-arithmetic":        `(module (func (param i64 i64 i64 i64) (i64.add128 (local.get 0) (local.get 1) (local.get 2) (local.get 3)) drop drop))`,
	"custom-page-sizes":      `(module (memory 1 (pagesize 1)))`,
}

// neverModules are refused whatever a profile names.
var neverModules = map[string]string{
	"threads":         `(module (memory 1 1 shared))`,
	"atomics":         `(module (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))`,
	"stack-switching": `(module (type $f (func)) (type $c (cont $f)) (func (param (ref $f)) (drop (cont.new $c (local.get 0)))))`,
	"component":       `(component)`,
}

// alwaysModules use what the engine has no switch for.
var alwaysModules = map[string]string{
	"mutable globals": `(module (global (export "g") (mut i32) (i32.const 0)))`,
	"sign extension":  `(module (func (drop (i32.extend8_s (i32.const 1)))))`,
	"saturating":      `(module (func (drop (i32.trunc_sat_f32_s (f32.const nan)))))`,
	"extended const":  `(module (global i32 (i32.add (i32.const 1) (i32.const 2))))`,
}

func wat(t testing.TB, text string) []byte {
	t.Helper()
	b, err := Wat([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestProposals(t *testing.T) {
	plain, all := engine(t, Config{}), engine(t, Config{Proposals: Known()})
	for _, name := range slices.Concat(Defaults(), Known()) {
		text, ok := proposalModules[name]
		if !ok {
			t.Errorf("%s has no module", name)
			continue
		}
		bin := wat(t, text)
		one := Config{}
		if !slices.Contains(Defaults(), name) {
			one.Proposals = []string{name}
			if err := plain.Validate(bin); err == nil {
				t.Errorf("%s is valid by default", name)
			}
			if _, err := plain.Compile(bin); err == nil {
				t.Errorf("%s compiles by default", name)
			}
		}
		if err := engine(t, one).Validate(bin); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if i, err := instantiate(t, all, text, nil, wasm.Limits{}); err != nil {
			t.Errorf("%s: %v", name, err)
		} else {
			i.Close()
		}
	}
	for name, text := range neverModules {
		if err := all.Validate(wat(t, text)); err == nil {
			t.Errorf("%s is valid", name)
		}
		if _, err := all.Compile(wat(t, text)); err == nil {
			t.Errorf("%s compiles", name)
		}
	}
	for name, text := range alwaysModules {
		if err := plain.Validate(wat(t, text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want error
	}{
		{Config{Proposals: []string{"threads"}}, ErrUnknownProposal},
		{Config{Proposals: []string{""}}, ErrUnknownProposal},
		{Config{Proposals: []string{"simd"}}, nil},
		{Config{MaxWasmStack: 1}, ErrWasmStack},
		{Config{MaxWasmStack: 1 << 40}, ErrWasmStack},
		{Config{MaxWasmStack: MinWasmStack}, nil},
		{Config{MaxWasmStack: MaxWasmStack}, nil},
	} {
		e, err := NewEngine(c.cfg)
		if !errors.Is(err, c.want) {
			t.Errorf("%v: got %v", c.cfg, err)
		}
		if err == nil {
			e.Close()
			e.Close()
		}
	}
}

// TestWasmStack: the bound holds, and a thread's stack holds the bound.
func TestWasmStack(t *testing.T) {
	depth := func(stack uint64) int {
		n := 0
		f := wasm.Import{Module: "h", Name: "f", Func: func([]byte, []wasm.Raw) error { n++; return nil }}
		i := start(t, engine(t, Config{MaxWasmStack: stack}), `(module (import "h" "f" (func $f))
			(func $r (param i64) call $f (call $r (local.get 0)) (drop (local.get 0)))
			(func (export "_start") (call $r (i64.const 1))))`, []wasm.Import{f}, wasm.Limits{})
		var trap *wasm.Trap
		if err := i.Call("_start"); !errors.As(err, &trap) || trap.Code != wasm.TrapStackOverflow {
			t.Errorf("got %v", err)
		}
		return n
	}
	small, normal, large := depth(MinWasmStack), depth(0), depth(MaxWasmStack)
	if small*10 > normal || normal*5 > large || small == 0 {
		t.Errorf("depths %d, %d, %d", small, normal, large)
	}
}

func TestInvalid(t *testing.T) {
	e := engine(t, Config{})
	for _, b := range [][]byte{nil, {}, []byte("\x00asm"), []byte("\x00asm\x01\x00\x00\x00\x01"), []byte("\x00asm\x0d\x00\x01\x00"),
		[]byte("(module)"), []byte("\x7fELF"), bytes.Repeat([]byte{0xff}, 1000)} {
		if err := e.Validate(b); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("validate %.20q: %v", b, err)
		}
		if _, err := e.Compile(b); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("compile %.20q: %v", b, err)
		}
	}
	for _, text := range []string{"", "(", "(module", "\xff"} {
		if _, err := Wat([]byte(text)); err == nil && text != "" {
			t.Errorf("wat %q is good", text)
		}
	}
}

func TestLoadFile(t *testing.T) {
	const text = `(module (memory 1) (data (i32.const 0) "hello") (func (export "_start")))`
	bin := wat(t, text)
	e := engine(t, Config{})
	code, err := e.Compile(bin)
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := engine(t, Config{Epoch: true}).Compile(bin)
	if err != nil {
		t.Fatal(err)
	}
	proposals, err := engine(t, Config{Proposals: []string{"exception-handling"}}).Compile(bin)
	if err != nil {
		t.Fatal(err)
	}
	damaged := slices.Clone(code)
	copy(damaged[bytes.Index(damaged, []byte(".wasmtime.engine")):], "xwasmtime.engine")
	dir := t.TempDir()
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"good":      {code, `^$`},
		"empty":     {nil, `^load compiled code: `},
		"wasm":      {bin, `^load compiled code: `},
		"head":      {code[:64], `^load compiled code: `},
		"half":      {code[:len(code)/2], `^load compiled code: `},
		"damaged":   {damaged, `^load compiled code: `},
		"epoch":     {epoch, `^load compiled code: .*: Module was compiled with epoch interruption but it is not enabled for the host$`},
		"proposals": {proposals, `^load compiled code: .*exceptions`},
		"elf":       {elf(t), `^load compiled code: `},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, c.content, 0o444); err != nil {
			t.Fatal(err)
		}
		m, err := e.LoadFile(path)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			m.Close()
			m.Close()
		}
		if !regexp.MustCompile(c.want).MatchString(got) {
			t.Errorf("%s: got %q", name, got)
		}
	}
	for _, path := range []string{filepath.Join(dir, "absent"), dir, "a\x00b", ""} {
		if _, err := e.LoadFile(path); err == nil {
			t.Errorf("%q is good", path)
		}
	}
}

// elf returns an ELF file that is not compiled Wasm.
func elf(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Skip("needs /proc")
	}
	return b
}

func TestKey(t *testing.T) {
	key := func(cfg Config) string {
		k, err := Key(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(k) {
			t.Fatalf("key %q", k)
		}
		return k
	}
	plain := key(Config{})
	for _, cfg := range []Config{{}, {Parallel: true}, {MaxWasmStack: MinWasmStack}, {Proposals: []string{"simd"}}} {
		if key(cfg) != plain {
			t.Errorf("%v has another key", cfg)
		}
	}
	seen := map[string]bool{plain: true}
	for _, cfg := range []Config{{Epoch: true}, {Proposals: Known()}, {Proposals: []string{"memory64"}}, {Proposals: []string{"wide-arithmetic"}}} {
		k := key(cfg)
		if seen[k] {
			t.Errorf("%v shares a key", cfg)
		}
		seen[k] = true
	}
	if _, err := Key(Config{Proposals: []string{"x"}}); !errors.Is(err, ErrUnknownProposal) {
		t.Errorf("got %v", err)
	}
}

func FuzzSection(f *testing.F) {
	code, err := engine(f, Config{}).Compile(wat(f, `(module)`))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(code)
	f.Add(code[:200])
	f.Fuzz(func(t *testing.T, b []byte) {
		if s := elfSection(b, ".wasmtime.engine"); len(s) > len(b) {
			t.Error("a section longer than its file")
		}
	})
}
