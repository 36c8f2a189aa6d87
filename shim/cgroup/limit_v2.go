package cgroup

import (
	"path/filepath"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// updateV2 sets limits on the container's group, not on its leaf: they hold
// for all leaves together.
func (g *Group) updateV2(r *specs.LinuxResources) error {
	if r.Memory != nil {
		if err := g.memoryV2(r.Memory); err != nil {
			return err
		}
	}
	if r.CPU != nil {
		if err := g.cpuV2(r.CPU); err != nil {
			return err
		}
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		if err := g.setV2("pids.max", limit(*r.Pids.Limit, true)); err != nil {
			return err
		}
	}
	unified := make([]string, 0, len(r.Unified))
	for key := range r.Unified {
		unified = append(unified, key)
	}
	slices.Sort(unified)
	for _, key := range unified {
		if err := g.setV2(key, r.Unified[key]); err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) setV2(file, value string) error {
	return write(filepath.Join(g.dirV2(), file), value)
}

func (g *Group) memoryV2(m *specs.LinuxMemory) error {
	if err := g.checkUsage(m); err != nil {
		return err
	}
	if m.Swap != nil && *m.Swap != 0 {
		n, err := swapV2(m)
		if err != nil {
			return err
		}
		if err := g.setV2("memory.swap.max", n); err != nil {
			return err
		}
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		if err := g.setV2("memory.low", limit(*m.Reservation, true)); err != nil {
			return err
		}
	}
	if m.Limit != nil && *m.Limit != 0 {
		return g.setV2("memory.max", limit(*m.Limit, true))
	}
	return nil
}

// swapV2 turns a limit of memory and swap together into one of swap alone.
func swapV2(m *specs.LinuxMemory) (string, error) {
	if *m.Swap < 0 {
		return "max", nil
	}
	if m.Limit == nil || *m.Limit <= 0 || *m.Limit > *m.Swap {
		return "", &swapError{}
	}
	return strconv.FormatInt(*m.Swap-*m.Limit, 10), nil
}

// swapError is ErrLimit for a swap limit that says nothing without, or
// contradicts, the memory limit.
type swapError struct{}

func (*swapError) Error() string {
	return ErrLimit.Error() + ": the limit of memory and swap must be at least the limit of memory, which has to be set too"
}
func (*swapError) Unwrap() error { return ErrLimit }

// defaultPeriod is the kernel's CPU period, in microseconds.
const defaultPeriod = 100000

func (g *Group) cpuV2(c *specs.LinuxCPU) error {
	if c.Shares != nil && *c.Shares != 0 {
		if err := g.setV2("cpu.weight", strconv.FormatUint(weight(*c.Shares), 10)); err != nil {
			return err
		}
	}
	quota, period := c.Quota != nil && *c.Quota != 0, c.Period != nil && *c.Period != 0
	if !quota && !period {
		return nil
	}
	old, err := fields(filepath.Join(g.dirV2(), "cpu.max"))
	if err != nil {
		return err
	}
	q, p := "max", strconv.Itoa(defaultPeriod)
	if len(old) == 2 {
		q, p = old[0], old[1]
	}
	if quota {
		q = limit(*c.Quota, true)
	}
	if period {
		p = strconv.FormatUint(*c.Period, 10)
	}
	return g.setV2("cpu.max", q+" "+p)
}
