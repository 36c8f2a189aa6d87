package shim_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim"
	"github.com/limpet-cri/limpet/shim/cgroup"
	"github.com/limpet-cri/limpet/wasm/wasmtime"
)

// files returns a module to compile and an empty file for its code.
func (n *node) files(module []byte) (in, out *os.File) {
	n.Helper()
	dir := n.TempDir()
	path := filepath.Join(dir, "module")
	if err := os.WriteFile(path, module, 0o400); err != nil {
		n.Fatal(err)
	}
	in, err := os.Open(path)
	if err != nil {
		n.Fatal(err)
	}
	out, err = os.OpenFile(filepath.Join(dir, "code"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { in.Close(); out.Close() })
	return in, out
}

// What the confined compiler makes is what a host runs.
func TestCompileAndRun(t *testing.T) {
	n := newNode(t)
	module, err := wasmtime.Wat([]byte(guestExit3))
	if err != nil {
		t.Fatal(err)
	}
	in, out := n.files(module)
	if err := n.sup.Compile(context.Background(), in, out, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(out.Name(), 0o444); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(out.Name()), 0o755); err != nil {
		t.Fatal(err)
	}
	c := n.container(guestHello)
	c.Limpet.Code = out.Name()
	if x := n.ended(n.start(c)); x.Code != 3 {
		t.Errorf("ended with %+v", x)
	}
}

// hostile returns a module of empty functions: 4 bytes each, and kilobytes of
// compiler.
func hostile(functions uint32) []byte {
	leb := func(v uint32) []byte {
		return []byte{byte(v) | 0x80, byte(v>>7) | 0x80, byte(v>>14) | 0x80, byte(v >> 21)}
	}
	section := func(id byte, body []byte) []byte {
		return append(append([]byte{id}, leb(uint32(len(body)))...), body...)
	}
	m := []byte("\x00asm\x01\x00\x00\x00")
	m = append(m, section(1, []byte("\x01\x60\x00\x00"))...)
	m = append(m, section(3, append(leb(functions), make([]byte, functions)...))...)
	return append(m, section(10, append(leb(functions), bytes.Repeat([]byte("\x02\x00\x0b"), int(functions))...))...)
}

// A disk that is full is told as such: it is not the module's fault.
func TestCompileFullDisk(t *testing.T) {
	n := newNode(t)
	in, out := n.files(hostile(10))
	defer in.Close()
	defer out.Close()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if err := n.sup.Compile(context.Background(), in, full, nil); !errors.Is(err, unix.ENOSPC) || !errors.Is(err, shim.ErrHostFailed) {
		t.Errorf("got %v", err)
	}
}

func TestCompileFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		module []byte
		config func(*shim.Config)
		want   error
		text   string
	}{
		{"no module", []byte("junk"), nil, shim.ErrNotValid, "junk"},
		{"empty", nil, nil, shim.ErrNotValid, "empty"},
		{"cut short", hostile(10)[:40], nil, shim.ErrNotValid, ""},
		{"too long", hostile(500_000), func(c *shim.Config) { c.CompileTime = 300 * time.Millisecond }, shim.ErrCompileTime, "longer than 2.3s"},
		{"too much memory", hostile(200_000), func(c *shim.Config) { c.CompileMemory = 1000 << 20 }, shim.ErrCompileMemory, "more memory than 1000 MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			if c.config != nil {
				n.close()
				c.config(&n.cfg)
				n.open()
			}
			before := n.census()
			in, out := n.files(c.module)
			err := n.sup.Compile(context.Background(), in, out, nil)
			if !errors.Is(err, c.want) || c.text != "junk" && !strings.Contains(err.Error(), c.text) {
				t.Fatalf("error %v, want %v and %q", err, c.want, c.text)
			}
			t.Log(err)
			in.Close()
			out.Close()
			n.compare(before, n.census())
		})
	}
}

func TestCompileIsCancelled(t *testing.T) {
	n := newNode(t)
	in, out := n.files(hostile(500_000))
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := n.sup.Compile(ctx, in, out, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if l := n.hosts(); len(l) > 0 {
		t.Errorf("compilers are left: %q", l)
	}
}

func TestEngineKey(t *testing.T) {
	n := newNode(t)
	key := func(proposals ...string) string {
		k, err := n.sup.EngineKey(context.Background(), proposals)
		if err != nil || !regexp.MustCompile(`^[0-9a-f]{32,}$`).MatchString(k) {
			t.Fatalf("%q, %v", k, err)
		}
		return k
	}
	if a, b := key(), key("gc"); a == b || a != key() {
		t.Errorf("keys %q and %q", a, b)
	}
	if _, err := n.sup.EngineKey(context.Background(), []string{"magic"}); err == nil || !strings.Contains(err.Error(), "magic") {
		t.Errorf("an unknown proposal: %v", err)
	}
}

// More compilers than may run at a time wait for each other.
func TestCompilersWait(t *testing.T) {
	n := newNode(t)
	n.close()
	n.cfg.Compilers = 1
	n.cfg.CompileCgroup = n.parent
	n.open()
	var wg sync.WaitGroup
	for range 4 {
		in, out := n.files(hostile(10))
		wg.Go(func() {
			if err := n.sup.Compile(context.Background(), in, out, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A compiler outlives a daemon that is killed. The next daemon ends it and
// removes its cgroup, and leaves those of a daemon that lives alone.
func TestStrayCompilers(t *testing.T) {
	n := newNode(t)
	n.close()
	n.cfg.CompileCgroup = n.parent + "/compilers"
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	group := func(pid int) *cgroup.Group {
		g, err := n.cfg.Cgroups.Create(fmt.Sprintf("%s/compile-%d-7", n.cfg.CompileCgroup, pid), &specs.LinuxResources{})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	stray, living := group(dead.Process.Pid), group(os.Getppid())
	left, others := sleeper(t, stray), sleeper(t, living)
	n.open()
	if err := left.Wait(); err == nil || left.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the compiler of a dead daemon: %v", left.ProcessState)
	}
	names, err := n.cfg.Cgroups.Open(n.cfg.CompileCgroup).Children()
	if want := []string{filepath.Base(living.Path())}; err != nil || !slices.Equal(names, want) {
		t.Errorf("cgroups left: %q, %v; want %q", names, err, want)
	}
	if pids, err := living.Pids(); err != nil || !slices.Contains(pids, others.Process.Pid) {
		t.Errorf("the compiler of a daemon that lives: %v, %v", pids, err)
	}
	if err := living.Kill(); err != nil {
		t.Error(err)
	}
	_ = others.Wait() // killed
}

// sleeper starts a process that sleeps in a group.
func sleeper(t *testing.T, g *cgroup.Group) *exec.Cmd {
	t.Helper()
	tasks, born, err := g.Join()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "600")
	if born != nil {
		defer born.Close()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(born.Fd())}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range tasks {
		if _, err := f.WriteString(strconv.Itoa(cmd.Process.Pid)); err != nil {
			t.Error(err)
		}
		f.Close()
	}
	return cmd
}
