package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/limpet-cri/limpet/test/node"
)

// memory measures memory_per_idle_pod: the proportional set size of every
// process that came with the pods, and the daemon's own growth.
func (b *bench) memory(ctx context.Context) (result, error) {
	var per [2]float64
	for k, s := range b.sides {
		v, err := b.idleMemory(ctx, s)
		if err != nil {
			return result{}, err
		}
		per[k] = v
	}
	return compare("memory_per_idle_pod", "KiB", per[:1], per[1:]), nil
}

func (b *bench) idleMemory(ctx context.Context, s *side) (float64, error) {
	before := pss(s.daemon)
	pods, _, err := b.many(ctx, s, b.idle, 4)
	if err == nil {
		select {
		case <-time.After(b.settle):
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	total := pss(s.daemon) - before
	for pid := range belonging(s.daemon, pods) {
		total += pss(pid)
	}
	if err = errors.Join(err, b.remove(ctx, s, pods)); err != nil {
		return 0, err
	}
	return float64(total) / float64(b.idle), nil
}

// pss is a process's proportional set size in KiB; zero if it is gone.
func pss(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	for _, l := range strings.Split(string(b), "\n") {
		if f := strings.Fields(l); len(f) > 1 && f[0] == "Pss:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}

// belonging finds the processes of the pods: those that descend from the
// daemon or name a pod or a container in their command line or cgroup, and
// what descends from those. The daemon itself is not among them.
func belonging(daemon int, pods []*node.Pod) map[int]bool {
	parent := parents()
	mine := map[int]bool{}
	for pid := range parent {
		if pid != daemon && (names(pid, pods) || descends(pid, daemon, parent)) {
			mine[pid] = true
		}
	}
	for pid := range parent {
		for p := parent[pid]; p > 1 && pid != daemon; p = parent[p] {
			if mine[p] {
				mine[pid] = true
				break
			}
		}
	}
	return mine
}

func descends(pid, from int, parent map[int]int) bool {
	for p := parent[pid]; p > 1; p = parent[p] {
		if p == from {
			return true
		}
	}
	return false
}

func names(pid int, pods []*node.Pod) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	groups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	text = append(text, groups...)
	for _, p := range pods {
		if p != nil && (bytes.Contains(text, []byte(p.Sandbox)) || bytes.Contains(text, []byte(p.Container))) {
			return true
		}
	}
	return false
}

// parents maps every process to its parent.
func parents() map[int]int {
	m := map[int]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		b, err := os.ReadFile(d + "/stat")
		if err != nil {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(d))
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) > 1 {
			m[pid], _ = strconv.Atoi(f[1])
		}
	}
	return m
}
