package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

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
