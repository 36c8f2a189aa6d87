package cgroup

import (
	"errors"
	"fmt"
)

// LiftCPU takes the CPU quota off, so that a process that is being stopped can
// do so at once: under a tight quota it would wait for its next period. A
// parent's quota would hold it back as well, and what is done about that
// depends on the version:
//
// On version 1 the processes leave parents that have a quota, which their
// siblings keep; what they use from then on is still counted as the group's
// (cpuacct).
//
// On version 2, where CPU and memory go together, they stay. The pod's group,
// which is the parent, is given one CPU more until RestoreCPU or Remove. Quotas
// further up are the node's bounds on all its pods and remain.
func (g *Group) LiftCPU() error {
	lift := g.liftV1
	if g.h.v2 {
		lift = g.liftV2
	}
	if err := lift(); err != nil {
		return fmt.Errorf("lift CPU quota of cgroup %s: %w", g.path, err)
	}
	return nil
}

// RestoreCPU takes back from the pod what LiftCPU gave it for this group,
// once the group's processes are gone. Without a LiftCPU it does nothing, and
// it may be repeated.
func (g *Group) RestoreCPU() error {
	if !g.h.v2 {
		return nil
	}
	err := g.restoreV2()
	if err == nil || errors.Is(gone(err), ErrNotFound) {
		return nil
	}
	return fmt.Errorf("restore CPU quota above cgroup %s: %w", g.path, err)
}
