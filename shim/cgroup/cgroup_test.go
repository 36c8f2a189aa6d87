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
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
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

func TestLimits(t *testing.T) {
	h := hierarchy(t)
	t.Logf("version %d, missing: %v", h.Version(), h.Missing())
	path := scratch(t, h)
	g, err := h.Create(path, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(64 << 20))},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(20000)), Period: ptr(uint64(50000))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(100))},
	})
	if err != nil {
		t.Fatal(err)
	}
	mem := g.file("memory", "memory.limit_in_bytes", "memory.max")
	wantFile(t, mem, "67108864")
	if h.swap {
		wantFile(t, g.file("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"), either(h, "67108864", "0"))
	}
	wantFile(t, g.file("cpu", "cpu.shares", "cpu.weight"), either(h, "512", "59"))
	quota := g.file("cpu", "cpu.cfs_quota_us", "cpu.max")
	wantFile(t, quota, either(h, "20000", "20000 50000"))
	wantFile(t, g.file("pids", "pids.max", "pids.max"), "100")

	// Up and down, memory and swap together, in whatever order it takes.
	for _, n := range []int64{128 << 20, 32 << 20, 256 << 20} {
		r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &n, Swap: &n}}
		if err := g.Update(r); err != nil {
			t.Error(err)
		}
		wantFile(t, mem, fmt.Sprint(n))
	}
	// What is not named stays.
	if err := g.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(10000))}}); err != nil {
		t.Error(err)
	}
	wantFile(t, quota, either(h, "10000", "10000 50000"))
	wantFile(t, mem, "268435456")
	// A period and a quota that only go together.
	if err := g.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(100000)), Period: ptr(uint64(1000000))}}); err != nil {
		t.Error(err)
	}
	if err := g.LiftCPU(); err != nil {
		t.Error(err)
	}
	wantFile(t, quota, either(h, "-1", "max 1000000"))
	if err := g.Update(&specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(-1)), Swap: ptr(int64(-1))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(-1))},
	}); err != nil {
		t.Error(err)
	}
	if s, err := g.Stats(); err != nil || s.MemoryLimit != 0 {
		t.Errorf("limit %d, %v", s.MemoryLimit, err)
	}
	wantFile(t, g.file("pids", "pids.max", "pids.max"), "max")
	// Again: idempotent.
	if _, err := h.Create(path, nil); err != nil {
		t.Error(err)
	}
}

func TestRefusedLimitsLeaveNothing(t *testing.T) {
	h := hierarchy(t)
	path := scratch(t, h)
	_, err := h.Create(path, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(1))}})
	if !errors.Is(err, ErrLimit) {
		t.Errorf("a quota of 1 us: %v", err)
	}
	for _, d := range h.Open(filepath.Dir(filepath.Dir(path))).dirs() {
		if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left", d)
		}
	}
	if _, err := h.Create("/../escape", nil); !errors.Is(err, ErrPath) {
		t.Error(err)
	}
}

func TestMembershipAndStats(t *testing.T) {
	h := hierarchy(t)
	g, err := h.Create(scratch(t, h), nil)
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, g, "spin")
	pids, err := g.Pids()
	if err != nil || !slices.Equal(pids, []int{p.cmd.Process.Pid}) {
		t.Errorf("Pids = %v, %v, want %d", pids, err, p.cmd.Process.Pid)
	}
	membership, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(membership), g.Path()); n != len(g.dirs()) {
		t.Errorf("it is in %s", membership)
	}
	before, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	p.goOn(t)
	p.expect(t, "done\n")
	after, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if used := after.CPUNanoseconds - before.CPUNanoseconds; used < 20e6 || used > 10e9 {
		t.Errorf("%d ns of CPU, 30 ms were burnt", used)
	}
	if !after.At.After(before.At) || after.MemoryUsage == 0 || after.MemoryRSS == 0 || after.PageFaults == 0 ||
		after.MemoryWorkingSet == 0 || after.MemoryWorkingSet > after.MemoryUsage || after.Pids == 0 {
		t.Errorf("%+v", after)
	}
	t.Logf("%+v", after)
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	if pids, err := g.Pids(); err != nil || len(pids) != 0 {
		t.Errorf("after Kill: %v, %v", pids, err)
	}
	p.cmd.Wait()
	if s := p.cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v", p.cmd.ProcessState)
	}
	if n, err := g.OOMKills(); err != nil || n != 0 {
		t.Errorf("OOMKills = %d, %v", n, err)
	}
	if err := g.Remove(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestOOM(t *testing.T) {
	h := hierarchy(t)
	limit := int64(24 << 20)
	g, err := h.Create(scratch(t, h), &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}})
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, g, "hog")
	p.goOn(t)
	if err := p.cmd.Wait(); err == nil {
		t.Error("it outlived its memory")
	}
	if s := p.cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v", p.cmd.ProcessState)
	}
	if n, err := g.OOMKills(); err != nil || n != 1 {
		t.Errorf("OOMKills = %d, %v", n, err)
	}
	if s, err := g.Stats(); err != nil || s.MemoryLimit != uint64(limit) {
		t.Errorf("%+v, %v", s, err)
	}
	if err := g.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(4096)), CheckBeforeUpdate: ptr(true)}}); err != nil &&
		!errors.Is(err, ErrLimit) {
		t.Error(err)
	}
}

