package wasip1

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm"
	"github.com/limpet-cri/limpet/wasm/wasi"
)

// memSize is the size of the memory that tests give to calls.
const memSize = 1 << 20

// Where tests put things in that memory.
const (
	atPath  = 0x1000
	atPath2 = 0x3000
	atOut   = 0x5000
	atVec   = 0x6000
	atData  = 0x10000
)

// tester calls the functions of one module as a guest would.
type tester struct {
	t     testing.TB
	sys   *wasi.System
	mem   []byte
	funcs map[string]wasm.Import
}

func newTester(t testing.TB, cfg wasi.Config) *tester {
	t.Helper()
	sys, err := wasi.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sys.Close() })
	return testerOf(t, sys, Module)
}

func testerOf(t testing.TB, sys *wasi.System, module string) *tester {
	c := &tester{t: t, sys: sys, mem: make([]byte, memSize), funcs: map[string]wasm.Import{}}
	for _, imp := range Imports(sys) {
		if imp.Module == module {
			c.funcs[imp.Name] = imp
		}
	}
	return c
}

// folder opens a folder of the test's for a Preopen.
func folder(t testing.TB, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// rooted is a tester whose only folder is dir, as "/".
func rooted(t testing.TB, dir string) *tester {
	return newTester(t, wasi.Config{Stdin: -1, Preopens: []wasi.Preopen{{Name: "/", FD: folder(t, dir), Root: true}}})
}

// raw calls a function and returns its Go error as well as its errno.
func (c *tester) raw(name string, args ...uint64) (Errno, error) {
	c.t.Helper()
	imp, ok := c.funcs[name]
	if !ok {
		c.t.Fatalf("no function %s", name)
	}
	if len(args) != len(imp.Type.Params) {
		c.t.Fatalf("%s takes %d parameters, not %d", name, len(imp.Type.Params), len(args))
	}
	stack := make([]wasm.Raw, max(len(args), 1))
	for i, a := range args {
		stack[i][0] = a
	}
	err := imp.Func(c.mem, stack)
	return Errno(stack[0].I32()), err
}

func (c *tester) call(name string, args ...uint64) Errno {
	c.t.Helper()
	e, err := c.raw(name, args...)
	if err != nil {
		c.t.Fatalf("%s: %v", name, err)
	}
	return e
}

// ok calls a function that must succeed.
func (c *tester) ok(name string, args ...uint64) {
	c.t.Helper()
	if e := c.call(name, args...); e != errnoSuccess {
		c.t.Fatalf("%s%v: errno %d", name, args, e)
	}
}

func (c *tester) put(at int, s string) (ptr, n uint64) {
	copy(c.mem[at:], s)
	return uint64(at), uint64(len(s))
}

func (c *tester) u32(at int) uint32 { return le.Uint32(c.mem[at:]) }
func (c *tester) u64(at int) uint64 { return le.Uint64(c.mem[at:]) }

const (
	allRights = uint64(wasi.RightSockAccept<<1 - 1)
	roRights  = allRights &^ uint64(wasi.RightFDWrite)
)

func (c *tester) open(dir uint64, path string, follow, oflags, rights uint64) (uint64, Errno) {
	c.t.Helper()
	p, n := c.put(atPath, path)
	e := c.call("path_open", dir, follow, p, n, oflags, rights, allRights, 0, atOut)
	return uint64(c.u32(atOut)), e
}

func (c *tester) vec(data string) (ptr, n uint64) {
	copy(c.mem[atData:], data)
	le.PutUint32(c.mem[atVec:], atData)
	le.PutUint32(c.mem[atVec+4:], uint32(len(data)))
	return atVec, 1
}

func (c *tester) write(fd uint64, data string) Errno {
	c.t.Helper()
	p, n := c.vec(data)
	return c.call("fd_write", fd, p, n, atOut)
}

func (c *tester) read(fd uint64, n int) (string, Errno) {
	c.t.Helper()
	p, m := c.vec(string(make([]byte, n)))
	e := c.call("fd_read", fd, p, m, atOut)
	if e != errnoSuccess {
		return "", e
	}
	return string(c.mem[atData : atData+int(c.u32(atOut))]), e
}
