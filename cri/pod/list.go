package pod

import (
	"strings"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ListPodSandbox returns the sandboxes that a filter lets pass, in no order.
func (m *Manager) ListPodSandbox(f *runtime.PodSandboxFilter) []*runtime.PodSandbox {
	x := m.index
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make([]*runtime.PodSandbox, 0, len(x.sandboxes))
	for _, s := range x.sandboxes {
		v := s.view
		if v == nil || !strings.HasPrefix(v.GetId(), f.GetId()) || !selects(f.GetLabelSelector(), v.GetLabels()) {
			continue
		}
		if f.GetState() != nil && f.GetState().GetState() != v.GetState() {
			continue
		}
		out = append(out, v)
	}
	return out
}

// ListContainers returns the containers that a filter lets pass, in no order.
func (m *Manager) ListContainers(f *runtime.ContainerFilter) []*runtime.Container {
	x := m.index
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make([]*runtime.Container, 0, len(x.containers))
	for _, c := range x.containers {
		v := c.view
		if v == nil || !strings.HasPrefix(v.GetId(), f.GetId()) || !strings.HasPrefix(v.GetPodSandboxId(), f.GetPodSandboxId()) {
			continue
		}
		if f.GetState() != nil && f.GetState().GetState() != v.GetState() || !selects(f.GetLabelSelector(), v.GetLabels()) {
			continue
		}
		out = append(out, v)
	}
	return out
}

// selects reports whether labels have every pair of the selector.
func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}