func TestPidsLimit(t *testing.T) {
	h := hierarchy(t)
	g, err := h.Create(scratch(t, h), &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(30))}})
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, g, "forks")
	p.goOn(t)
	p.expect(t, "refused\n")
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	if err := g.Remove(context.Background()); err != nil {
		t.Error(err)
	}
}

// Remove waits for what is on its way out, and is bounded by its context.
func TestRemoveWaits(t *testing.T) {
	h := hierarchy(t)
	g, err := h.Create(scratch(t, h), nil)
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, g, "wait")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := g.Remove(ctx); !errors.Is(err, ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Remove of a group in use: %v", err)
	}
	done := make(chan error)
	go func() { done <- g.Remove(context.Background()) }()
	p.in.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := g.Remove(context.Background()); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := g.Kill(); err != nil {
		t.Errorf("Kill of a group that is gone: %v", err)
	}
	if _, err := g.Stats(); !errors.Is(err, ErrNotFound) {
		t.Errorf("Stats of a group that is gone: %v", err)
	}
	if _, err := g.OOMKills(); !errors.Is(err, ErrNotFound) {
		t.Errorf("OOMKills of a group that is gone: %v", err)
	}
	if _, _, err := g.Join(); !errors.Is(err, ErrNotFound) {
		t.Errorf("Join of a group that is gone: %v", err)
	}
}

// Containers of a pod are made at the same time.
func TestRaces(t *testing.T) {
	h := hierarchy(t)
	path := scratch(t, h)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			g, err := h.Create(fmt.Sprintf("%s/c%d", filepath.Dir(path), i), &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(5))}})
			if err != nil {
				t.Error(err)
				return
			}
			if err := g.Remove(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A parent's quota holds back a stop too: on version 1 the process leaves it.
func TestLiftLeavesLimitedParents(t *testing.T) {
	h := hierarchy(t)
	path := scratch(t, h)
	if h.v2 {
		t.Skip("needs cgroup version 1")
	}
	pod, err := h.Create(filepath.Dir(path), &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(2000)), Period: ptr(uint64(100000))}})
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.Create(path, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(1000)), Period: ptr(uint64(100000))}})
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, g, "spin")
	begin := time.Now()
	if err := g.LiftCPU(); err != nil {
		t.Fatal(err)
	}
	p.goOn(t)
	p.expect(t, "done\n")
	// 30 ms of CPU would take 1.5 s under the parent's 2 %.
	if took := time.Since(begin); took > 750*time.Millisecond {
		t.Errorf("lifted, it took %v", took)
	}
	wantFile(t, filepath.Join(pod.dir("cpu"), "cpu.cfs_quota_us"), "2000")
	if pids, err := g.Pids(); err != nil || len(pids) != 1 {
		t.Errorf("Pids = %v, %v", pids, err)
	}
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
}

func TestDetect(t *testing.T) {
	if _, err := Detect("/nonexistent"); !errors.Is(err, ErrUnsupported) {
		t.Errorf("no such folder: %v", err)
	}
	if _, err := Detect(t.TempDir()); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "memory, cpu, cpuacct, pids") {
		t.Errorf("an empty folder: %v", err)
	}
	hybrid := filepath.Join(Root, "unified")
	if _, err := os.Stat(hybrid); err != nil {
		t.Skip("needs a version 2 mount without controllers")
	}
	if _, err := Detect(hybrid); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "no controller memory, cpu, pids") {
		t.Errorf("a version 2 without controllers: %v", err)
	}
}

func BenchmarkCreateRemove(b *testing.B) {
	h := hierarchy(b)
	path := scratch(b, h)
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(20000)), Period: ptr(uint64(100000))},
	}
	for b.Loop() {
		g, err := h.Create(path, r)
		if err != nil {
			b.Fatal(err)
		}
		if err := g.Remove(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStats(b *testing.B) {
	h := hierarchy(b)
	g, err := h.Create(scratch(b, h), nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := g.Stats(); err != nil {
			b.Fatal(err)
		}
	}
}
