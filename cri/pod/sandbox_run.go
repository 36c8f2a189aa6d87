package pod

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RunPodSandbox makes a sandbox ready for containers and returns its id. When
// it fails, nothing is left of it and the name is free.
func (m *Manager) RunPodSandbox(ctx context.Context, config *runtime.PodSandboxConfig, handler string) (string, error) {
	profile, err := m.cfg.profile(handler)
	if err != nil {
		return "", err
	}
	if err := checkSandbox(config, profile); err != nil {
		return "", err
	}
	config = proto.CloneOf(config)
	s := newSandbox(newID(), handler, profile, config, time.Now().UnixNano())
	if err := m.index.reserve(s.name, s.id); err != nil {
		return "", fmt.Errorf("run sandbox of pod %s: %w", podName(s), err)
	}
	if err := m.runSandbox(ctx, s); err != nil {
		return "", fmt.Errorf("run sandbox of pod %s: %w", podName(s), err)
	}
	m.logOfSandbox(s).Info("sandbox ready", "handler", handler)
	m.publish(s, s.id, runtime.ContainerEventType_CONTAINER_CREATED_EVENT)
	m.publish(s, s.id, runtime.ContainerEventType_CONTAINER_STARTED_EVENT)
	return s.id, nil
}

func (m *Manager) runSandbox(ctx context.Context, s *sandbox) (err error) {
	var u undo
	defer func() {
		if err != nil {
			m.undone(ctx, &u, m.logOfSandbox(s))
		}
	}()
	u.add(func(context.Context) error { m.index.dropSandbox(s); return nil })
	m.index.addSandbox(s)

	m.checkpoint("run.reserved")
	u.add(func(context.Context) error { return os.RemoveAll(m.sandboxDir(s.id)) })
	id := identity{ID: s.id, Handler: s.handler, Boot: m.boot, Created: s.created}
	if err := writeIdentity(m.sandboxDir(s.id), sandboxRecord, id, s.config); err != nil {
		return fmt.Errorf("record the sandbox: %w", err)
	}
	m.checkpoint("run.recorded")
	ready := toSandboxReady(SandboxPreparing{}, "")
	if !hostNetwork(s.config) {
		u.add(func(ctx context.Context) error { return m.nets.Remove(ctx, s.id) })
		path, err := m.nets.Create(ctx, s.id)
		if err != nil {
			return fmt.Errorf("make the network namespace: %w", err)
		}
		ready.Netns = path
	}
	m.checkpoint("run.networked")
	if err := m.writeSandboxFiles(s); err != nil {
		return err
	}
	m.checkpoint("run.files")
	if err := ctx.Err(); err != nil {
		return err // nobody would hear its id
	}
	if err := m.saveSandbox(s, ready); err != nil {
		return fmt.Errorf("record the sandbox: %w", err)
	}
	m.checkpoint("run.ready")
	m.index.setSandbox(s, ready)
	return nil
}

// sandboxName is what no two sandboxes share. A name cannot hold a slash.
func sandboxName(md *runtime.PodSandboxMetadata) string {
	return strings.Join([]string{"sandbox", md.GetNamespace(), md.GetName(), md.GetUid(), strconv.FormatUint(uint64(md.GetAttempt()), 10)}, "/")
}

func hostNetwork(c *runtime.PodSandboxConfig) bool {
	return c.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() == runtime.NamespaceMode_NODE
}

// checkSandbox refuses what cannot be run, before anything is made.
func checkSandbox(c *runtime.PodSandboxConfig, p Profile) error {
	if c.GetMetadata().GetName() == "" {
		return invalid("the sandbox has no metadata.name")
	}
	if err := checkSize(c, c.GetLabels(), c.GetAnnotations()); err != nil {
		return err
	}
	if err := checkHostname(c); err != nil {
		return err
	}
	sc := c.GetLinux().GetSecurityContext()
	if sc.GetRunAsGroup() != nil && sc.GetRunAsUser() == nil {
		return invalid("linux.security_context.run_as_group is set without run_as_user")
	}
	if err := checkFields(subject{pod: c}); err != nil {
		return err
	}
	return checkAnnotations(c.GetAnnotations(), p, hostNetwork(c))
}
