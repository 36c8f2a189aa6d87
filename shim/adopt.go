package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/spec"
)

// Adopt finds the host of a container that another Supervisor made: alive, or
// ended, with Done closed and Exit as far as it can be told. It returns
// ErrNoHost when none was ever made ready; Remove then clears what is there.
func (s *Supervisor) Adopt(ctx context.Context, c *spec.Container) (*Host, error) {
	if err := check(c); err != nil {
		return nil, err
	}
	if h := s.watched(c.ID); h != nil {
		return h, nil
	}
	h, err := s.adopt(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("adopt host of container %s: %w", c.ID, err)
	}
	return h, nil
}

func (s *Supervisor) adopt(ctx context.Context, c *spec.Container) (*Host, error) {
	h := s.newHost(c)
	lives, err := h.find(ctx)
	if err != nil {
		return nil, err
	}
	if !lives {
		return h, h.bury()
	}
	if err := s.watch(h); err != nil {
		h.dropReady()
		return nil, errors.Join(err, h.pidfd.Close())
	}
	return h, nil
}

// find looks for the living host and fills in what is known of it.
//
// Only a host holds its listening socket. So a refused connection means that
// none lives; an accepted one that a host lives or is on its way, in which case
// its lock is written by the time of its hello.
func (h *Host) find(ctx context.Context) (lives bool, err error) {
	k, err := dial(h.socket)
	if err == nil {
		h.phase, err = k.hello(ctx, helloTimeout)
		switch {
		case err == nil && h.phase == spec.PhaseReady:
			h.ready = k
		case err == nil, errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, io.EOF):
			k.close()
		default:
			k.close()
			return false, err
		}
	}
	if h.phase == 0 { // it did not say
		h.phase = spec.PhaseRunning
	}
	lives, err = h.findProcess()
	if err != nil || !lives {
		h.dropReady()
	}
	return lives, err
}

// findProcess opens the process that holds the lock.
//
// A host can write its own lock, and one that was taken over might name a
// process of somebody else, for us to end. So what the lock says must agree
// with what the kernel says; a lock that is held and names no process of the
// container is an error, for some host does live.
func (h *Host) findProcess() (lives bool, err error) {
	held, err := locked(h.dir)
	if err != nil || !held {
		return false, err
	}
	p, ok, err := holder(h.dir)
	if err == nil && !ok {
		err = fmt.Errorf("%w: its lock is empty", errStrayLock)
	}
	if err == nil {
		err = h.open(p)
	}
	if err == nil {
		return true, nil
	}
	if held, lockErr := locked(h.dir); lockErr == nil && !held {
		return false, nil // it ended while we looked
	}
	return false, err
}

// errStrayLock is returned for a lock that is held, but not by the process
// that it names.
var errStrayLock = errors.New("the lock of a host that lives does not tell which process it is")

// open opens the process that a lock names, if it is the container's.
func (h *Host) open(p process) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return fmt.Errorf("%w: pid %d: %w", errStrayLock, p.pid, err)
	}
	pidfd, err := pidfdFile(fd)
	if err != nil {
		return err
	}
	// Read after the pidfd was opened, so that a number that was used again is
	// noticed.
	if err := h.isOurs(p); err != nil {
		return errors.Join(err, pidfd.Close())
	}
	h.pid, h.pidfd = p.pid, pidfd
	return nil
}

func (h *Host) isOurs(p process) error {
	start, err := startTime(p.pid)
	if err != nil {
		return err
	}
	if start != p.start {
		return fmt.Errorf("%w: process %d started at %d, not at %d", errStrayLock, p.pid, start, p.start)
	}
	if h.group == nil {
		return nil // nothing else tells
	}
	pids, err := h.group.Pids()
	if err != nil {
		return err
	}
	if !slices.Contains(pids, p.pid) {
		return fmt.Errorf("%w: process %d is not in the container's cgroup", errStrayLock, p.pid)
	}
	return nil
}

// bury tells how a host that is dead has ended.
func (h *Host) bury() error {
	x, ok := recorded(h.dir)
	if !ok {
		_, began, err := holder(h.dir)
		switch {
		case errors.Is(err, spec.ErrMalformed): // then somebody wrote it
		case err != nil:
			return err
		case !began:
			return ErrNoHost
		}
		if x, ok = h.outOfMemory(); !ok {
			x = unknownExit(h.dir)
			x.At = lastSign(h.dir)
		}
	}
	h.exit = x
	h.restore() // an earlier limpetd may have ended in the middle of a stop
	close(h.done)
	return nil
}

// lastSign is the best guess for the time of an end that nobody saw: when the
// host last wrote to one of its files.
func lastSign(dir string) time.Time {
	var last time.Time
	for _, name := range []string{spec.FileLock, spec.FileDiagnostics, spec.FileExit} {
		if fi, err := os.Stat(dir + "/" + name); err == nil && fi.ModTime().After(last) {
			last = fi.ModTime()
		}
	}
	return last
}
