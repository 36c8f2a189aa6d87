package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// Stats reads what the group used.
func (g *Group) Stats() (Stats, error) {
	read := g.statsV1
	if g.h.v2 {
		read = g.statsV2
	}
	s, err := read()
	if err != nil {
		return Stats{}, fmt.Errorf("measure cgroup %s: %w", g.path, err)
	}
	s.At = time.Now()
	return s, nil
}

func (g *Group) statsV1() (Stats, error) {
	var s Stats
	mem := g.dir("memory")
	stat, err := table(filepath.Join(mem, "memory.stat"))
	if err != nil {
		return s, err
	}
	s.MemoryRSS, s.SwapUsage = stat["total_rss"], stat["total_swap"]
	s.PageFaults, s.MajorPageFaults = stat["total_pgfault"], stat["total_pgmajfault"]
	if l := stat["hierarchical_memory_limit"]; l < unlimited {
		s.MemoryLimit = l
	}
	err = numbers(map[string]*uint64{
		filepath.Join(mem, "memory.usage_in_bytes"):      &s.MemoryUsage,
		filepath.Join(g.dir("cpuacct"), "cpuacct.usage"): &s.CPUNanoseconds,
		filepath.Join(g.dir("pids"), "pids.current"):     &s.Pids,
	})
	s.MemoryWorkingSet = less(s.MemoryUsage, stat["total_inactive_file"])
	return s, err
}

func (g *Group) statsV2() (Stats, error) {
	var s Stats
	dir := g.dirV2()
	stat, err := table(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return s, err
	}
	cpu, err := table(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return s, err
	}
	s.CPUNanoseconds = cpu["usage_usec"] * 1000
	s.MemoryRSS, s.PageFaults, s.MajorPageFaults = stat["anon"], stat["pgfault"], stat["pgmajfault"]
	err = numbers(map[string]*uint64{
		filepath.Join(dir, "memory.current"): &s.MemoryUsage,
		filepath.Join(dir, "memory.max"):     &s.MemoryLimit,
		filepath.Join(dir, "pids.current"):   &s.Pids,
	})
	if err != nil {
		return s, err
	}
	// A kernel without swap has no such file.
	s.SwapUsage, err = number(filepath.Join(dir, "memory.swap.current"))
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	s.MemoryWorkingSet = less(s.MemoryUsage, stat["inactive_file"])
	return s, err
}

func numbers(files map[string]*uint64) error {
	for file, to := range files {
		n, err := number(file)
		if err != nil {
			return err
		}
		*to = n
	}
	return nil
}

func less(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}

// OOMKills returns how many processes of the group the kernel ended for
// memory. It can be asked as long as the group exists, also when it is empty.
func (g *Group) OOMKills() (uint64, error) {
	file := filepath.Join(g.dirV2(), "memory.events")
	if !g.h.v2 {
		file = filepath.Join(g.dir("memory"), "memory.oom_control")
	}
	t, err := table(file)
	if err != nil {
		return 0, fmt.Errorf("count OOM kills of cgroup %s: %w", g.path, err)
	}
	return t["oom_kill"], nil
}
