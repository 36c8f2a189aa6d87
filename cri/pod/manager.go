package pod

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Manager is the sandboxes and containers of one node. Methods may be called
// concurrently, once Recover has returned.
type Manager struct {
	cfg    Config
	images Images
	hosts  Hosts
	nets   Networks
	log    *slog.Logger
	boot   string // the kernel's id of this boot
	node   string // the node's host name

	index *index
	bus   *bus

	// life ends with Close; watchers are the goroutines that wait for hosts.
	life     context.Context
	end      context.CancelFunc
	watchers sync.WaitGroup
}

// New makes a manager. Nothing is known to it until Recover.
func New(cfg Config, images Images, hosts Hosts, nets Networks, log *slog.Logger) (*Manager, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	node, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("read the node's host name: %w", err)
	}
	for _, d := range cfg.folders() {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return nil, fmt.Errorf("make the folders of pods: %w", err)
		}
	}
	m := &Manager{cfg: cfg, images: images, hosts: hosts, nets: nets, log: log, boot: boot, node: node, index: newIndex(), bus: newBus()}
	m.life, m.end = context.WithCancel(context.Background())
	return m, nil
}

// Close ends what the manager runs and leaves all pods as they are.
func (m *Manager) Close() error {
	m.end()
	m.watchers.Wait()
	m.bus.close()
	return nil
}

// checkpoint marks the border between two steps of an operation.
func (m *Manager) checkpoint(step string) {
	if m.cfg.Checkpoint != nil {
		m.cfg.Checkpoint(step)
	}
}

// undone undoes what a failed operation did. What resists is left to the next
// Recover, and somebody should know.
func (m *Manager) undone(ctx context.Context, u *undo, log *slog.Logger) {
	m.checkpoint("undo.begun")
	for _, err := range u.run(ctx, func() { m.checkpoint("undo.step") }) {
		log.Error("could not undo what failed; the next start of the daemon tries again", "error", err)
	}
}

// watch waits for a container's host to end and records it. One goroutine per
// host does so, and it alone reports the end.
func (m *Manager) watch(c *container, h Host) {
	m.watchers.Go(func() {
		select {
		case <-h.Done():
		case <-m.life.Done():
			return
		}
		release, err := c.turn.take(m.life)
		if err != nil {
			return // closing: the next start finds it ended
		}
		defer release()
		m.exitHolding(c, h)
	})
}

// exitHolding records that a container's host has ended.
// Preconditions: c's turn is held, h.Done is closed.
func (m *Manager) exitHolding(c *container, h Host) {
	s := m.index.snapshot(c)
	var p Exited
	switch from := s.phase.(type) {
	case Created:
		p = toExited(from, time.Time{}, h.Exit())
	case Starting:
		p = toExited(from, from.Started, h.Exit())
	case Running:
		p = toExited(from, from.Started, h.Exit())
	case Stopping:
		p = toExited(from, from.Started, h.Exit())
	case Preparing, Lost, Exited, Removed:
		return // the creation failed and undoes itself, or it is told already
	}
	m.checkpoint("exit.seen")
	if err := m.saveContainer(c, p, s.made); err != nil {
		// The host's own record stands; after a restart it is read again.
		m.logOf(c).Error("could not record an exit", "error", err)
	}
	m.checkpoint("exit.recorded")
	m.index.setContainer(c, p, nil)
	close(c.exited)
	m.logOf(c).Info("container exited",
		"name", c.config.GetMetadata().GetName(), "code", p.Exit.Code, "reason", string(p.Exit.Reason), "message", p.Exit.Message)
	m.publish(c.sandbox, c.id, runtime.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

// logOf is the log with what every line about a container says.
func (m *Manager) logOf(c *container) *slog.Logger {
	return m.log.With("pod", podName(c.sandbox), "container", c.id)
}

// logOfSandbox is the log with what every line about a sandbox says.
func (m *Manager) logOfSandbox(s *sandbox) *slog.Logger {
	return m.log.With("pod", podName(s), "sandbox", s.id)
}

// PodOf names the pod of a sandbox or container, as NAMESPACE/NAME; it is empty
// for an id that is not known in full.
func (m *Manager) PodOf(id string) string {
	if s := m.index.podOf(id); s != nil {
		return podName(s)
	}
	return ""
}

// podName is a pod as people write it.
func podName(s *sandbox) string {
	md := s.config.GetMetadata()
	return md.GetNamespace() + "/" + md.GetName()
}
