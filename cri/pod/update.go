package pod

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/shim"
)

// UpdateContainerResources changes the limits of a container; what it leaves
// out stays. The bound of the guest's own memory follows the limit, so that
// memory.grow succeeds again after it has risen, and fails from the lower one on.
// A limit below what the container uses is refused: whether the kernel would
// end the container for it is no choice of the kubelet's.
func (m *Manager) UpdateContainerResources(ctx context.Context, id string, update *runtime.LinuxContainerResources) error {
	c, err := m.index.container(id)
	if err != nil {
		return fmt.Errorf("update: %w", err)
	}
	if err := m.update(ctx, c, update); err != nil {
		return fmt.Errorf("update container %s of pod %s: %w", c.config.GetMetadata().GetName(), podName(c.sandbox), err)
	}
	return nil
}

func (m *Manager) update(ctx context.Context, c *container, update *runtime.LinuxContainerResources) error {
	if err := checkFields(subject{ctr: &runtime.ContainerConfig{Linux: &runtime.LinuxContainerConfig{Resources: update}}}); err != nil {
		return inUpdate(err)
	}
	release, err := c.turn.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	s := m.index.snapshot(c)
	h, ok := hostOf(s.phase)
	if !ok {
		return fmt.Errorf("%w: it is %s, and only a container with a process has limits", ErrBadPhase, s.phase.Kind())
	}
	asked := merge(s.made.resources(), update)
	limits, guest, err := limits(asked, c.sandbox.profile)
	if err != nil {
		return inUpdate(err)
	}
	if limits.Memory != nil {
		check := true
		limits.Memory.CheckBeforeUpdate = &check
	}
	if err := h.Resize(ctx, limits, shim.Bound{From: s.made.Container.Limpet.MemoryLimit, To: guest}); err != nil {
		return err
	}
	if adj := asked.GetOomScoreAdj(); adj != s.made.resources().GetOomScoreAdj() {
		if err := h.SetOOMScoreAdj(int(adj)); err != nil {
			return err
		}
	}
	md := *s.made
	if md.Resources, err = proto.Marshal(asked); err != nil {
		return err
	}
	b, oci, linux := *md.Container, *md.Container.OCI, *md.Container.OCI.Linux
	linux.Resources, oci.Linux, b.OCI, md.Container = limits, &linux, &oci, &b
	b.Limpet.MemoryLimit = guest
	if err := m.saveContainer(c, s.phase, &md); err != nil {
		return fmt.Errorf("record the limits: %w", err)
	}
	m.index.setContainer(c, s.phase, &md)
	return nil
}

// inUpdate names a refused field as the request for an update has it.
func inUpdate(err error) error {
	var refused *FieldError
	if !errors.As(err, &refused) {
		return err
	}
	as := *refused
	as.Field = strings.Replace(as.Field, containerMessage+".linux.resources.", "UpdateContainerResourcesRequest.linux.", 1)
	return &as
}

// ReopenContainerLog lets a container write to a new file at its log's path,
// after the old one was moved away.
func (m *Manager) ReopenContainerLog(ctx context.Context, id string) error {
	c, err := m.index.container(id)
	if err != nil {
		return fmt.Errorf("reopen log: %w", err)
	}
	release, err := c.turn.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	p := m.index.phaseOf(c)
	h, ok := hostOf(p)
	if !ok {
		return fmt.Errorf("reopen log of container %s: %w: it is %s, and only a running one writes", id, ErrBadPhase, p.Kind())
	}
	return h.ReopenLog(ctx)
}
