package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Client is a CRI client of any runtime.
type Client struct {
	Runtime runtime.RuntimeServiceClient
	Images  runtime.ImageServiceClient
	conn    *grpc.ClientConn
}

// Dial makes a client of the runtime that listens on a unix socket.
func Dial(socket string) (*Client, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)), grpc.WithConnectParams(quick))
	if err != nil {
		return nil, err
	}
	return &Client{runtime.NewRuntimeServiceClient(conn), runtime.NewImageServiceClient(conn), conn}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Ready asks whether the runtime calls itself ready.
func (c *Client) Ready(ctx context.Context) error {
	r, err := c.Runtime.Status(ctx, &runtime.StatusRequest{})
	if err != nil {
		return err
	}
	for _, cond := range r.GetStatus().GetConditions() {
		if cond.Type == runtime.RuntimeReady && !cond.Status {
			return fmt.Errorf("not ready: %s %s", cond.Reason, cond.Message)
		}
	}
	return nil
}

// Pull pulls an image and returns its id.
func (c *Client) Pull(ctx context.Context, ref string) (string, error) {
	r, err := c.Images.PullImage(ctx, &runtime.PullImageRequest{Image: &runtime.ImageSpec{Image: ref}})
	return r.GetImageRef(), err
}

// Pod is a sandbox with one container, as the client asked for it.
type Pod struct {
	Sandbox, Container string
	Config             *runtime.PodSandboxConfig
	Times              Times
}

// Times are how long the calls took that made a pod run.
type Times struct{ Run, Create, Start time.Duration }

// Total is the time from the first call to the last answer.
func (t Times) Total() time.Duration { return t.Run + t.Create + t.Start }

// RunPod makes a sandbox, and one container in it, and starts that. What was
// made before a failure is in the returned Pod, for Remove.
func (c *Client) RunPod(ctx context.Context, handler string, sandbox *runtime.PodSandboxConfig, container *runtime.ContainerConfig) (*Pod, error) {
	p := &Pod{Config: sandbox}
	begin := time.Now()
	run, err := c.Runtime.RunPodSandbox(ctx, &runtime.RunPodSandboxRequest{Config: sandbox, RuntimeHandler: handler})
	p.Times.Run = time.Since(begin)
	if err != nil {
		return p, fmt.Errorf("RunPodSandbox: %w", err)
	}
	p.Sandbox = run.GetPodSandboxId()
	begin = time.Now()
	create, err := c.Runtime.CreateContainer(ctx, &runtime.CreateContainerRequest{PodSandboxId: p.Sandbox, Config: container, SandboxConfig: sandbox})
	p.Times.Create = time.Since(begin)
	if err != nil {
		return p, fmt.Errorf("CreateContainer: %w", err)
	}
	p.Container = create.GetContainerId()
	begin = time.Now()
	_, err = c.Runtime.StartContainer(ctx, &runtime.StartContainerRequest{ContainerId: p.Container})
	p.Times.Start = time.Since(begin)
	if err != nil {
		return p, fmt.Errorf("StartContainer: %w", err)
	}
	return p, nil
}

// Status returns the state of the pod's container.
func (c *Client) Status(ctx context.Context, container string) (*runtime.ContainerStatus, error) {
	r, err := c.Runtime.ContainerStatus(ctx, &runtime.ContainerStatusRequest{ContainerId: container})
	return r.GetStatus(), err
}

// AwaitExit waits until the container has ended.
func (c *Client) AwaitExit(ctx context.Context, container string) (*runtime.ContainerStatus, error) {
	for {
		s, err := c.Status(ctx, container)
		if err != nil {
			return nil, err
		}
		if s.GetState() == runtime.ContainerState_CONTAINER_EXITED {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, fmt.Errorf("container %.12s is still %s: %w", container, s.GetState(), ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Stop ends the container, at the latest after the grace period.
func (c *Client) Stop(ctx context.Context, container string, grace time.Duration) error {
	_, err := c.Runtime.StopContainer(ctx, &runtime.StopContainerRequest{ContainerId: container, Timeout: int64(grace / time.Second)})
	return err
}

// RemovePod stops and removes a sandbox with its containers.
func (c *Client) RemovePod(ctx context.Context, sandbox string) error {
	if sandbox == "" {
		return nil
	}
	if _, err := c.Runtime.StopPodSandbox(ctx, &runtime.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		return err
	}
	_, err := c.Runtime.RemovePodSandbox(ctx, &runtime.RemovePodSandboxRequest{PodSandboxId: sandbox})
	return err
}

// RemoveAll removes every sandbox of the runtime: only for one of our own.
func (c *Client) RemoveAll(ctx context.Context) error {
	r, err := c.Runtime.ListPodSandbox(ctx, &runtime.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range r.GetItems() {
		errs = append(errs, c.RemovePod(ctx, s.GetId()))
	}
	return errors.Join(errs...)
}

// Sandbox returns the configuration of a sandbox, as a kubelet would fill it.
func Sandbox(name, logs, cgroup string, network runtime.NamespaceMode) *runtime.PodSandboxConfig {
	s := &runtime.PodSandboxConfig{
		Metadata:     &runtime.PodSandboxMetadata{Name: name, Uid: name + "-uid", Namespace: "default"},
		LogDirectory: logs,
		Labels: map[string]string{
			"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": name + "-uid",
		},
		Linux: &runtime.LinuxPodSandboxConfig{
			CgroupParent: strings.TrimSuffix(cgroup, "/") + "/pod" + name,
			SecurityContext: &runtime.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtime.NamespaceOption{
					Network: network, Pid: runtime.NamespaceMode_CONTAINER, Ipc: runtime.NamespaceMode_POD,
				},
				Seccomp: &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_RuntimeDefault},
			},
		},
	}
	if network != runtime.NamespaceMode_NODE {
		s.Hostname = name
	}
	return s
}

// Container returns the configuration of a container with a log, NAME.log.
func Container(name, image string, args ...string) *runtime.ContainerConfig {
	return &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: name},
		Image:    &runtime.ImageSpec{Image: image, UserSpecifiedImage: image},
		Args:     args,
		LogPath:  name + ".log",
		Labels:   map[string]string{"io.kubernetes.container.name": name},
		Linux: &runtime.LinuxContainerConfig{
			Resources: &runtime.LinuxContainerResources{CpuShares: 2, OomScoreAdj: 1000},
		},
	}
}
