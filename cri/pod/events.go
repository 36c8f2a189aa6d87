package pod

import (
	"sync"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// bus hands events to subscribers. It never waits for one.
type bus struct {
	mu     sync.Mutex
	subs   map[*Subscription]struct{}
	closed bool
}

func newBus() *bus { return &bus{subs: map[*Subscription]struct{}{}} }

// Subscription receives the events from the moment of Subscribe on.
type Subscription struct {
	bus *bus
	c   chan *runtime.ContainerEventResponse
	err error // why c was closed; guarded by bus.mu
}

// Events subscribes. The subscriber calls Close when it is done.
func (m *Manager) Events() *Subscription {
	b := m.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &Subscription{bus: b, c: make(chan *runtime.ContainerEventResponse, eventBuffer)}
	if b.closed {
		b.dropLocked(s, ErrClosed)
		return s
	}
	b.subs[s] = struct{}{}
	return s
}

// C yields the events; it is closed when the subscription ends, and Err then
// says why.
func (s *Subscription) C() <-chan *runtime.ContainerEventResponse { return s.c }

// Err says why C was closed: ErrSlow when the subscriber lagged too far behind
// and should list anew, ErrClosed when the manager or the subscriber ended it.
func (s *Subscription) Err() error {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	return s.err
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	s.bus.dropLocked(s, ErrClosed)
}

func (b *bus) dropLocked(s *Subscription, why error) {
	if s.err != nil {
		return
	}
	s.err = why
	delete(b.subs, s)
	close(s.c)
}

func (b *bus) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for s := range b.subs {
		b.dropLocked(s, ErrClosed)
	}
}

func (b *bus) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subs) == 0
}

func (b *bus) send(e *runtime.ContainerEventResponse) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		select {
		case s.c <- e:
		default:
			b.dropLocked(s, ErrSlow)
		}
	}
}

// publish tells that something happened to a container, or to a sandbox when
// id is the sandbox's. Without a subscriber it costs nothing.
func (m *Manager) publish(s *sandbox, id string, t runtime.ContainerEventType) {
	if m.bus.idle() {
		return
	}
	e := &runtime.ContainerEventResponse{
		ContainerId: id, ContainerEventType: t, CreatedAt: time.Now().UnixNano(),
		PodSandboxStatus: m.sandboxStatus(s),
	}
	for _, c := range m.index.containersOf(s) {
		if st := m.containerStatus(m.index.snapshot(c)); st != nil {
			e.ContainersStatuses = append(e.ContainersStatuses, st)
		}
	}
	m.bus.send(e)
}
