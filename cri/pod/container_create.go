package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/image"
	"github.com/limpet-cri/limpet/shim/spec"
)

// CreateContainer makes a container whose host waits for StartContainer, and
// returns its id. When it fails, nothing is left of it and the name is free.
func (m *Manager) CreateContainer(ctx context.Context, r *runtime.CreateContainerRequest) (string, error) {
	s, err := m.index.sandbox(r.GetPodSandboxId())
	if err != nil {
		return "", fmt.Errorf("create container: %w", err)
	}
	name := r.GetConfig().GetMetadata().GetName()
	id, err := m.createIn(ctx, s, r.GetConfig())
	if err != nil {
		return "", fmt.Errorf("create container %s of pod %s: %w", name, podName(s), err)
	}
	m.publish(s, id, runtime.ContainerEventType_CONTAINER_CREATED_EVENT)
	return id, nil
}

func (m *Manager) createIn(ctx context.Context, s *sandbox, config *runtime.ContainerConfig) (id string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.wanted, cancel)()
	defer func() {
		if errors.Is(err, context.Canceled) && s.wanted.Err() != nil {
			id, err = "", fmt.Errorf("%w: the sandbox is being stopped", ErrBadPhase)
		}
	}()
	release, err := s.turn.share(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	if p := m.index.sandboxPhase(s); p.Kind() != KindSandboxReady {
		return "", notReady(p)
	}
	if s.refused != nil {
		return "", s.refused
	}
	if config.GetMetadata().GetName() == "" {
		return "", invalid("the container has no metadata.name")
	}
	if err := checkSize(config, config.GetLabels(), config.GetAnnotations()); err != nil {
		return "", err
	}
	ref := config.GetImage().GetImage()
	if ref == "" {
		return "", invalid("the container has no image")
	}
	i, found, err := m.images.Status(ref)
	if err != nil {
		return "", fmt.Errorf("image %s: %w", ref, err)
	}
	if !found {
		return "", fmt.Errorf("image %s: %w: pull it first", ref, image.ErrNotFound)
	}
	c := &container{
		id: newID(), sandbox: s, config: proto.CloneOf(config), created: time.Now().UnixNano(),
		turn: newTurn(), exited: make(chan struct{}), phase: Preparing{},
	}
	c.name, c.cgroup = containerName(s, config.GetMetadata()), cgroupPath(s.config, c.id)
	p, err := m.planContainer(c, i)
	if err != nil {
		return "", err
	}
	if err := m.index.reserve(c.name, c.id); err != nil {
		return "", err
	}
	if err := m.create(ctx, c, p); err != nil {
		return "", err
	}
	m.logOf(c).Info("container created", "name", config.GetMetadata().GetName(), "image", ref)
	return c.id, nil
}

// notReady is what becomes of a call that needs a sandbox that is ready.
func notReady(p SandboxPhase) error {
	return fmt.Errorf("%w: the sandbox is %s, since it was stopped or the node was restarted; run a new one for the pod", ErrBadPhase, p.Kind())
}

// create does what CreateContainer does beyond checking.
func (m *Manager) create(ctx context.Context, c *container, p *plan) (err error) {
	var u undo
	defer func() {
		if err != nil {
			m.undone(ctx, &u, m.logOf(c))
		}
	}()
	u.add(func(context.Context) error { m.index.dropContainer(c); return nil })
	m.index.addContainer(c)

	m.checkpoint("create.reserved")
	u.add(func(ctx context.Context) error { return m.discard(ctx, c) })
	id := identity{ID: c.id, Sandbox: c.sandbox.id, Cgroup: c.cgroup, Boot: m.boot, Created: c.created}
	if err := writeIdentity(m.containerDir(c.id), containerRecord, id, c.config); err != nil {
		return fmt.Errorf("record the container: %w", err)
	}
	m.checkpoint("create.recorded")
	prepared, err := m.images.Prepare(ctx, p.image.ID, c.id, program(p.args, p.named, p.image), c.sandbox.profile.Proposals)
	if err != nil {
		return fmt.Errorf("image %s: %w", c.config.GetImage().GetImage(), err)
	}
	m.checkpoint("create.prepared")
	if p.log != "" {
		if err := os.MkdirAll(filepath.Dir(p.log), 0o755); err != nil {
			return fmt.Errorf("make the folder of the log: %w", err)
		}
		m.checkpoint("create.log")
	}
	b := m.blueprint(c, p, prepared)
	h, err := m.host(ctx, c, prepared, b)
	if err != nil {
		return err
	}
	m.checkpoint("create.hosted")
	md, err := madeOf(c, p, prepared, b)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err // nobody would hear its id
	}
	created := toCreated(Preparing{}, h)
	if err := m.saveContainer(c, created, md); err != nil {
		return fmt.Errorf("record the container: %w", err)
	}
	m.checkpoint("create.saved")
	m.index.setContainer(c, created, md)
	m.watch(c, h)
	return nil
}

// host opens the root and makes the host.
func (m *Manager) host(ctx context.Context, c *container, prepared *image.Prepared, b *spec.Container) (Host, error) {
	root, err := m.openRoot(c, prepared)
	if err != nil {
		return nil, fmt.Errorf("open the image's file system: %w", err)
	}
	if root != nil {
		defer root.Close()
	}
	m.checkpoint("create.rooted")
	return m.hosts.Create(ctx, b, root)
}

// discard takes away whatever there is of a container: process, cgroup,
// lease, folder. Each step can be repeated, and the folder, which tells that
// there is something to do, goes last.
func (m *Manager) discard(ctx context.Context, c *container) error {
	if err := m.images.Release(ctx, c.id); err != nil {
		return fmt.Errorf("release the image: %w", err)
	}
	m.checkpoint("discard.released")
	b := m.outline(c)
	if md := m.index.snapshot(c).made; md != nil && md.Container != nil {
		b = md.Container
	}
	if err := m.hosts.Remove(ctx, b); err != nil {
		return fmt.Errorf("remove the host: %w", err)
	}
	m.checkpoint("discard.unhosted")
	if err := os.RemoveAll(m.layerDir(c.id)); err != nil {
		return fmt.Errorf("remove the writable layer: %w", err)
	}
	m.checkpoint("discard.unlayered")
	if err := os.RemoveAll(m.containerDir(c.id)); err != nil {
		return err
	}
	m.checkpoint("discard.done")
	return nil
}

// containerName is what no two containers share.
func containerName(s *sandbox, md *runtime.ContainerMetadata) string {
	return strings.Join([]string{"container", s.id, md.GetName(), strconv.FormatUint(uint64(md.GetAttempt()), 10)}, "/")
}

// layer returns the folders of a container's writable layer.
func (m *Manager) layer(id string) (upper, work string) {
	return filepath.Join(m.layerDir(id), dirUpper), filepath.Join(m.layerDir(id), dirWork)
}
