package host

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm"
	"github.com/limpet-cri/limpet/wasm/wasmtime"
)

// compileChild names the variable that makes the test binary a compile child:
// its mode, and the proposals after it.
const compileChild = "LIMPET_TEST_COMPILE"

// TestCompileChild is no test: it is the body of the child.
func TestCompileChild(t *testing.T) {
	args := strings.Fields(os.Getenv(compileChild))
	if len(args) == 0 {
		t.Skip("started by the other tests")
	}
	if m := os.Getenv(compileChild + "_AS"); m != "" {
		limit := unix.Rlimit{Cur: 1800 << 20, Max: 1800 << 20}
		if err := unix.Setrlimit(unix.RLIMIT_AS, &limit); err != nil {
			t.Fatal(err)
		}
	}
	if args[0] == "key" {
		os.Exit(Key(args[1:]))
	}
	os.Exit(Compile(args[1:]))
}

// ended is how a child ended.
type ended struct {
	code      int
	said      string
	out       string // path of the output
	outLength int64
}

func runChild(t *testing.T, mode string, module []byte, env ...string) ended {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, module, 0o444); err != nil {
		t.Fatal(err)
	}
	r, err := os.Open(in)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return childWith(t, mode, r, w, env...)
}

func childWith(t *testing.T, mode string, in, out *os.File, env ...string) ended {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestCompileChild$")
	cmd.Env = append(append(os.Environ(), compileChild+"="+mode), env...)
	cmd.ExtraFiles = []*os.File{out /* the order's place */, in, out}
	var said bytes.Buffer
	cmd.Stderr = &said
	var status *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &status) {
		t.Fatal(err)
	}
	e := ended{code: cmd.ProcessState.ExitCode(), said: said.String(), out: out.Name()}
	if fi, err := out.Stat(); err == nil {
		e.outLength = fi.Size()
	}
	return e
}

func wat(t *testing.T, text string) []byte {
	t.Helper()
	b, err := wasmtime.Wat([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCompile(t *testing.T) {
	e := runChild(t, "compile", wat(t, `(module (func (export "_start") unreachable))`))
	if e.code != exitOK || e.said != "" {
		t.Fatalf("got %+v", e)
	}
	engine, err := wasmtime.NewEngine(wasmtime.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	m, err := engine.LoadFile(e.out)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	l, err := engine.Link(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	i, err := l.Instantiate(wasm.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	var trap *wasm.Trap
	if err := i.Call("_start"); !errors.As(err, &trap) || trap.Code != wasm.TrapUnreachable {
		t.Errorf("got %v", err)
	}
}

func TestCompileProposals(t *testing.T) {
	module := wat(t, `(module (memory i64 1))`)
	if e := runChild(t, "compile memory64", module); e.code != exitOK {
		t.Errorf("got %+v", e)
	}
	if e := runChild(t, "compile", module); e.code != exitInvalid || e.outLength != 0 {
		t.Errorf("got %+v", e)
	}
	if e := runChild(t, "compile no-such-thing", module); e.code != exitFailed || !strings.Contains(e.said, "no-such-thing") {
		t.Errorf("got %+v", e)
	}
}

func TestCompileInvalid(t *testing.T) {
	for name, module := range map[string][]byte{
		"empty":     nil,
		"text":      []byte("(module)"),
		"short":     []byte("\x00asm\x01\x00"),
		"component": wat(t, "(component)"),
		"elf":       []byte("\x7fELF\x02\x01\x01\xc8"),
		"body":      []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x0a\x05\x01\x03\x00\x41\x0b"),
		"noise":     bytes.Repeat([]byte("\x00\xff\n"), 10_000),
	} {
		e := runChild(t, "compile", module)
		if e.code != exitInvalid || e.outLength != 0 || !strings.HasPrefix(e.said, "validate: ") ||
			strings.Count(e.said, "\n") != 1 || len(e.said) > maxText+8 {
			t.Errorf("%s: got %+v", name, e)
		}
	}
}

func TestCompileFiles(t *testing.T) {
	dir := t.TempDir()
	module := filepath.Join(dir, "module")
	if err := os.WriteFile(module, wat(t, `(module)`), 0o444); err != nil {
		t.Fatal(err)
	}
	open := func(path string, flags int) *os.File {
		f, err := os.OpenFile(path, flags, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	huge := open(filepath.Join(dir, "huge"), os.O_CREATE|os.O_RDWR)
	if err := huge.Truncate(maxModule + 1); err != nil {
		t.Fatal(err)
	}
	out := open(filepath.Join(dir, "out"), os.O_CREATE|os.O_WRONLY)
	good := open(module, os.O_RDONLY)
	for name, c := range map[string]struct {
		in, out *os.File
		text    string
	}{
		"a device":     {open("/dev/zero", os.O_RDONLY), out, "map the module: it is not a regular file"},
		"a folder":     {open(dir, os.O_RDONLY), out, "map the module: it is not a regular file"},
		"too large":    {huge, out, "map the module: 268435457 bytes, at most 268435456 are read"},
		"not readable": {out, out, "map the module: permission denied"},
		"not writable": {good, good, "write the compiled code: bad file descriptor"},
		"full":         {good, open("/dev/full", os.O_WRONLY), "write the compiled code: no space left on device"},
	} {
		if name == "not readable" {
			if err := out.Truncate(8); err != nil {
				t.Fatal(err)
			}
		}
		e := childWith(t, "compile", c.in, c.out)
		if e.code != exitFailed || e.said != c.text+"\n" {
			t.Errorf("%s: got %+v", name, e)
		}
	}
}

// TestCompileMemory: a module of empty functions takes 5 GiB and more to
// compile. Under a limit of address space the child ends, says why, and leaves
// nothing that could be loaded.
func TestCompileMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds of two processors")
	}
	const n = 300_000
	leb := func(v uint32) []byte { return []byte{byte(v) | 0x80, byte(v>>7) | 0x80, byte(v >> 14)} }
	section := func(id byte, body []byte) []byte {
		return append(append([]byte{id}, leb(uint32(len(body)))...), body...)
	}
	module := []byte("\x00asm\x01\x00\x00\x00")
	module = append(module, section(1, []byte("\x01\x60\x00\x00"))...)
	module = append(module, section(3, append(leb(n), make([]byte, n)...))...)
	module = append(module, section(10, append(leb(n), bytes.Repeat([]byte("\x02\x00\x0b"), n)...))...)
	e := runChild(t, "compile", module, compileChild+"_AS=1")
	if e.code == exitOK || e.code == exitInvalid || e.outLength != 0 || !regexp.MustCompile(`memory allocation of \d+ bytes failed|out of memory|cannot allocate memory`).MatchString(e.said) {
		t.Errorf("got code %d, %d bytes, %.300s", e.code, e.outLength, e.said)
	}
}

func TestKey(t *testing.T) {
	key := func(mode string) string {
		e := runChild(t, mode, nil)
		b, err := os.ReadFile(e.out)
		if err != nil || e.code != exitOK || e.said != "" {
			t.Fatalf("%+v, %v", e, err)
		}
		return string(b)
	}
	a, b := key("key"), key("key gc memory64")
	if !regexp.MustCompile(`^[0-9a-f]{32}\n$`).MatchString(a) || a == b || a != key("key") {
		t.Errorf("keys %q, %q", a, b)
	}
	if e := runChild(t, "key x", nil); e.code != exitFailed || e.said != "\"x\": unknown WebAssembly proposal\n" {
		t.Errorf("got %+v", e)
	}
}
