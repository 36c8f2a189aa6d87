package pod

import (
	"context"
	"fmt"
	"strings"
	"sync"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// index is all sandboxes and containers in memory: what lists are answered
// from. The views in it are never changed, only replaced, so that a list hands
// out pointers.
type index struct {
	mu         sync.RWMutex
	sandboxes  map[string]*sandbox
	containers map[string]*container
	names      map[string]string // reserved name -> id
}

func newIndex() *index {
	return &index{sandboxes: map[string]*sandbox{}, containers: map[string]*container{}, names: map[string]string{}}
}

// sandbox is one PodSandbox. What stands above the index's fields is fixed.
type sandbox struct {
	id, name string // name: the reserved one
	handler  string // as the request named it
	profile  Profile
	refused  error // why no container can be added, if none can
	config   *runtime.PodSandboxConfig
	created  int64
	turn     turn
	// wanted ends when a stop is asked for, by unwant: what is being made in
	// the sandbox gives up then, for the stop waits for it.
	wanted context.Context
	unwant context.CancelFunc

	// Guarded by index.mu; changed by the holder of the turn.
	phase      SandboxPhase
	view       *runtime.PodSandbox // nil while it is not listed
	containers map[string]*container
}

// container is one Container. What stands above the index's fields is fixed.
type container struct {
	id, name string
	cgroup   string
	sandbox  *sandbox
	config   *runtime.ContainerConfig
	created  int64
	turn     turn
	exited   chan struct{} // closed once the end is recorded

	// Guarded by index.mu; changed by the holder of the turn. made is
	// replaced, never changed.
	phase Phase
	view  *runtime.Container
	made  *made
	usage layerUsage
}

// newSandbox returns one that is being made.
func newSandbox(id, handler string, profile Profile, config *runtime.PodSandboxConfig, created int64) *sandbox {
	s := &sandbox{
		id: id, name: sandboxName(config.GetMetadata()), handler: handler, profile: profile, config: config,
		created: created, turn: newTurn(), phase: SandboxPreparing{}, containers: map[string]*container{},
	}
	s.wanted, s.unwant = context.WithCancel(context.Background())
	return s
}

// reserve takes a name for an id.
func (x *index) reserve(name, id string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if other, ok := x.names[name]; ok {
		return fmt.Errorf("%w: %s is %s; remove that one, or give this one another metadata.attempt", ErrNameInUse, name, other)
	}
	x.names[name] = id
	return nil
}

func (x *index) addSandbox(s *sandbox) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.sandboxes[s.id] = s
}

func (x *index) addContainer(c *container) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.containers[c.id] = c
	c.sandbox.containers[c.id] = c
}

func (x *index) dropSandbox(s *sandbox) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.sandboxes, s.id)
	if x.names[s.name] == s.id {
		delete(x.names, s.name)
	}
}

func (x *index) dropContainer(c *container) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.containers, c.id)
	delete(c.sandbox.containers, c.id)
	if x.names[c.name] == c.id {
		delete(x.names, c.name)
	}
}

// find returns the object of an id or of a unique beginning of one; those that
// are not listed yet do not exist for callers.
func find[T any](m map[string]T, id string, listed func(T) bool) (found T, err error) {
	if o, ok := m[id]; ok && listed(o) {
		return o, nil
	}
	var zero T
	if id == "" {
		return zero, fmt.Errorf("%w: the id is empty", ErrInvalid)
	}
	n := 0
	for full, o := range m {
		if strings.HasPrefix(full, id) && listed(o) {
			found = o
			n++
		}
	}
	switch n {
	case 0:
		return zero, ErrNotFound
	case 1:
		return found, nil
	}
	return zero, fmt.Errorf("%w: %q is the beginning of %d ids; give more of it", ErrAmbiguous, id, n)
}

func (x *index) sandbox(id string) (*sandbox, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	s, err := find(x.sandboxes, id, func(s *sandbox) bool { return s.view != nil })
	if err != nil {
		return nil, fmt.Errorf("sandbox %q: %w", id, err)
	}
	return s, nil
}

