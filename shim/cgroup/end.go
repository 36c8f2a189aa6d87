package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Waiting for processes to go: endBound is how long Kill and a Remove whose
// context has no deadline wait at most, waitSlice how long one wait in the
// kernel is, after which the context is looked at.
const (
	endBound  = 10 * time.Second
	waitSlice = 50 * time.Millisecond
	firstWait = time.Millisecond
)

// Pids returns the processes in the group and below.
func (g *Group) Pids() ([]int, error) {
	dir := g.dirV2()
	if !g.h.v2 {
		dir = g.dir("memory")
	}
	var pids []int
	err := walk(dir, 0, func(d string) error {
		l, err := fields(filepath.Join(d, "cgroup.procs"))
		for _, s := range l {
			if pid, err := strconv.Atoi(s); err == nil && pid > 0 && len(pids) < maxPids {
				pids = append(pids, pid)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup %s: %w", g.path, err)
	}
	return pids, nil
}

// walk calls f for the groups below dir, then for dir.
func walk(dir string, depth int, f func(string) error) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: %s is nested too deeply", ErrPath, dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return gone(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := walk(filepath.Join(dir, e.Name()), depth+1, f); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return f(dir)
}

// Kill ends every process of the group and returns once they are gone. A group
// that does not exist has none. A group is not to be used again after it: on
// version 2 some kernels (6.12 among them) go on killing what is born into it.
func (g *Group) Kill() error {
	deadline := time.Now().Add(endBound)
	if g.h.v2 && write(filepath.Join(g.dirV2(), "cgroup.kill"), "1") == nil {
		return g.emptyV2(deadline)
	}
	for {
		pids, err := g.Pids()
		if errors.Is(err, ErrNotFound) || err == nil && len(pids) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("kill cgroup %s: %w by %v", g.path, ErrBusy, pids)
		}
		if err := killAll(pids, deadline); err != nil {
			return fmt.Errorf("kill cgroup %s: %w", g.path, err)
		}
	}
}

// killAll sends SIGKILL to the processes, then waits for their ends.
func killAll(pids []int, deadline time.Time) error {
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("pidfd_open", err)
		}
		fds = append(fds, fd)
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return os.NewSyscallError("pidfd_send_signal", err)
		}
	}
	for _, fd := range fds {
		if err := pollUntil(fd, unix.POLLIN, deadline); err != nil {
			return err
		}
	}
	return nil
}

// pollUntil waits for events on fd, at most until the deadline; that it passed
// is no error here.
func pollUntil(fd int, events int16, deadline time.Time) error {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return nil
		}
		p := []unix.PollFd{{Fd: int32(fd), Events: events}}
		_, err := unix.Poll(p, int(left/time.Millisecond)+1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return os.NewSyscallError("poll", err)
	}
}

// emptyV2 waits until the group and all below hold no process: cgroup.events
// signals each change.
func (g *Group) emptyV2(deadline time.Time) error {
	for {
		empty, err := g.awaitEventV2(deadline)
		if empty || errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("kill cgroup %s: %w", g.path, err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("kill cgroup %s: %w", g.path, ErrBusy)
		}
	}
}

// awaitEventV2 returns true if the group is empty, else after the next change
// or at the deadline.
func (g *Group) awaitEventV2(deadline time.Time) (bool, error) {
	f, err := os.Open(filepath.Join(g.dirV2(), "cgroup.events"))
	if err != nil {
		return false, gone(err)
	}
	defer f.Close()
	// Reading arms the event: a change after it is never lost.
	b := make([]byte, 256)
	n, err := f.Read(b)
	if err != nil {
		return false, gone(err)
	}
	if parseTable(strings.TrimRight(string(b[:n]), "\n"))["populated"] == 0 {
		return true, nil
	}
	return false, pollUntil(int(f.Fd()), unix.POLLPRI, deadline)
}

// Remove removes the group and what is below it. While processes are on their
// way out it waits, as long as ctx allows and endBound at most; it ends none
// (Kill does). A group that does not exist is removed.
func (g *Group) Remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endBound)
	defer cancel()
	wait := firstWait
	if err := g.RestoreCPU(); err != nil {
		return err
	}
	for {
		err := g.rmdirs()
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("remove cgroup %s: %w", g.path, err)
		}
		if err := g.awaitChange(ctx, wait); err != nil {
			return fmt.Errorf("remove cgroup %s: %w: %w", g.path, ErrBusy, err)
		}
		wait = min(2*wait, waitSlice)
	}
}

func (g *Group) rmdirs() error {
	var errs []error
	for _, d := range g.dirs() {
		err := walk(d, 0, func(dir string) error {
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return &os.PathError{Op: "rmdir", Path: dir, Err: err}
			}
			return nil
		})
		if err != nil && !errors.Is(err, ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// awaitChange waits until a process of the group ended or the time is over;
// for those that ended and still hold the group (version 1 does not tell) only
// the time is left.
func (g *Group) awaitChange(ctx context.Context, wait time.Duration) error {
	slice := time.Now().Add(waitSlice)
	if g.h.v2 {
		if empty, err := g.awaitEventV2(slice); err != nil || !empty {
			return ctx.Err()
		}
	} else if pids, err := g.Pids(); err == nil && len(pids) > 0 {
		fd, err := unix.PidfdOpen(pids[0], 0)
		if err == nil {
			defer unix.Close(fd)
			_ = pollUntil(fd, unix.POLLIN, slice) // only a wait: what holds is seen by the next rmdir
			return ctx.Err()
		}
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
