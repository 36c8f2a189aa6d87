package pod

import (
	"context"
	"fmt"
	"syscall"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxGrace keeps a grace period within what a duration can hold; a pod's may
// be any number of seconds.
const maxGrace = 10 * 365 * 24 * time.Hour

// StopContainer sends a container its stop signal and, if it has not ended
// within timeout seconds, kills it. It returns once the end is recorded.
// Stopping what has ended, or is unknown, succeeds.
func (m *Manager) StopContainer(ctx context.Context, id string, timeout int64) error {
	c, err := m.index.container(id)
	if err != nil {
		return ignoreNotFound(err)
	}
	grace := maxGrace
	if timeout < int64(maxGrace/time.Second) {
		grace = time.Duration(max(timeout, 0)) * time.Second
	}
	if err := m.stopContainer(ctx, c, grace); err != nil {
		return fmt.Errorf("stop container %s of pod %s: %w", c.config.GetMetadata().GetName(), podName(c.sandbox), err)
	}
	return nil
}

// stopContainer ends a container, at once when there is no grace. Another stop
// may be under way: each waits for its own grace, and the shortest wins.
func (m *Manager) stopContainer(ctx context.Context, c *container, grace time.Duration) error {
	h, heard, err := m.signal(ctx, c, grace)
	if err != nil || h == nil {
		return err
	}
	if heard {
		ended, err := await(ctx, c.exited, grace)
		if ended || err != nil {
			return err
		}
	}
	m.checkpoint("stop.kill")
	if err := h.Kill(); err != nil {
		return err
	}
	if ended, err := await(ctx, c.exited, killBound); ended || err != nil {
		return err
	}
	return fmt.Errorf("%w: %v after it was killed (process %d)", ErrStillRunning, killBound, h.PID())
}

// signal sends the stop signal if there is a guest to hear it and time for it
// to act. It returns no host when there is nothing to wait for.
func (m *Manager) signal(ctx context.Context, c *container, grace time.Duration) (h Host, heard bool, err error) {
	release, err := c.turn.take(ctx)
	if err != nil {
		return nil, false, err
	}
	defer release()
	s := m.index.snapshot(c)
	switch from := s.phase.(type) {
	case Created:
		return from.Host, false, nil
	case Starting:
		return from.Host, false, nil // a start that failed and would not end
	case Running:
		if grace <= 0 {
			return from.Host, false, nil
		}
		heard, err := m.stopping(ctx, c, from, s.made)
		return from.Host, heard, err
	case Stopping:
		return from.Host, grace > 0, nil
	case Lost:
		return nil, false, m.endLost(ctx, c, from)
	case Preparing, Exited, Removed:
	}
	return nil, false, nil
}

// stopping tells a running guest to stop. Preconditions: c's turn is held.
func (m *Manager) stopping(ctx context.Context, c *container, from Running, md *made) (heard bool, err error) {
	p := toStopping(from, from.Host, from.Started)
	if err := m.saveContainer(c, p, md); err != nil {
		// A full disk must not keep a container alive.
		m.log.Error("could not record a stop", "container", c.id, "error", err)
	}
	m.checkpoint("stop.recorded")
	m.index.setContainer(c, p, nil)
	if err := from.Host.Stop(ctx, syscall.Signal(md.StopSignal)); err != nil {
		if ctx.Err() != nil {
			return false, err
		}
		m.log.Warn("stop signal not heard; killing instead", "container", c.id, "error", err)
		return false, nil
	}
	m.checkpoint("stop.signalled")
	return true, nil
}

// endLost kills a container that did not answer when the daemon started.
// Preconditions: c's turn is held.
func (m *Manager) endLost(ctx context.Context, c *container, from Lost) error {
	h, err := m.hosts.Adopt(ctx, m.index.snapshot(c).made.Container)
	if err != nil {
		return fmt.Errorf("its process does not answer: %w; remove the container to end it", err)
	}
	if err := h.Kill(); err != nil {
		return err
	}
	if ended, err := await(ctx, h.Done(), killBound); err != nil || !ended {
		return fmt.Errorf("%w: %v after it was killed (process %d)", ErrStillRunning, killBound, h.PID())
	}
	p := toExited(from, from.Started, h.Exit())
	if err := m.saveContainer(c, p, m.index.snapshot(c).made); err != nil {
		m.log.Error("could not record an exit", "container", c.id, "error", err)
	}
	m.index.setContainer(c, p, nil)
	close(c.exited)
	m.publish(c.sandbox, c.id, runtime.ContainerEventType_CONTAINER_STOPPED_EVENT)
	return nil
}

// await waits for done, at most for the time given.
func await(ctx context.Context, done <-chan struct{}, d time.Duration) (ended bool, err error) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true, nil
	case <-t.C:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// RemoveContainer ends a container, if it runs, and removes it; its log stays.
// Removing an unknown one succeeds.
func (m *Manager) RemoveContainer(ctx context.Context, id string) error {
	c, err := m.index.container(id)
	if err != nil {
		return ignoreNotFound(err)
	}
	if err := m.removeContainer(ctx, c); err != nil {
		return fmt.Errorf("remove container %s of pod %s: %w", c.config.GetMetadata().GetName(), podName(c.sandbox), err)
	}
	return nil
}

func (m *Manager) removeContainer(ctx context.Context, c *container) error {
	if m.index.phaseOf(c).Kind() != KindLost { // a lost one ends with its host's removal
		if err := m.stopContainer(ctx, c, 0); err != nil {
			return err
		}
	}
	release, err := c.turn.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	s := m.index.snapshot(c)
	var p Removed
	switch from := s.phase.(type) {
	case Exited:
		p = toRemoved(from)
	case Lost:
		p = toRemoved(from)
	case Removed:
		return nil
	case Preparing, Created, Starting, Running, Stopping:
		_, err := containerEdges().apply(s.phase.Kind(), EventRemove)
		return err
	}
	m.checkpoint("remove.stopped")
	if err := m.saveContainer(c, p, s.made); err != nil {
		return fmt.Errorf("record the removal: %w", err)
	}
	m.checkpoint("remove.recorded")
	if err := m.discard(ctx, c); err != nil {
		return err
	}
	m.checkpoint("remove.done")
	m.index.setContainer(c, p, nil)
	m.publish(c.sandbox, c.id, runtime.ContainerEventType_CONTAINER_DELETED_EVENT)
	m.index.dropContainer(c)
	m.log.Info("container removed", "pod", podName(c.sandbox), "container", c.id)
	return nil
}
