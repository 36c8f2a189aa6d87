package pod

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// StopPodSandbox ends the containers of a sandbox and gives back its network.
// It can be called again at any time; an unknown sandbox is stopped.
func (m *Manager) StopPodSandbox(ctx context.Context, id string) error {
	s, err := m.index.sandbox(id)
	if err != nil {
		return ignoreNotFound(err)
	}
	if err := m.stopSandbox(ctx, s); err != nil {
		return fmt.Errorf("stop sandbox of pod %s: %w", podName(s), err)
	}
	return nil
}

func (m *Manager) stopSandbox(ctx context.Context, s *sandbox) error {
	s.unwant()
	release, err := s.turn.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	return m.stopSandboxHolding(ctx, s)
}

// Preconditions: s's turn is held.
func (m *Manager) stopSandboxHolding(ctx context.Context, s *sandbox) error {
	if err := m.eachContainer(s, func(c *container) error { return m.stopContainer(ctx, c, 0) }); err != nil {
		return err
	}
	m.checkpoint("stop-sandbox.stopped")
	from, was := m.index.sandboxPhase(s).(SandboxReady)
	if was {
		// From here on it is not ready, whatever becomes of the rest.
		p := toSandboxNotReady(from)
		if err := m.saveSandbox(s, p); err != nil {
			// What is full or damaged must not keep a pod. After a restart its
			// network is seen to be gone.
			m.logOfSandbox(s).Error("could not record a stop", "error", err)
		}
		m.checkpoint("stop-sandbox.recorded")
		m.index.setSandbox(s, p)
	}
	if !hostNetwork(s.config) {
		if err := m.nets.Remove(ctx, s.id); err != nil {
			return fmt.Errorf("remove the network namespace: %w", err)
		}
	}
	m.checkpoint("stop-sandbox.done")
	if was {
		m.logOfSandbox(s).Info("sandbox stopped")
		m.publish(s, s.id, runtime.ContainerEventType_CONTAINER_STOPPED_EVENT)
	}
	return nil
}

// RemovePodSandbox ends and removes a sandbox with its containers. Removing an
// unknown one succeeds.
func (m *Manager) RemovePodSandbox(ctx context.Context, id string) error {
	s, err := m.index.sandbox(id)
	if err != nil {
		return ignoreNotFound(err)
	}
	if err := m.removeSandbox(ctx, s); err != nil {
		return fmt.Errorf("remove sandbox of pod %s: %w", podName(s), err)
	}
	return nil
}

func (m *Manager) removeSandbox(ctx context.Context, s *sandbox) error {
	s.unwant()
	release, err := s.turn.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	if _, gone := m.index.sandboxPhase(s).(SandboxRemoved); gone {
		return nil
	}
	if err := m.stopSandboxHolding(ctx, s); err != nil {
		return err
	}
	m.checkpoint("remove-sandbox.stopped")
	if err := m.eachContainer(s, func(c *container) error { return m.removeContainer(ctx, c) }); err != nil {
		return err
	}
	m.checkpoint("remove-sandbox.emptied")
	from, ok := m.index.sandboxPhase(s).(SandboxNotReady)
	if !ok {
		return fmt.Errorf("%w: sandbox is %s", ErrBadPhase, m.index.sandboxPhase(s).Kind())
	}
	p := toSandboxRemoved(from)
	if err := m.saveSandbox(s, p); err != nil {
		// Removing is what makes room again.
		m.logOfSandbox(s).Error("could not record a removal", "error", err)
	}
	m.checkpoint("remove-sandbox.recorded")
	if err := os.RemoveAll(m.sandboxDir(s.id)); err != nil {
		return err
	}
	m.checkpoint("remove-sandbox.done")
	m.index.setSandbox(s, p)
	m.publish(s, s.id, runtime.ContainerEventType_CONTAINER_DELETED_EVENT)
	m.index.dropSandbox(s)
	m.logOfSandbox(s).Info("sandbox removed")
	return nil
}

// eachContainer does something to every container of a sandbox at once.
func (m *Manager) eachContainer(s *sandbox, do func(*container) error) error {
	var g errgroup.Group
	for _, c := range m.index.containersOf(s) {
		g.Go(func() error { return do(c) })
	}
	return g.Wait()
}

// ignoreNotFound makes stopping and removing the unknown a success.
func ignoreNotFound(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
