package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/test/node"
)

// side is one of the two runtimes.
type side struct {
	*node.Client
	name, version string
	handler       string
	image         string // the container's
	args          []string
	daemon        int // process id
	stop          func() error
}

// limpet is the node's own limpetd.
func limpet(ctx context.Context, n *node.Node) (*side, error) {
	ref, err := n.PushGuest(ctx, "forever")
	if err != nil {
		return nil, err
	}
	s := &side{Client: n.Client, name: "limpet", handler: "limpet", daemon: n.PID()}
	return s, s.prepare(ctx, ref)
}

// prepare asks for the version and pulls the image.
func (s *side) prepare(ctx context.Context, ref string) error {
	v, err := s.Runtime.Version(ctx, &runtime.VersionRequest{})
	if err != nil {
		return err
	}
	s.version = v.GetRuntimeName() + " " + v.GetRuntimeVersion()
	s.image, err = s.Pull(ctx, ref)
	if err != nil {
		return fmt.Errorf("%s: pull %s: %w", s.name, ref, err)
	}
	return nil
}

const containerdConfig = `version = 4
root = '%[1]s/root'
state = '%[1]s/state'
imports = []
disabled_plugins = ['io.containerd.nri.v1.nri']
[plugins.'io.containerd.server.v1.grpc']
  address = '%[1]s/c.sock'
[plugins.'io.containerd.server.v1.ttrpc']
  address = '%[1]s/c.sock.ttrpc'
[plugins.'io.containerd.internal.v1.opt']
  path = '%[1]s/opt'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '%[2]s'
[plugins.'io.containerd.cri.v1.runtime']
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true
  cdi_spec_dirs = []
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['%[1]s/cni']
  conf_dir = '%[1]s/cni'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = '%[3]s/runc'
  SystemdCgroup = false
`

// containerd starts the peer in a folder of its own.
func containerd(ctx context.Context, n *node.Node) (*side, error) {
	peers := filepath.Join(filepath.Dir(n.Bin), "build", "peers")
	dir := filepath.Join(n.Dir, "containerd")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := node.MountMemory(filepath.Join(dir, "state")); err != nil {
		return nil, err
	}
	pause, idle, err := pushNative(ctx, n, dir)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, containerdConfig, dir, pause, peers), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(peers, "containerd"), "-c", file)
	cmd.Env = append(os.Environ(), "PATH="+peers+":"+os.Getenv("PATH"))
	logFile, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the bench, which then removes the pods
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &side{name: "containerd", daemon: cmd.Process.Pid, args: []string{"ready"}}
	s.stop = func() error { return s.end(cmd) }
	if s.Client, err = node.Dial(filepath.Join(dir, "c.sock")); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	if err := s.await(ctx); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	if err := s.prepare(ctx, idle); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

const readyLimit = 30 * time.Second

func (s *side) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for {
		err := s.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("containerd does not answer: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// end removes what is left and stops the peer.
func (s *side) end(cmd *exec.Cmd) error {
	var errs []error
	if s.Client != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		errs = append(errs, s.RemoveAll(ctx), s.Client.Close())
	}
	errs = append(errs, cmd.Process.Signal(syscall.SIGTERM))
	cmd.Wait() // containerd ends with whatever code it likes
	return errors.Join(errs...)
}
