package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/shim/record"
)

// Recover reads what is on disk, finds the hosts that live, records the ends
// of those that do not, and finishes or undoes whatever was half done. It is
// called once, before any request. It fails on what it must not guess about,
// such as records of a newer version; then nothing has been taken away.
func (m *Manager) Recover(ctx context.Context) error {
	l, err := m.readAll()
	if err != nil {
		return fmt.Errorf("recover pods: %w", err)
	}
	for _, s := range l.sandboxes {
		m.recoverSandbox(s, l.netns)
	}
	m.recoverContainers(ctx, l.containers)
	m.sweep(ctx, l)
	m.log.Info("pods recovered", "sandboxes", len(m.index.sandboxes), "containers", len(m.index.containers))
	return nil
}

// leftovers is everything found on disk.
type leftovers struct {
	sandboxes  map[string]foundSandbox
	containers map[string]foundContainer
	netns      map[string]bool
}

type foundSandbox struct {
	id    string
	known bool // it has an identity
	identity
	state  sandboxState // zero: none
	config *runtime.PodSandboxConfig
}

type foundContainer struct {
	id    string
	known bool
	identity
	state  containerState
	config *runtime.ContainerConfig
}

// readAll reads without changing anything.
func (m *Manager) readAll() (leftovers, error) {
	l := leftovers{sandboxes: map[string]foundSandbox{}, containers: map[string]foundContainer{}, netns: map[string]bool{}}
	ids, err := m.folders(m.cfg.Run, dirSandboxes)
	if err != nil {
		return l, err
	}
	for _, id := range ids {
		f := foundSandbox{id: id, config: &runtime.PodSandboxConfig{}}
		if f.known, err = m.readObject(m.sandboxDir(id), sandboxRecord, sandboxStates, &f.identity, &f.state, f.config); err != nil {
			return l, err
		}
		l.sandboxes[id] = f
	}
	if ids, err = m.folders(m.cfg.Run, dirContainers); err != nil {
		return l, err
	}
	for _, id := range ids {
		f := foundContainer{id: id, config: &runtime.ContainerConfig{}}
		if f.known, err = m.readObject(m.containerDir(id), containerRecord, containerStates, &f.identity, &f.state, f.config); err != nil {
			return l, err
		}
		l.containers[id] = f
	}
	names, err := m.nets.List()
	if err != nil {
		return l, fmt.Errorf("list network namespaces: %w", err)
	}
	for _, n := range names {
		l.netns[n] = true
	}
	return l, nil
}

// folders lists the objects of a kind; what has no id of ours as its name is
// not ours to touch.
func (m *Manager) folders(base, kind string) ([]string, error) {
	dir := filepath.Join(base, kind)
	names, err := record.List(dir)
	if err != nil {
		return nil, err
	}
	ids := names[:0]
	for _, n := range names {
		if !isID(n) {
			m.log.Warn("a folder that is none of ours is left alone", "folder", filepath.Join(dir, n))
			continue
		}
		ids = append(ids, n)
	}
	return ids, nil
}

// readObject reads an object's records. Damaged ones are reported, here and
// once, and are as absent ones.
func (m *Manager) readObject(dir string, ik, sk record.Kind, id *identity, state any, config proto.Message) (known bool, err error) {
	read := func(name string, k record.Kind, v any) (bool, error) {
		err := record.Read(filepath.Join(dir, name), k, v)
		if errors.Is(err, record.ErrAbsent) {
			var damaged *record.DamagedError
			if errors.As(err, &damaged) {
				m.log.Warn("damaged record", "error", err)
			}
			return false, nil
		}
		return err == nil, err
	}
	if known, err = read(fileRecord, ik, id); err != nil {
		return false, err
	}
	if _, err := read(fileState, sk, state); err != nil {
		return false, err
	}
	if known {
		if err := proto.Unmarshal(id.Config, config); err != nil {
			return false, fmt.Errorf("record %s: %w", filepath.Join(dir, fileRecord), err)
		}
	}
	return known, nil
}

