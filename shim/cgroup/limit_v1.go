package cgroup

import (
	"errors"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func (g *Group) updateV1(r *specs.LinuxResources) error {
	if r.Memory != nil {
		if err := g.memoryV1(r.Memory); err != nil {
			return err
		}
	}
	if r.CPU != nil {
		if err := g.cpuV1(r.CPU); err != nil {
			return err
		}
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		return write(filepath.Join(g.dir("pids"), "pids.max"), limit(*r.Pids.Limit, true))
	}
	return nil
}

func (g *Group) memoryV1(m *specs.LinuxMemory) error {
	if err := g.checkUsage(m); err != nil {
		return err
	}
	dir := g.dir("memory")
	if err := g.memoryAndSwapV1(m); err != nil {
		return err
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		if err := write(filepath.Join(dir, "memory.soft_limit_in_bytes"), limit(*m.Reservation, false)); err != nil {
			return err
		}
	}
	if m.Swappiness != nil {
		return write(filepath.Join(dir, "memory.swappiness"), strconv.FormatUint(*m.Swappiness, 10))
	}
	return nil
}

// memoryAndSwapV1 sets the limit of memory and that of memory and swap. The
// kernel demands at every moment that the first is not above the second: so
// the second goes first when it rises, else the first.
func (g *Group) memoryAndSwapV1(m *specs.LinuxMemory) error {
	dir := g.dir("memory")
	set := func(file string, n *int64) error {
		if n == nil || *n == 0 {
			return nil
		}
		return write(filepath.Join(dir, file), limit(*n, false))
	}
	const mem, swap = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	if !g.h.swap || m.Swap == nil || *m.Swap == 0 {
		return set(mem, m.Limit)
	}
	old, err := number(filepath.Join(dir, swap))
	if err != nil {
		return err
	}
	if rises(old, *m.Swap) {
		if err := set(swap, m.Swap); err != nil {
			return err
		}
		return set(mem, m.Limit)
	}
	if err := set(mem, m.Limit); err != nil {
		return err
	}
	return set(swap, m.Swap)
}

// rises reports whether a limit goes up from old (0: none) to n (-1: none).
func rises(old uint64, n int64) bool {
	if old == 0 {
		return false
	}
	return n < 0 || uint64(n) > old
}

func (g *Group) cpuV1(c *specs.LinuxCPU) error {
	dir := g.dir("cpu")
	if c.Shares != nil && *c.Shares != 0 {
		n := min(max(*c.Shares, minShares), maxShares)
		if err := write(filepath.Join(dir, "cpu.shares"), strconv.FormatUint(n, 10)); err != nil {
			return err
		}
	}
	period := func() error {
		if c.Period == nil || *c.Period == 0 {
			return nil
		}
		return write(filepath.Join(dir, "cpu.cfs_period_us"), strconv.FormatUint(*c.Period, 10))
	}
	quota := func() error {
		if c.Quota == nil || *c.Quota == 0 {
			return nil
		}
		return write(filepath.Join(dir, "cpu.cfs_quota_us"), limit(*c.Quota, false))
	}
	// A shorter period under the old quota may ask for more than the parent
	// has: then the quota has to go first.
	err := period()
	if errors.Is(err, unix.EINVAL) {
		if err := quota(); err != nil {
			return err
		}
		return period()
	}
	if err != nil {
		return err
	}
	return quota()
}
