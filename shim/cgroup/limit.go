package cgroup

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Update sets the limits that r names and leaves the others alone. What this
// node cannot enforce is refused by name. Hugepage limits and device rules are
// passed over: a host has no hugetlbfs mounted, maps no hugetlb page and
// cannot open a device.
func (g *Group) Update(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	if err := g.h.refuse(r); err != nil {
		return err
	}
	if g.h.v2 {
		return g.updateV2(r)
	}
	return g.updateV1(r)
}

// refuse names the first resource of r that hosts cannot be given here.
func (h *Hierarchy) refuse(r *specs.LinuxResources) error {
	for what, set := range map[string]bool{
		"blockIO": r.BlockIO != nil && !emptyBlockIO(r.BlockIO),
		"network": r.Network != nil && (r.Network.ClassID != nil || len(r.Network.Priorities) > 0),
		"rdma":    len(r.Rdma) > 0,
		"cpu.cpus and cpu.mems (cpuset)": r.CPU != nil &&
			(r.CPU.Cpus != "" || r.CPU.Mems != ""),
		"cpu.realtimeRuntime and cpu.realtimePeriod": r.CPU != nil &&
			(nonzero(r.CPU.RealtimeRuntime) || nonzero(r.CPU.RealtimePeriod)),
		"cpu.burst":               r.CPU != nil && nonzero(r.CPU.Burst),
		"cpu.idle":                r.CPU != nil && nonzero(r.CPU.Idle),
		"memory.disableOOMKiller": r.Memory != nil && r.Memory.DisableOOMKiller != nil && *r.Memory.DisableOOMKiller,
		"memory.swap (boot with swapaccount=1)": r.Memory != nil &&
			r.Memory.Swap != nil && *r.Memory.Swap > 0 && !h.swap && swapMatters(r.Memory),
		"unified (cgroup version 2)": len(r.Unified) > 0 && !h.v2,
	} {
		if set {
			return fmt.Errorf("%w: resource %s", ErrUnsupported, what)
		}
	}
	for key := range r.Unified {
		if !slices.Contains(unifiedKeys, key) {
			return fmt.Errorf("%w: unified key %q; possible are %s", ErrUnsupported, key, strings.Join(unifiedKeys, " "))
		}
	}
	return nil
}

// unifiedKeys are the version 2 files that a request may name. They concern
// one group only and the controllers that are enabled here.
var unifiedKeys = []string{
	"cpu.idle", "cpu.max", "cpu.max.burst", "cpu.weight", "cpu.weight.nice",
	"memory.high", "memory.low", "memory.max", "memory.min", "memory.oom.group",
	"memory.swap.high", "memory.swap.max", "pids.max",
}

// swapMatters reports whether m allows swap: a limit for memory and swap that
// equals the one for memory forbids it, which a node that cannot count swap
// gets as near as it can.
func swapMatters(m *specs.LinuxMemory) bool { return m.Limit == nil || *m.Swap != *m.Limit }

func emptyBlockIO(b *specs.LinuxBlockIO) bool {
	return b.Weight == nil && b.LeafWeight == nil && len(b.WeightDevice) == 0 &&
		len(b.ThrottleReadBpsDevice) == 0 && len(b.ThrottleWriteBpsDevice) == 0 &&
		len(b.ThrottleReadIOPSDevice) == 0 && len(b.ThrottleWriteIOPSDevice) == 0
}

func nonzero[T int64 | uint64](p *T) bool { return p != nil && *p != 0 }

// checkUsage refuses a memory limit below what is in use, where the request
// asks for that instead of an OOM kill. Pages of files that the kernel can drop
// at once do not count: it drops them to meet the limit.
func (g *Group) checkUsage(m *specs.LinuxMemory) error {
	if m.CheckBeforeUpdate == nil || !*m.CheckBeforeUpdate || m.Limit == nil || *m.Limit <= 0 {
		return nil
	}
	s, err := g.Stats()
	if err != nil {
		return err
	}
	if uint64(*m.Limit) < s.MemoryWorkingSet {
		return fmt.Errorf("%w: memory limit %d is below the %d bytes in use", ErrLimit, *m.Limit, s.MemoryWorkingSet)
	}
	return nil
}

// limit spells a limit: -1 (and on version 2 "max") for none.
func limit(n int64, v2 bool) string {
	switch {
	case n > 0:
		return strconv.FormatInt(n, 10)
	case v2:
		return "max"
	}
	return "-1"
}

// The range of CPU shares, and of the weights that version 2 has instead.
const (
	minShares, maxShares = 2, 1 << 18
	minWeight, maxWeight = 1, 10000
)

// weight turns CPU shares (2 to 262144, default 1024) into a weight (1 to
// 10000, default 100) by the curve through those three points that the
// kubelet uses for its own groups, so that siblings stay in proportion.
func weight(shares uint64) uint64 {
	switch {
	case shares <= minShares:
		return minWeight
	case shares >= maxShares:
		return maxWeight
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}
