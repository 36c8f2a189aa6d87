package cri

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// life makes containers of one pod with a network of its own, in every state.
type life struct {
	*site
	t   *testing.T
	pod string
	ref string
}

func (l life) created(name string) string {
	l.t.Helper()
	id, err := l.create(l.t, l.pod, name, l.ref)
	if err != nil {
		l.t.Fatal(err)
	}
	return id
}

func (l life) started(name string) string {
	l.t.Helper()
	id := l.created(name)
	if _, err := l.runtime.StartContainer(l.t.Context(), &runtime.StartContainerRequest{ContainerId: id}); err != nil {
		l.t.Fatal(err)
	}
	return id
}

func (l life) stop(ctx context.Context, id string, timeout int64) error {
	_, err := l.runtime.StopContainer(ctx, &runtime.StopContainerRequest{ContainerId: id, Timeout: timeout})
	return err
}

// stopping is one whose stop waits for the guest, which does not end.
func (l life) stopping(name string) (stopped <-chan error) {
	l.t.Helper()
	id := l.started(name)
	c := make(chan error, 1)
	go func() { c <- l.stop(l.t.Context(), id, math.MaxInt64) }()
	for { // until the stop has been recorded, each answer taking its time
		r, err := l.runtime.ContainerStatus(l.t.Context(), &runtime.ContainerStatusRequest{ContainerId: id, Verbose: true})
		if err != nil {
			l.t.Fatal(err)
		}
		if strings.Contains(r.GetInfo()["info"], `"phase":"Stopping"`) {
			return c
		}
	}
}

// A pod with a container in each state stops and goes, within a bound, whether
// it was stopped before or not, and leaves nothing.
func TestPodsEndFromEveryState(t *testing.T) {
	s, guest := whole(t)
	ref := guest("forever")
	s.pull(t, ref)
	for _, stopFirst := range []bool{true, false} {
		config := s.sandbox("whole")
		config.Hostname, config.Linux.SecurityContext = "whole", nil
		config.Annotations = map[string]string{"limpet.dev/on-stop.stopping": "wait"}
		r, err := s.runtime.RunPodSandbox(t.Context(), &runtime.RunPodSandboxRequest{Config: config})
		if err != nil {
			t.Fatal(err)
		}
		l := life{s, t, r.GetPodSandboxId(), ref}
		l.created("created")
		running := l.started("running")
		exited := l.started("exited")
		if err := l.stop(t.Context(), exited, math.MinInt64); err != nil {
			t.Errorf("a stop with a negative timeout: %v", err)
		}
		stopped := l.stopping("stopping")
		if _, err := s.runtime.StartContainer(t.Context(), &runtime.StartContainerRequest{ContainerId: running}); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("the second start: %v", err)
		}
		begun := time.Now()
		if stopFirst {
			s.removePod(t, l.pod)
		}
		for range 2 { // the last is of what is gone
			if _, err := s.runtime.RemovePodSandbox(t.Context(), &runtime.RemovePodSandboxRequest{PodSandboxId: l.pod}); err != nil {
				t.Errorf("remove: %v", err)
			}
		}
		if err := <-stopped; err != nil {
			t.Errorf("the stop that was under way: %v", err)
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("the end took %s", took)
		}
		s.wantNothing(t)
	}
}

// wantNothing looks for what a pod could leave on the node; the cgroups are
// looked for at the test's end.
func (s *site) wantNothing(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"netns", "layers", "r/sandboxes", "r/containers", "r/c"} {
		if left, err := filepath.Glob(filepath.Join(s.dir, dir, "*")); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), s.dir) {
		t.Errorf("a mount below %s is left (%v)", s.dir, err)
	}
	if r, err := s.runtime.ListContainers(t.Context(), &runtime.ListContainersRequest{}); err != nil || len(r.GetContainers()) > 0 {
		t.Errorf("listed: %v, %v", r, err)
	}
}

// A client that goes away at any moment of a call leaves the whole of its
// outcome or nothing: what is listed can be removed, and there is no more.
func TestClientsGoAtAnyMoment(t *testing.T) {
	s, guest := whole(t)
	ref := guest("forever")
	s.pull(t, ref)
	l := life{s, t, s.run(t, "whole"), ref}
	for n := range 30 {
		// The whole of it takes a few milliseconds.
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n)*400*time.Microsecond)
		r, err := s.runtime.CreateContainer(ctx, &runtime.CreateContainerRequest{PodSandboxId: l.pod, Config: &runtime.ContainerConfig{
			Metadata: &runtime.ContainerMetadata{Name: "c", Attempt: uint32(n)}, Image: &runtime.ImageSpec{Image: ref},
		}})
		if err == nil {
			_, err = s.runtime.StartContainer(ctx, &runtime.StartContainerRequest{ContainerId: r.GetContainerId()})
		}
		if err == nil {
			err = l.stop(ctx, r.GetContainerId(), 1)
		}
		if c := status.Code(err); err != nil && c != codes.DeadlineExceeded && c != codes.Canceled {
			t.Errorf("%d: %v", n, err)
		}
		cancel()
	}
	s.removePod(t, l.pod)
	s.wantNothing(t)
	if strings.Contains(s.log.String(), "panic") {
		t.Errorf("a call panicked:\n%s", s.log)
	}
}
