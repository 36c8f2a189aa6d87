package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

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
