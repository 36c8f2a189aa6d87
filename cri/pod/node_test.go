package pod

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/test/scratch"
)

// node is a world with a disk, on which managers can be started again.
type node struct {
	*world
	t   testing.TB
	cfg Config
	log *slog.Logger
}

func newNode(t testing.TB) *node {
	t.Helper()
	c := DefaultConfig()
	dir := scratch.Dir(t)
	c.Root, c.Run = filepath.Join(dir, "root"), filepath.Join(dir, "run")
	return &node{world: newWorld(), t: t, cfg: c, log: quiet()}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start starts a daemon on the node.
func (n *node) start() *Manager {
	n.t.Helper()
	m, err := New(n.cfg, fakeImages{n.world}, fakeHosts{n.world}, fakeNets{n.world}, n.log)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := m.Recover(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { m.Close() })
	return m
}

func (n *node) host(id string) *fakeHost {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hosts[id]
}

// leftovers are what is on the node: of the world and on disk.
func (n *node) leftovers() []string {
	l := n.inventory()
	for _, d := range n.cfg.folders() {
		entries, err := os.ReadDir(d)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, e := range entries {
			l = append(l, "folder "+filepath.Base(d)+"/"+e.Name())
		}
	}
	return l
}

func podConfig(name string) *runtime.PodSandboxConfig {
	return &runtime.PodSandboxConfig{
		Metadata: &runtime.PodSandboxMetadata{Name: name, Namespace: "ns", Uid: "uid-" + name},
		Hostname: name, LogDirectory: "/tmp/limpet-logs-of-tests", Labels: map[string]string{"io.kubernetes.pod.uid": "uid-" + name},
		Annotations: map[string]string{"kept": "as it is"},
		Linux:       &runtime.LinuxPodSandboxConfig{CgroupParent: "/kubepods/besteffort/pod" + name},
	}
}

func containerConfig(name string) *runtime.ContainerConfig {
	return &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: name}, Image: &runtime.ImageSpec{Image: testImage, UserSpecifiedImage: "example.test/app:1"},
		Labels: map[string]string{"io.kubernetes.container.name": name}, Annotations: map[string]string{"hash": "\u00e9"},
		Envs: []*runtime.KeyValue{{Key: "BYTES", Value: []byte{0xff, 0xfe}}},
	}
}

func request(pod string, c *runtime.ContainerConfig) *runtime.CreateContainerRequest {
	return &runtime.CreateContainerRequest{PodSandboxId: pod, Config: c}
}

// running makes a pod with one running container.
func running(t testing.TB, m *Manager, name string) (pod, ctr string) {
	t.Helper()
	pod, err := m.RunPodSandbox(t.Context(), podConfig(name), "")
	if err != nil {
		t.Fatal(err)
	}
	if ctr, err = m.CreateContainer(t.Context(), request(pod, containerConfig("c"))); err != nil {
		t.Fatal(err)
	}
	if err := m.StartContainer(t.Context(), ctr); err != nil {
		t.Fatal(err)
	}
	return pod, ctr
}

func status(t testing.TB, m *Manager, id string) *runtime.ContainerStatus {
	t.Helper()
	r, err := m.ContainerStatus(id, true)
	if err != nil {
		t.Fatal(err)
	}
	return r.GetStatus()
}

// awaitExit waits until a container's end is recorded.
func awaitExit(t testing.TB, m *Manager, id string) *runtime.ContainerStatus {
	t.Helper()
	c, err := m.index.container(id)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.exited:
	case <-t.Context().Done():
		t.Fatal("test ended first")
	}
	return status(t, m, id)
}

func must(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", what, err))
	}
}
