package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LiftCPU takes the CPU quota off, so that a process that is being stopped can
// do so at once: under a tight quota it would wait for its next period. On
// version 1 the processes also leave parents that have a quota, which their
// siblings keep; what they use from then on is still counted as the group's
// (cpuacct). On version 2, where CPU and memory go together, a parent's quota
// remains.
func (g *Group) LiftCPU() error {
	if err := g.liftCPU(); err != nil {
		return fmt.Errorf("lift CPU quota of cgroup %s: %w", g.path, err)
	}
	return nil
}

func (g *Group) liftCPU() error {
	if g.h.v2 {
		return g.setV2("cpu.max", "max")
	}
	if err := write(filepath.Join(g.dir("cpu"), "cpu.cfs_quota_us"), "-1"); err != nil {
		return err
	}
	parent, err := g.limitedParentV1()
	if err != nil || parent == "" || g.h.dirs["cpu"] == g.h.dirs["cpuacct"] {
		return err
	}
	pids, err := g.Pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		err := write(filepath.Join(filepath.Dir(parent), "cgroup.procs"), strconv.Itoa(pid))
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// limitedParentV1 returns the topmost parent with a CPU quota, or "".
func (g *Group) limitedParentV1() (string, error) {
	top := g.h.dirs["cpu"]
	parts := strings.Split(g.path[1:], "/")
	for _, part := range parts[:len(parts)-1] {
		top = filepath.Join(top, part)
		quota, err := number(filepath.Join(top, "cpu.cfs_quota_us"))
		if err != nil {
			return "", err
		}
		if quota != 0 {
			return top, nil
		}
	}
	return "", nil
}
