package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/spec"
)

// Remove removes everything of a container: its process, cgroup, control
// socket and folder. Each step may find its work done already, so that Remove
// can be repeated after any failure.
func (s *Supervisor) Remove(ctx context.Context, c *spec.Container) error {
	if err := check(c); err != nil {
		return err
	}
	for _, step := range []struct {
		do   func(context.Context, *spec.Container) error
		done string
	}{
		{s.end, "unhost.ended"}, {s.removeCgroup, "unhost.ungrouped"},
		{removeSocket, "unhost.unsocketed"}, {removeDir, "unhost.done"},
	} {
		if err := step.do(ctx, c); err != nil {
			return fmt.Errorf("remove container %s: %w", c.ID, err)
		}
		s.checkpoint(step.done)
	}
	return nil
}

// End ends the host of a container, however little can be found out about it,
// and leaves everything else: Adopt can tell how it ended. Ending what has ended
// is no error.
func (s *Supervisor) End(ctx context.Context, c *spec.Container) error {
	if err := check(c); err != nil {
		return err
	}
	if err := s.end(ctx, c); err != nil {
		return fmt.Errorf("end host of container %s: %w", c.ID, err)
	}
	return nil
}

// end kills the host, whoever watches it, and waits until it is gone.
func (s *Supervisor) end(ctx context.Context, c *spec.Container) error {
	if h := s.watched(c.ID); h != nil {
		if err := h.Kill(); err != nil {
			return err
		}
		return h.wait(ctx, removeTimeout)
	}
	h := s.newHost(c)
	lives, err := h.find(ctx)
	if err != nil && h.group != nil && ctx.Err() == nil {
		return s.endGroup(h, err)
	}
	if err != nil || !lives {
		return err
	}
	h.dropReady()
	defer h.pidfd.Close()
	h.lift()
	if err := signalPidfd(h.pidfd, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill host %d: %w", h.pid, err)
	}
	stop := context.AfterFunc(ctx, h.wake)
	defer stop()
	if err := h.pidfd.SetReadDeadline(time.Now().Add(removeTimeout)); err != nil {
		return err
	}
	if err := awaitEnd(h.pidfd); err != nil {
		return fmt.Errorf("host %d does not end: %w", h.pid, err)
	}
	reap(h.pidfd)
	return nil
}

// endGroup ends a host that cannot be found by its lock and its socket: what
// is in the container's cgroup is the container's.
func (s *Supervisor) endGroup(h *Host, why error) error {
	s.log.Warn("a host cannot be found; ending all of its cgroup", "container", h.id, "error", why)
	if err := h.group.Kill(); err != nil {
		return errors.Join(why, err)
	}
	held, err := locked(h.dir)
	if err == nil && held {
		err = fmt.Errorf("a process outside of its cgroup holds its lock: %w", why)
	}
	return err
}

func (s *Supervisor) removeCgroup(ctx context.Context, c *spec.Container) error {
	if s.cfg.Cgroups == nil || c.OCI.Linux == nil || c.OCI.Linux.CgroupsPath == "" {
		return nil
	}
	group := s.cfg.Cgroups.Open(c.OCI.Linux.CgroupsPath)
	// A host that was made half may be in it and hold no lock yet.
	if err := group.Kill(); err != nil {
		return err
	}
	return group.Remove(ctx)
}

func removeSocket(_ context.Context, c *spec.Container) error {
	if err := os.Remove(c.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func removeDir(_ context.Context, c *spec.Container) error { return os.RemoveAll(c.Dir) }
