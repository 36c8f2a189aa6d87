package pod

import (
	"context"
	"fmt"
	"syscall"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/shim/spec"
)

// maxGrace keeps a grace period within what a duration can hold; a pod's may
// be any number of seconds.
const maxGrace = 10 * 365 * 24 * time.Hour

// turnPatience is how long a stop without grace waits for what is under way
// with its container, such as a start, before it ends the host all the same.
const turnPatience = time.Second

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
	over := time.Now().Add(grace)
	h, signal, err := m.stopping(ctx, c, grace)
	if err != nil || h == nil {
		return err
	}
	if signal != 0 {
		ended, err := m.tell(ctx, c, h, signal, over)
		if ended || err != nil {
			return err
		}
	}
	m.checkpoint("stop.kill")
	if err := h.Kill(); err != nil {
		return err
	}
	m.checkpoint("stop.killed")
	if ended, err := await(ctx, c.exited, killBound); ended || err != nil {
		return err
	}
	return stillRunning(h)
}

// stopping records that a container is to stop. It returns no host when there
// is nothing to wait for, and no signal when there is no guest to hear one or
// no time for it to act.
func (m *Manager) stopping(ctx context.Context, c *container, grace time.Duration) (Host, syscall.Signal, error) {
	patience, cancel := context.WithTimeout(ctx, max(grace, turnPatience))
	defer cancel()
	release, err := c.turn.take(patience)
	if err != nil {
		return m.outOfTurn(ctx, c, err)
	}
	defer release()
	s := m.index.snapshot(c)
	signal := syscall.Signal(0)
	if grace > 0 && s.made != nil {
		signal = syscall.Signal(s.made.StopSignal)
	}
	switch from := s.phase.(type) {
	case Created:
		return from.Host, 0, nil
	case Starting:
		return from.Host, 0, nil // a start that failed and would not end
	case Running:
		if signal != 0 {
			m.recordStopping(c, from, s.made)
		}
		return from.Host, signal, nil
	case Stopping:
		// Told again: the stop that recorded this may have been cut off before
		// it could send the signal, by the daemon's end at the latest.
		return from.Host, signal, nil
	case Lost:
		return nil, 0, m.endLost(ctx, c, from)
	case Preparing, Exited, Removed:
	}
	return nil, 0, nil
}

// outOfTurn is what a stop does that did not get the container's turn in time.
func (m *Manager) outOfTurn(ctx context.Context, c *container, err error) (Host, syscall.Signal, error) {
	if ctx.Err() != nil {
		return nil, 0, ctx.Err()
	}
	switch p := m.index.phaseOf(c).(type) {
	case Exited, Removed:
		return nil, 0, nil // it is being removed
	case Created, Starting, Running, Stopping:
		// Whoever has the turn waits for the host, which does not answer.
		h, _ := hostOf(p)
		return h, 0, nil
	case Preparing, Lost:
		return nil, 0, fmt.Errorf("another call is still at work with it, which is %s: %w", p.Kind(), err)
	}
	return nil, 0, err
}

func stillRunning(h Host) error {
	return fmt.Errorf("%w: process %d is there %v after it was killed, so that it hangs in the kernel; see the node's kernel log, and stop the container again", ErrStillRunning, h.PID(), killBound)
}

// Preconditions: c's turn is held.
func (m *Manager) recordStopping(c *container, from Running, md *made) {
	p := toStopping(from, from.Host, from.Started)
	if err := m.saveContainer(c, p, md); err != nil {
		// A full disk must not keep a container alive.
		m.logOf(c).Error("could not record a stop", "error", err)
	}
	m.checkpoint("stop.recorded")
	m.index.setContainer(c, p, nil)
}

// tell sends the stop signal and waits for the end, until the grace period is
// over. The turn is not held: a host that does not answer must not keep others
// from ending it.
func (m *Manager) tell(ctx context.Context, c *container, h Host, s syscall.Signal, over time.Time) (ended bool, err error) {
	told, cancel := context.WithDeadline(ctx, over)
	defer cancel()
	if err := h.Stop(told, s); err != nil {
		if ctx.Err() != nil {
			return false, err
		}
		m.logOf(c).Warn("stop signal not heard; killing instead", "error", err)
		return false, nil
	}
	m.checkpoint("stop.signalled")
	return await(ctx, c.exited, time.Until(over))
}

// endLost kills a container that did not answer when the daemon started.
// Preconditions: c's turn is held.
func (m *Manager) endLost(ctx context.Context, c *container, from Lost) error {
	md := m.index.snapshot(c).made
	x, err := m.exitOfLost(ctx, md.Container)
	if err != nil {
		return err
	}
	p := toExited(from, from.Started, x)
	if err := m.saveContainer(c, p, md); err != nil {
		m.logOf(c).Error("could not record an exit", "error", err)
	}
	m.checkpoint("stop.told")
	m.index.setContainer(c, p, nil)
	close(c.exited)
	m.publish(c.sandbox, c.id, runtime.ContainerEventType_CONTAINER_STOPPED_EVENT)
	return nil
}

// exitOfLost ends a host that may answer by now, or else everything that is
// known to be the container's: nobody removes what cannot be stopped.
func (m *Manager) exitOfLost(ctx context.Context, b *spec.Container) (spec.Exit, error) {
	h, err := m.hosts.Adopt(ctx, b)
	if err != nil {
		if err := m.hosts.End(ctx, b); err != nil {
			return spec.Exit{}, fmt.Errorf("its process does not answer and is not ended: %w; end it on the node, and stop the container again", err)
		}
		m.checkpoint("stop.ended")
		if h, err = m.hosts.Adopt(ctx, b); err != nil {
			return spec.Exit{Code: spec.CodeKilled, Reason: spec.ReasonKilled, At: time.Now(), Message: "its process did not answer after a restart of limpetd and was killed"}, nil
		}
	}
	m.checkpoint("stop.adopted")
	if err := h.Kill(); err != nil {
		return spec.Exit{}, err
	}
	m.checkpoint("stop.lost")
	if ended, err := await(ctx, h.Done(), killBound); err != nil {
		return spec.Exit{}, err
	} else if !ended {
		return spec.Exit{}, stillRunning(h)
	}
	return h.Exit(), nil
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
		// Removing is what makes room again. After a restart what is left is
		// removed once more, or is swept as half made.
		m.logOf(c).Error("could not record a removal", "error", err)
	}
	m.checkpoint("remove.recorded")
	if err := m.discard(ctx, c); err != nil {
		return err
	}
	m.checkpoint("remove.done")
	m.index.setContainer(c, p, nil)
	m.publish(c.sandbox, c.id, runtime.ContainerEventType_CONTAINER_DELETED_EVENT)
	m.index.dropContainer(c)
	m.logOf(c).Info("container removed")
	return nil
}
