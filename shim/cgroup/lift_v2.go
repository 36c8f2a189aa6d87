package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The pod's quota while a container of it is being stopped. One CPU more is the
// bound: a pod's quota is usually the sum of its containers', of which the
// siblings keep theirs, so that the one CPU is left for the ending host, which
// has one thread that computes. Where only the pod has a quota, siblings may
// take from it meanwhile what is fair among them.
//
// What the pod had is noted in attributes of its group, so that it is found by
// a limpetd that was restarted in between, and gone with the group:
const (
	// markQuota holds the pod's own cpu.max.
	markQuota = "trusted.limpet.cpu.max"
	// markStop and the name of a container's group: that one is being stopped.
	markStop = "trusted.limpet.stop."
	// maxMarks bounds the list of attribute names that is read.
	maxMarks = 1 << 16
)

func (g *Group) liftV2() error {
	if err := g.setV2("cpu.max", "max"); err != nil {
		return err
	}
	pod := filepath.Dir(g.dirV2())
	if pod == g.h.root {
		return nil
	}
	g.h.mu.Lock()
	defer g.h.mu.Unlock()
	own, err := read(filepath.Join(pod, "cpu.max"))
	if err != nil {
		return err
	}
	// Intent before act: from here on a restore finds what to do.
	if err := unix.Setxattr(pod, markStop+filepath.Base(g.path), nil, 0); err != nil {
		return &os.PathError{Op: "setxattr", Path: pod, Err: err}
	}
	if noted, err := mark(pod, markQuota); err != nil || noted != "" && own == oneMore(noted) {
		return err // given already, for a sibling
	}
	more := oneMore(own)
	if more == own {
		return nil
	}
	if err := unix.Setxattr(pod, markQuota, []byte(own), 0); err != nil {
		return &os.PathError{Op: "setxattr", Path: pod, Err: err}
	}
	return write(filepath.Join(pod, "cpu.max"), more)
}

// restoreV2 gives the pod its own quota when no container of it is being
// stopped any more. A quota that somebody else has set meanwhile stays.
func (g *Group) restoreV2() error {
	pod := filepath.Dir(g.dirV2())
	g.h.mu.Lock()
	defer g.h.mu.Unlock()
	err := unix.Removexattr(pod, markStop+filepath.Base(g.path))
	if errors.Is(err, unix.ENODATA) {
		return nil // nothing was given for this one
	}
	if err != nil {
		return &os.PathError{Op: "removexattr", Path: pod, Err: err}
	}
	if others, err := stopping(pod); err != nil || others {
		return err
	}
	own, err := mark(pod, markQuota)
	if err != nil || own == "" {
		return err
	}
	now, err := read(filepath.Join(pod, "cpu.max"))
	if err != nil {
		return err
	}
	if now == oneMore(own) {
		if err := write(filepath.Join(pod, "cpu.max"), own); err != nil {
			return err
		}
	}
	if err := unix.Removexattr(pod, markQuota); err != nil {
		return &os.PathError{Op: "removexattr", Path: pod, Err: err}
	}
	return nil
}

// oneMore adds a CPU, that is a period, to a quota as cpu.max spells it; no
// quota stays none.
func oneMore(max string) string {
	q, p, _ := strings.Cut(max, " ")
	quota, err1 := strconv.ParseUint(q, 10, 63)
	period, err2 := strconv.ParseUint(p, 10, 63)
	if err1 != nil || err2 != nil {
		return max
	}
	return fmt.Sprintf("%d %d", quota+period, period)
}

// mark reads an attribute of a group, "" if it has none.
func mark(dir, name string) (string, error) {
	b := make([]byte, 64)
	n, err := unix.Getxattr(dir, name, b)
	if errors.Is(err, unix.ENODATA) {
		return "", nil
	}
	if err != nil {
		return "", &os.PathError{Op: "getxattr", Path: dir, Err: err}
	}
	return string(b[:n]), nil
}

// stopping reports whether a container of the pod that still exists is marked
// as being stopped.
func stopping(pod string) (bool, error) {
	b := make([]byte, maxMarks)
	n, err := unix.Listxattr(pod, b)
	if err != nil {
		return false, &os.PathError{Op: "listxattr", Path: pod, Err: err}
	}
	for name := range strings.SplitSeq(string(b[:n]), "\x00") {
		container, ok := strings.CutPrefix(name, markStop)
		if !ok {
			continue
		}
		if _, err := os.Stat(filepath.Join(pod, container)); !errors.Is(err, fs.ErrNotExist) {
			return true, err
		}
	}
	return false, nil
}
