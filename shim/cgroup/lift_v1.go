package cgroup

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func (g *Group) liftV1() error {
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