// recoverSandbox puts a sandbox into the index, as it was or not ready. One
// that is half made or half removed stays unlisted; sweep takes it away.
func (m *Manager) recoverSandbox(f foundSandbox, netns map[string]bool) {
	if !f.known {
		return
	}
	profile, gone := m.cfg.profile(f.Handler)
	if gone != nil {
		m.log.Warn("a pod's handler is not configured any more; no container can be added to it", "sandbox", f.id, "handler", f.Handler)
	}
	s := newSandbox(f.id, f.Handler, profile, f.config, f.Created)
	s.refused = gone
	var p SandboxPhase
	switch k := f.state.Kind; {
	case k == KindSandboxReady && m.stands(f, netns):
		p = toSandboxReady(SandboxPreparing{}, f.state.Netns)
	case k == KindSandboxReady, k == KindSandboxNotReady, k == "" && f.Boot != m.boot:
		// The last: made before the node went down, which took the state
		// with it.
		p = toSandboxNotReady(SandboxPreparing{})
	default:
		m.index.addSandbox(s)
		return
	}
	if p.Kind() != f.state.Kind || f.state.Boot != m.boot {
		if err := m.saveSandbox(s, p); err != nil {
			m.logOfSandbox(s).Error("could not record a sandbox's state", "error", err)
		}
		m.checkpoint("recover.sandbox")
	}
	if err := m.index.reserve(s.name, s.id); err != nil {
		m.logOfSandbox(s).Warn("two sandboxes of one name", "error", err)
	}
	m.index.addSandbox(s)
	m.index.setSandbox(s, p)
}

// stands reports whether what a ready sandbox stood on is still there.
func (m *Manager) stands(f foundSandbox, netns map[string]bool) bool {
	return f.state.Boot == m.boot && (f.state.Netns == "" || netns[f.id])
}

func (m *Manager) recoverContainers(ctx context.Context, l map[string]foundContainer) {
	var g sync.WaitGroup
	slots := make(chan struct{}, recoverParallel)
	for _, f := range l {
		s := m.index.sandboxes[f.Sandbox] // nobody else is here yet
		if !f.known || s == nil || s.view == nil {
			continue
		}
		c := &container{
			id: f.id, name: containerName(s, f.config.GetMetadata()), cgroup: f.Cgroup, sandbox: s, config: f.config,
			created: f.Created, turn: newTurn(), exited: make(chan struct{}), phase: Preparing{}, made: f.state.Made,
		}
		if c.made == nil && !m.forget(f, c) {
			continue
		}
		if f.state.Kind == KindRemoved {
			continue
		}
		slots <- struct{}{}
		g.Go(func() {
			defer func() { <-slots }()
			m.recoverContainer(ctx, c, f.state)
		})
	}
	g.Wait()
}

// forget reports whether a container without a state is to be remembered with
// what its identity tells: one that was made before the node went down. One
// of this boot is half made.
func (m *Manager) forget(f foundContainer, c *container) (keep bool) {
	if f.Boot == m.boot {
		return false
	}
	r, err := proto.Marshal(f.config.GetLinux().GetResources())
	if err != nil {
		return false
	}
	id := f.config.GetImage().GetImage()
	c.made = &made{ImageID: id, ImageRef: id, Resources: r, Container: m.outline(c)}
	return true
}

// recoverContainer walks a container from Preparing to where it stands now.
func (m *Manager) recoverContainer(ctx context.Context, c *container, st containerState) {
	if err := m.index.reserve(c.name, c.id); err != nil {
		m.logOf(c).Warn("two containers of one name", "error", err)
	}
	p, h := m.standing(ctx, c, st)
	if p.Kind() != st.Kind || st.Boot != m.boot {
		if err := m.saveContainer(c, p, c.made); err != nil {
			// A run folder that is full must not keep limpetd down: removing
			// pods is what makes room. The next start finds the same again.
			m.logOf(c).Error("could not record a container's state", "error", err)
		}
		m.checkpoint("recover.container")
	}
	m.index.addContainer(c)
	m.index.setContainer(c, p, nil)
	if p.Kind() == KindExited {
		close(c.exited)
	} else if h != nil {
		m.watch(c, h)
	}
}

