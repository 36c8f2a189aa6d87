package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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
func (h *Host) findProcess() (lives bool, err error) {
	held, err := locked(h.dir)
	if err != nil || !held {
		return false, err
	}
	p, ok, err := holder(h.dir)
	if err != nil || !ok {
		// Held and empty: between its birth and the constructor's first steps.
		return false, err
	}
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, os.NewSyscallError("pidfd_open", err)
	}
	if h.pidfd, err = pidfdFile(fd); err != nil {
		return false, err
	}
	if start, err := startTime(p.pid); err != nil || start != p.start {
		err := h.pidfd.Close()
		h.pidfd = nil
		return false, err // another process, or none any more
	}
	h.pid = p.pid
	return true, nil
}

// bury tells how a host that is dead has ended.
func (h *Host) bury() error {
	x, ok := recorded(h.dir)
	if !ok {
		_, began, err := holder(h.dir)
		if err != nil {
			return err
		}
		if !began {
			return ErrNoHost
		}
		if x, ok = h.outOfMemory(); !ok {
			x = unknownExit(h.dir)
			x.At = lastSign(h.dir)
		}
	}
	h.exit = x
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