func (x *index) container(id string) (*container, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	c, err := find(x.containers, id, func(c *container) bool { return c.view != nil })
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", id, err)
	}
	return c, nil
}

// podOf returns the sandbox that an id names or that its container is in, nil
// if there is none.
func (x *index) podOf(id string) *sandbox {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if c, ok := x.containers[id]; ok {
		return c.sandbox
	}
	return x.sandboxes[id]
}

// containersOf returns the containers of a sandbox, those that are not listed
// included.
func (x *index) containersOf(s *sandbox) []*container {
	x.mu.RLock()
	defer x.mu.RUnlock()
	l := make([]*container, 0, len(s.containers))
	for _, c := range s.containers {
		l = append(l, c)
	}
	return l
}

func (x *index) phaseOf(c *container) Phase {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return c.phase
}

func (x *index) sandboxPhase(s *sandbox) SandboxPhase {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return s.phase
}

// snapshot is one consistent reading of a container.
type snapshot struct {
	*container
	phase Phase
	made  *made
}

func (x *index) snapshot(c *container) snapshot {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return snapshot{container: c, phase: c.phase, made: c.made}
}

// setSandbox puts a sandbox into a phase. Preconditions: the turn is held; the
// graph has the edge, which the constructors of phases see to.
func (x *index) setSandbox(s *sandbox, p SandboxPhase) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s.phase = p
	s.view = sandboxView(s)
}

// setContainer puts a container into a phase; made is nil to leave it as it
// is. Preconditions as for setSandbox.
func (x *index) setContainer(c *container, p Phase, m *made) {
	x.mu.Lock()
	defer x.mu.Unlock()
	c.phase = p
	if m != nil {
		c.made = m
	}
	c.view = containerView(c)
}

// sandboxView is what lists show of a sandbox, or nil. Preconditions: mu held.
func sandboxView(s *sandbox) *runtime.PodSandbox {
	state := runtime.PodSandboxState_SANDBOX_NOTREADY
	switch s.phase.(type) {
	case SandboxPreparing, SandboxRemoved:
		return nil
	case SandboxReady:
		state = runtime.PodSandboxState_SANDBOX_READY
	case SandboxNotReady:
	}
	return &runtime.PodSandbox{
		Id: s.id, Metadata: s.config.GetMetadata(), State: state, CreatedAt: s.created,
		Labels: s.config.GetLabels(), Annotations: s.config.GetAnnotations(), RuntimeHandler: s.handler,
	}
}

// containerView is what lists show of a container, or nil. Preconditions: mu held.
func containerView(c *container) *runtime.Container {
	state, listed := stateOf(c.phase)
	if !listed {
		return nil
	}
	return &runtime.Container{
		Id: c.id, PodSandboxId: c.sandbox.id, Metadata: c.config.GetMetadata(), Image: c.image(c.made),
		ImageRef: c.made.ImageRef, ImageId: c.made.ImageID, State: state, CreatedAt: c.created,
		Labels: c.config.GetLabels(), Annotations: c.config.GetAnnotations(),
	}
}

// stateOf is a phase in the words of CRI.
func stateOf(p Phase) (state runtime.ContainerState, listed bool) {
	switch p.(type) {
	case Created:
		return runtime.ContainerState_CONTAINER_CREATED, true
	case Starting, Running, Stopping:
		return runtime.ContainerState_CONTAINER_RUNNING, true
	case Exited:
		return runtime.ContainerState_CONTAINER_EXITED, true
	case Lost:
		return runtime.ContainerState_CONTAINER_UNKNOWN, true
	case Preparing, Removed:
	}
	return runtime.ContainerState_CONTAINER_UNKNOWN, false
}

// image is the container's image as the user named it.
func (c *container) image(m *made) *runtime.ImageSpec {
	i := c.config.GetImage()
	name := i.GetUserSpecifiedImage()
	if name == "" {
		name = i.GetImage()
	}
	return &runtime.ImageSpec{Image: name, UserSpecifiedImage: i.GetUserSpecifiedImage(), Annotations: i.GetAnnotations(), ImageRef: m.ImageRef}
}