// sweep takes away what no sandbox and no container owns: the half made, the
// half removed, and what they left elsewhere. What resists is logged, and the
// next start tries again.
func (m *Manager) sweep(ctx context.Context, l leftovers) {
	var g sync.WaitGroup
	slots := make(chan struct{}, recoverParallel)
	try := func(what, id string, do func() error) {
		slots <- struct{}{}
		g.Go(func() {
			defer func() { <-slots }()
			if err := do(); err != nil {
				m.log.Error("could not clean up; the next start of the daemon tries again", "what", what, "id", id, "error", err)
			}
			m.checkpoint("sweep." + what)
		})
	}
	for id, f := range l.containers {
		if _, ok := m.index.containers[id]; !ok {
			m.log.Info("taking away what is left of a container", "container", id)
			try("container", id, func() error { return m.discard(ctx, m.remains(f)) })
		}
	}
	g.Wait()
	for id, s := range m.index.sandboxes {
		if s.view == nil {
			delete(m.index.sandboxes, id)
		}
	}
	for id := range l.sandboxes {
		if _, ok := m.index.sandboxes[id]; !ok {
			m.log.Info("taking away what is left of a sandbox", "sandbox", id)
			try("sandbox", id, func() error {
				err := m.nets.Remove(ctx, id)
				m.checkpoint("sweep.unnetted")
				return errors.Join(err, os.RemoveAll(m.sandboxDir(id)))
			})
		}
	}
	m.sweepNets(ctx, l, try)
	m.sweepLeases(ctx, try)
	m.sweepSockets(try)
	m.sweepLayers(try)
	g.Wait()
}

// remains is a container of which only the traces matter.
func (m *Manager) remains(f foundContainer) *container {
	c := &container{id: f.id, cgroup: f.Cgroup, phase: Preparing{}, config: f.config, made: f.state.Made}
	return c
}

func (m *Manager) sweepNets(ctx context.Context, l leftovers, try func(what, id string, do func() error)) {
	for id := range l.netns {
		if s, ok := m.index.sandboxes[id]; ok && s.phase.Kind() == KindSandboxReady {
			continue
		}
		if _, ok := l.sandboxes[id]; ok && m.index.sandboxes[id] == nil {
			continue // went with its sandbox
		}
		try("network namespace", id, func() error { return m.nets.Remove(ctx, id) })
	}
}

func (m *Manager) sweepLeases(ctx context.Context, try func(what, id string, do func() error)) {
	leased, err := m.images.Leased(ctx)
	if err != nil {
		m.log.Error("could not list the images that containers hold", "error", err)
		return
	}
	for _, id := range leased {
		if _, ok := m.index.containers[id]; !ok {
			try("image lease", id, func() error { return m.images.Release(ctx, id) })
		}
	}
}

// sweepSockets removes control sockets that no container has: after a boot
// whose /run survived, or a folder removed by hand.
func (m *Manager) sweepSockets(try func(what, id string, do func() error)) {
	dir := filepath.Join(m.cfg.Run, "c")
	entries, err := os.ReadDir(dir)
	if err != nil {
		m.log.Error("could not list the control sockets", "error", err)
		return
	}
	owned := map[string]bool{}
	for id := range m.index.containers {
		owned[filepath.Base(m.socket(id))] = true
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".sock") && !owned[e.Name()] {
			try("control socket", e.Name(), func() error { return ignoreNotExist(os.Remove(filepath.Join(dir, e.Name()))) })
		}
	}
}

// sweepLayers removes the writable layers of containers that are not there
// any more, as after another boot.
func (m *Manager) sweepLayers(try func(what, id string, do func() error)) {
	ids, err := m.folders(m.cfg.Root, dirLayers)
	if err != nil {
		m.log.Error("could not list writable layers; the next start of the daemon tries again", "error", err)
		return
	}
	for _, id := range ids {
		if _, ok := m.index.containers[id]; !ok {
			try("writable layer", id, func() error { return os.RemoveAll(m.layerDir(id)) })
		}
	}
}
