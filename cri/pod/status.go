package pod

import (
	"encoding/json"
	"fmt"
	"syscall"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// infoKey is under which crictl looks for the verbose part of a status.
const infoKey = "info"

// PodSandboxStatus tells everything about a sandbox.
func (m *Manager) PodSandboxStatus(id string, verbose bool) (*runtime.PodSandboxStatusResponse, error) {
	s, err := m.index.sandbox(id)
	if err != nil {
		return nil, err
	}
	st := m.sandboxStatus(s)
	if st == nil {
		return nil, fmt.Errorf("sandbox %q: %w", id, ErrNotFound)
	}
	r := &runtime.PodSandboxStatusResponse{Status: st}
	if !verbose {
		return r, nil
	}
	netns := ""
	if p, ok := m.index.sandboxPhase(s).(SandboxReady); ok {
		netns = p.Netns
	}
	r.Info, err = info(struct {
		Handler      string `json:"runtimeHandler"`
		CgroupParent string `json:"cgroupParent"`
		Netns        string `json:"networkNamespace,omitempty"`
		Folder       string `json:"folder"`
		Phase        Kind   `json:"phase"`
		Containers   int    `json:"containers"`
	}{s.handler, s.config.GetLinux().GetCgroupParent(), netns, m.sandboxDir(s.id), m.index.sandboxPhase(s).Kind(), len(m.index.containersOf(s))})
	return r, err
}

// sandboxStatus is nil for a sandbox that is not listed. The network stays nil
// while there is no address: an empty one makes the kubelet start over.
func (m *Manager) sandboxStatus(s *sandbox) *runtime.PodSandboxStatus {
	m.index.mu.RLock()
	v := s.view
	m.index.mu.RUnlock()
	if v == nil {
		return nil
	}
	st := &runtime.PodSandboxStatus{
		Id: s.id, Metadata: v.GetMetadata(), State: v.GetState(), CreatedAt: v.GetCreatedAt(),
		Labels: v.GetLabels(), Annotations: v.GetAnnotations(), RuntimeHandler: s.handler,
		Linux: &runtime.LinuxPodSandboxStatus{Namespaces: &runtime.Namespace{Options: s.config.GetLinux().GetSecurityContext().GetNamespaceOptions()}},
	}
	return st
}

// ContainerStatus tells everything about a container.
func (m *Manager) ContainerStatus(id string, verbose bool) (*runtime.ContainerStatusResponse, error) {
	c, err := m.index.container(id)
	if err != nil {
		return nil, err
	}
	s := m.index.snapshot(c)
	st := m.containerStatus(s)
	if st == nil {
		return nil, fmt.Errorf("container %q: %w", id, ErrNotFound)
	}
	r := &runtime.ContainerStatusResponse{Status: st}
	if !verbose {
		return r, nil
	}
	pid := 0
	if h, ok := hostOf(s.phase); ok {
		pid = h.PID()
	}
	detail := struct {
		Sandbox string `json:"sandboxID"`
		PID     int    `json:"pid"`
		Phase   Kind   `json:"phase"`
		Folder  string `json:"folder"`
		Socket  string `json:"controlSocket"`
		Limpet  any    `json:"limpet,omitempty"`
		Spec    any    `json:"runtimeSpec,omitempty"`
	}{Sandbox: c.sandbox.id, PID: pid, Phase: s.phase.Kind(), Folder: m.containerDir(c.id), Socket: m.socket(c.id)}
	if b := s.made.Container; b != nil {
		detail.Limpet, detail.Spec = b.Limpet, b.OCI
	}
	r.Info, err = info(detail)
	return r, err
}

func info(v any) (map[string]string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode the verbose status: %w", err)
	}
	return map[string]string{infoKey: string(b)}, nil
}

// containerStatus is nil for a container that is not listed.
func (m *Manager) containerStatus(s snapshot) *runtime.ContainerStatus {
	state, listed := stateOf(s.phase)
	if !listed {
		return nil
	}
	log, err := logPath(s.sandbox.config, s.config)
	if err != nil {
		log = "" // refused at creation
	}
	st := &runtime.ContainerStatus{
		Id: s.id, Metadata: s.config.GetMetadata(), State: state, CreatedAt: s.created,
		Image: s.image(s.made), ImageRef: s.made.ImageRef, ImageId: s.made.ImageID,
		Labels: s.config.GetLabels(), Annotations: s.config.GetAnnotations(), Mounts: s.config.GetMounts(), LogPath: log,
		Resources:  &runtime.ContainerResources{Linux: s.made.resources()},
		User:       &runtime.ContainerUser{Linux: &runtime.LinuxContainerUser{Uid: s.made.User.UID, Gid: s.made.User.GID, SupplementalGroups: s.made.User.Groups}},
		StopSignal: criSignal(syscall.Signal(s.made.StopSignal)),
	}
	if at := startedAt(s.phase); !at.IsZero() {
		st.StartedAt = at.UnixNano()
	}
	switch p := s.phase.(type) {
	case Exited:
		st.FinishedAt, st.ExitCode = p.Exit.At.UnixNano(), p.Exit.Code
		st.Reason, st.Message = string(p.Exit.Reason), p.Exit.Message
	case Lost:
		st.Reason, st.Message = "HostSilent", "its process does not answer since the daemon was restarted: "+p.Why.Error()
	case Preparing, Created, Starting, Running, Stopping, Removed:
	}
	return st
}
