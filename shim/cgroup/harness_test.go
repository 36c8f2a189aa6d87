package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childEnv tells the test binary to be a child that does what its name says.
const childEnv = "LIMPET_CGROUP_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		child(what)
		return
	}
	os.Exit(m.Run())
}

// child says that it runs, waits for a line, and then does its part.
func child(what string) {
	fmt.Println("in")
	in := bufio.NewReader(os.Stdin)
	_, _ = in.ReadString('\n') // "go", or the end
	switch what {
	case "hog":
		for {
			b, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
			if err != nil {
				os.Exit(1)
			}
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
		}
	case "spin":
		cpu := func() (ts unix.Timespec) {
			if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
				os.Exit(1)
			}
			return ts
		}
		begin, end := cpu(), cpu()
		for end.Nano()-begin.Nano() < int64(30*time.Millisecond) {
			end = cpu()
		}
	case "forks":
		for range 64 {
			c := exec.Command("/proc/self/exe")
			c.Env = []string{childEnv + "=wait"}
			stdin, err := c.StdinPipe()
			if err == nil {
				err = c.Start()
			}
			if err != nil {
				fmt.Println("refused")
				os.Exit(0)
			}
			defer stdin.Close()
		}
	}
	fmt.Println("done")
	_, _ = in.ReadString('\n')
}

// process is a child in a group.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(t *testing.T, g *Group, what string) *process {
	t.Helper()
	tasks, v2, err := g.Join()
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The shell joins as the constructor of a host does: with one thread.
	script := ""
	for i := range tasks {
		script += fmt.Sprintf("echo 0 >&%d || exit 9; ", 3+i)
	}
	c := exec.Command("/bin/sh", "-c", script+`exec "$0"`, exe)
	c.Env = []string{childEnv + "=" + what, "GOMAXPROCS=1"}
	c.ExtraFiles = tasks
	c.SysProcAttr = &syscall.SysProcAttr{}
	if v2 != nil {
		c.SysProcAttr.UseCgroupFD, c.SysProcAttr.CgroupFD = true, int(v2.Fd())
		defer v2.Close()
	}
	p := &process{cmd: c}
	if p.in, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range tasks {
		f.Close()
	}
	t.Cleanup(func() { p.in.Close(); c.Process.Kill(); c.Wait() })
	p.expect(t, "in\n")
	return p
}

func (p *process) expect(t *testing.T, want string) {
	t.Helper()
	if line, err := p.out.ReadString('\n'); line != want {
		t.Fatalf("the child said %q (%v), want %q", line, err, want)
	}
}

func (p *process) goOn(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(p.in, "go\n"); err != nil {
		t.Fatal(err)
	}
}

func hierarchy(t testing.TB) *Hierarchy {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	h, err := Detect(Root)
	if errors.Is(err, ErrUnsupported) {
		t.Skipf("needs the cgroup controllers: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// scratch returns a path below a parent of this test's own, which must be gone
// in the end.
func scratch(t testing.TB, h *Hierarchy) string {
	t.Helper()
	parent := fmt.Sprintf("/limpet-test-%d", os.Getpid())
	t.Cleanup(func() {
		if err := h.Open(parent).Remove(context.Background()); err != nil {
			t.Error(err)
		}
		for _, d := range h.Open(parent).dirs() {
			if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is left: %v", d, err)
			}
		}
	})
	return parent + "/pod/container"
}

// file returns a limit's file, by the names of both versions.
func (g *Group) file(controller, v1, v2 string) string {
	if g.h.v2 {
		return filepath.Join(g.dirV2(), v2)
	}
	return filepath.Join(g.dir(controller), v1)
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	if got, err := read(path); err != nil || got != want {
		t.Errorf("%s = %q, %v, want %q", path, got, err, want)
	}
}

func either[T any](h *Hierarchy, v1, v2 T) T {
	if h.v2 {
		return v2
	}
	return v1
}
