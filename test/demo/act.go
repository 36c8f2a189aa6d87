package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/test/node"
)

// act is one pod of the demo: what it is, what has to come of it, and what
// came of it.
type act struct {
	name, guest, about string
	args               []string
	env                []*runtime.KeyValue
	mounts             []*runtime.Mount
	memory             int64 // limit in bytes
	stop               bool  // runs until it is stopped
	wantCode           int32
	wantReason         string

	image    string
	pod      *node.Pod
	status   *runtime.ContainerStatus
	stopTime time.Duration
	log      []string
}

const hogLimit = 64 << 20

// prepare makes the two volumes of the copying pod and lists the acts.
func prepare(n *node.Node) ([]act, error) {
	in, out := filepath.Join(n.Dir, "volume-in"), filepath.Join(n.Dir, "volume-out")
	if err := os.Mkdir(in, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(in, "letter.txt"), []byte("Dear reader,\nthis was copied by WebAssembly.\n"), 0o644); err != nil {
		return nil, err
	}
	if err := os.Mkdir(out, 0o777); err != nil {
		return nil, err
	}
	// A guest runs as an unprivileged user, so the volume must be open to it.
	if err := os.Chmod(out, 0o777); err != nil {
		return nil, err
	}
	return []act{
		{name: "hello", guest: "hello", about: "prints a line (Go)", wantReason: "Completed"},
		{name: "fails", guest: "exit3", about: "ends with exit code 3", wantCode: 3, wantReason: "Error"},
		{
			name: "copies", guest: "copy", about: "environment, arguments, two volumes", wantReason: "Completed",
			args:   []string{"/in/letter.txt", "/out/letter.txt"},
			env:    []*runtime.KeyValue{{Key: "GREETING", Value: []byte("good morning")}},
			mounts: []*runtime.Mount{{ContainerPath: "/in", HostPath: in, Readonly: true}, {ContainerPath: "/out", HostPath: out}},
		},
		{name: "traps", guest: "trap", about: "divides by zero", wantCode: 134, wantReason: "Trap"},
		{name: "greedy", guest: "hog", about: "wants more than its 64 MiB", memory: hogLimit, wantCode: 1, wantReason: "Error"},
		{name: "stays", guest: "forever", about: "runs until it is stopped", stop: true, wantCode: 143, wantReason: "Stopped"},
	}, nil
}

func pull(ctx context.Context, n *node.Node, a *act) error {
	ref, err := n.PushGuest(ctx, a.guest)
	if err != nil {
		return err
	}
	begin := time.Now()
	id, err := n.Pull(ctx, ref)
	if err != nil {
		return fmt.Errorf("PullImage %s: %w", ref, err)
	}
	a.image = id
	fmt.Printf("  %-28s %9s   %.19s\n", ref, short(time.Since(begin)), id)
	return nil
}

// config returns the two halves of the pod.
func (a *act) config(n *node.Node) (*runtime.PodSandboxConfig, *runtime.ContainerConfig) {
	s := node.Sandbox(a.name, filepath.Join(n.Dir, "logs", a.name), n.Cgroup, runtime.NamespaceMode_POD)
	c := node.Container(a.name, a.image, a.args...)
	c.Envs, c.Mounts = a.env, a.mounts
	belong(c, s)
	c.Linux.Resources.MemoryLimitInBytes = a.memory
	return s, c
}

// belong gives the container the labels by which crictl ps names its pod.
func belong(c *runtime.ContainerConfig, s *runtime.PodSandboxConfig) {
	maps.Copy(c.Labels, s.Labels)
}

// play runs the pod to its end.
func play(ctx context.Context, n *node.Node, a *act) error {
	s, c := a.config(n)
	if err := os.MkdirAll(s.LogDirectory, 0o755); err != nil {
		return err
	}
	var err error
	if a.pod, err = n.RunPod(ctx, "limpet", s, c); err != nil {
		return err
	}
	logFile := filepath.Join(s.LogDirectory, c.LogPath)
	if a.stop {
		if err := awaitLine(ctx, logFile, "ready"); err != nil {
			return err
		}
		begin := time.Now()
		if err := n.Stop(ctx, a.pod.Container, 10*time.Second); err != nil {
			return err
		}
		a.stopTime = time.Since(begin)
	}
	if a.status, err = n.AwaitExit(ctx, a.pod.Container); err != nil {
		return err
	}
	a.log, err = logLines(logFile)
	return err
}
