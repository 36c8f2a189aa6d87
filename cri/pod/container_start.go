package pod

import (
	"context"
	"fmt"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// StartContainer lets a created container's guest run.
func (m *Manager) StartContainer(ctx context.Context, id string) error {
	c, err := m.index.container(id)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := m.startContainer(ctx, c); err != nil {
		return fmt.Errorf("start container %s of pod %s: %w", c.config.GetMetadata().GetName(), podName(c.sandbox), err)
	}
	m.publish(c.sandbox, c.id, runtime.ContainerEventType_CONTAINER_STARTED_EVENT)
	return nil
}

func (m *Manager) startContainer(ctx context.Context, c *container) error {
	done, err := c.sandbox.turn.share(ctx)
	if err != nil {
		return err
	}
	defer done()
	if p := m.index.sandboxPhase(c.sandbox); p.Kind() != KindSandboxReady {
		return notReady(p)
	}
	release, err := c.turn.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	s := m.index.snapshot(c)
	from, ok := s.phase.(Created)
	if !ok {
		_, err := containerEdges().apply(s.phase.Kind(), EventStart)
		return err
	}
	starting := toStarting(from, from.Host, time.Now())
	if err := m.saveContainer(c, starting, s.made); err != nil {
		return fmt.Errorf("record the start: %w", err)
	}
	m.checkpoint("start.recorded")
	m.index.setContainer(c, starting, nil)
	if err := from.Host.Start(ctx); err != nil {
		return m.failStart(ctx, c, from.Host, err)
	}
	m.checkpoint("start.told")
	running := toRunning(starting, starting.Host, starting.Started)
	if err := m.saveContainer(c, running, s.made); err != nil {
		// The guest runs, and Starting on disk reads the same after a restart.
		m.logOf(c).Error("could not record a start", "error", err)
	}
	m.checkpoint("start.saved")
	m.index.setContainer(c, running, nil)
	return nil
}

// failStart ends a container of which it is not certain whether its guest
// runs: it must not, since the caller is told that it does not.
// Preconditions: c's turn is held.
func (m *Manager) failStart(ctx context.Context, c *container, h Host, why error) error {
	m.checkpoint("start.failed")
	if err := h.Kill(); err != nil {
		m.logOf(c).Error("could not end a container that did not start", "error", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killBound)
	defer cancel()
	select {
	case <-h.Done():
		m.exitHolding(c, h)
	case <-ctx.Done():
		m.logOf(c).Error("a container that did not start does not end")
	}
	return why
}
