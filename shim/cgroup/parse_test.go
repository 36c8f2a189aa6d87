package cgroup

import (
	"errors"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

func TestWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{
		0: 1, 2: 1, 102: 17, 512: 59, 1024: 100, 2048: 174, 262144: 10000, 1 << 40: 10000,
	} {
		if got := weight(shares); got != want {
			t.Errorf("weight(%d) = %d, want %d", shares, got, want)
		}
	}
	last := uint64(0)
	for s := uint64(2); s <= maxShares; s += 97 {
		w := weight(s)
		if w < last || w < minWeight || w > maxWeight {
			t.Fatalf("weight(%d) = %d after %d", s, w, last)
		}
		last = w
	}
}

func TestCheckPath(t *testing.T) {
	for _, p := range []string{"/kubepods/burstable/pod1/c", "a", "/a//b/"} {
		if err := checkPath(p); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
	for _, p := range []string{"", "/", "//", "/..", "a/../../b", "./a", "/a/./b", "a\x00b", strings.Repeat("a", maxPath+1),
		"kubepods-burstable.slice:cri:abc"} {
		if err := checkPath(p); !errors.Is(err, ErrPath) {
			t.Errorf("%q: %v", p, err)
		}
	}
}

func TestParseNumber(t *testing.T) {
	for s, want := range map[string]uint64{"0": 0, "17": 17, "max": 0, "-1": 0, "9223372036854771712": 0} {
		if got, err := parseNumber(s); err != nil || got != want {
			t.Errorf("%q = %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "x", "1 2", "-2", "18446744073709551616"} {
		if _, err := parseNumber(s); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("anon 4096\nfile 0\n\nbad\nx y z\nn -1\n")
	f.Add("max")
	f.Fuzz(func(t *testing.T, s string) {
		for k := range parseTable(s) {
			if strings.ContainsAny(k, "\n ") {
				t.Errorf("key %q", k)
			}
		}
		if n, err := parseNumber(s); err == nil && n >= unlimited {
			t.Errorf("%q = %d", s, n)
		}
	})
}

func TestRefusals(t *testing.T) {
	v1, v2 := &Hierarchy{}, &Hierarchy{v2: true, swap: true}
	for name, c := range map[string]struct {
		h *Hierarchy
		r specs.LinuxResources
	}{
		"blockIO":             {v2, specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(10))}}},
		"network":             {v1, specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr(uint32(1))}}},
		"rdma":                {v2, specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx": {}}}},
		"cpuset":              {v2, specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}}},
		"realtimePeriod":      {v1, specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimePeriod: ptr(uint64(1))}}},
		"burst":               {v2, specs.LinuxResources{CPU: &specs.LinuxCPU{Burst: ptr(uint64(1))}}},
		"idle":                {v2, specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr(int64(1))}}},
		"disableOOMKiller":    {v1, specs.LinuxResources{Memory: &specs.LinuxMemory{DisableOOMKiller: ptr(true)}}},
		"memory.swap":         {v1, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(1)), Swap: ptr(int64(2))}}},
		"unified (cgroup":     {v1, specs.LinuxResources{Unified: map[string]string{"memory.high": "1"}}},
		"unified key \"io.":   {v2, specs.LinuxResources{Unified: map[string]string{"io.weight": "1"}}},
		"unified key \"cgrou": {v2, specs.LinuxResources{Unified: map[string]string{"cgroup.procs": "1"}}},
		"unified key \"../":   {v2, specs.LinuxResources{Unified: map[string]string{"../memory.max": "1"}}},
	} {
		if err := c.h.refuse(&c.r); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ok := specs.LinuxResources{
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 0}},
		Devices:        []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
		BlockIO:        &specs.LinuxBlockIO{}, Network: &specs.LinuxNetwork{},
		Memory: &specs.LinuxMemory{Limit: ptr(int64(1 << 20)), Swap: ptr(int64(1 << 20)), DisableOOMKiller: ptr(false)},
		CPU:    &specs.LinuxCPU{Burst: ptr(uint64(0)), RealtimeRuntime: ptr(int64(0))},
	}
	for _, h := range []*Hierarchy{v1, v2} {
		if err := h.refuse(&ok); err != nil {
			t.Error(err)
		}
	}
}

func TestSwapV2(t *testing.T) {
	for _, c := range []struct {
		limit *int64
		swap  int64
		want  string
	}{
		{ptr(int64(100)), 100, "0"}, {ptr(int64(100)), 150, "50"}, {nil, -1, "max"},
		{nil, 100, ""}, {ptr(int64(200)), 100, ""}, {ptr(int64(-1)), 100, ""},
	} {
		got, err := swapV2(&specs.LinuxMemory{Limit: c.limit, Swap: &c.swap})
		if got != c.want || (c.want == "") != errors.Is(err, ErrLimit) {
			t.Errorf("%v, %d = %q, %v, want %q", c.limit, c.swap, got, err, c.want)
		}
	}
}

func TestRises(t *testing.T) {
	for _, c := range []struct {
		old  uint64
		n    int64
		want bool
	}{{0, 5, false}, {0, -1, false}, {5, 6, true}, {5, 5, false}, {5, 4, false}, {5, -1, true}} {
		if got := rises(c.old, c.n); got != c.want {
			t.Errorf("rises(%d, %d) = %v", c.old, c.n, got)
		}
	}
}
