package cri

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/cri/pod"
	"github.com/limpet-cri/limpet/shim"
	"github.com/limpet-cri/limpet/shim/cgroup"
	"github.com/limpet-cri/limpet/test/scratch"
)

// whole is a site whose pods really run: with the limpet-host and the guests
// that were built, in cgroups of its own.
func whole(t *testing.T) (s *site, guest func(name string) string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	top := os.Getenv("LIMPET_BUILD")
	if top == "" {
		top = ".."
	}
	host, err := filepath.Abs(filepath.Join(top, "bin", "limpet-host"))
	if err != nil {
		t.Fatal(err)
	}
	guests := filepath.Join(top, "build", "guests")
	for _, p := range []string{host, guests} {
		if _, err := os.Stat(p); err != nil {
			t.Skipf("needs make build guests: %v", err)
		}
	}
	run := scratch.Dir(t)
	groups, err := cgroup.Detect(cgroup.Root)
	if err != nil {
		t.Fatal(err)
	}
	sup, err := shim.New(shim.Config{HostPath: host, RunDir: run, Cgroups: groups, CompileCgroup: "/" + filepath.Base(run)}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, sup) })
	s = newSite(t, pod.Supervised(sup), sup)
	t.Cleanup(func() { removeGroups(t, groups, "/"+filepath.Base(run), "/"+filepath.Base(s.dir)) })
	return s, func(name string) string {
		module, err := os.ReadFile(filepath.Join(guests, name+".wasm"))
		if err != nil {
			t.Fatal(err)
		}
		return s.push(t, "guests/"+name+":v1", module)
	}
}

// removeGroups removes the parents of the cgroups, which are the kubelet's job
// on a node. That they can be removed shows that nothing is left in them.
func removeGroups(t *testing.T, h *cgroup.Hierarchy, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := h.Open(p).Remove(t.Context()); err != nil {
			t.Errorf("cgroup %s: %v", p, err)
		}
	}
}

func (s *site) create(t *testing.T, pod, name, image string) (string, error) {
	t.Helper()
	r, err := s.runtime.CreateContainer(t.Context(), &runtime.CreateContainerRequest{
		PodSandboxId: pod, SandboxConfig: s.sandbox("whole"),
		Config: &runtime.ContainerConfig{
			Metadata: &runtime.ContainerMetadata{Name: name},
			Image:    &runtime.ImageSpec{Image: image, UserSpecifiedImage: image},
			Labels:   map[string]string{"io.kubernetes.container.name": name},
			LogPath:  name + ".log",
		},
	})
	return r.GetContainerId(), err
}

// awaitExit waits for the event that says that a container has stopped.
func (s *site) awaitExit(t *testing.T, events runtime.RuntimeService_GetContainerEventsClient, id string) *runtime.ContainerStatus {
	t.Helper()
	for {
		e, err := events.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if e.GetContainerId() == id && e.GetContainerEventType() == runtime.ContainerEventType_CONTAINER_STOPPED_EVENT {
			break
		}
	}
	r, err := s.runtime.ContainerStatus(t.Context(), &runtime.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetStatus()
}

// From the registry to the exit code, all through the socket.
func TestWhole(t *testing.T) {
	s, guest := whole(t)
	ref := guest("exit3")
	id := s.pull(t, ref)
	sandbox := s.run(t, "whole")
	events, err := s.runtime.GetContainerEvents(t.Context(), &runtime.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.Header(); err != nil {
		t.Fatal(err)
	}
	container, err := s.create(t, sandbox, "exit3", id)
	if err != nil {
		t.Fatal(err)
	}
	s.wantState(t, container, runtime.ContainerState_CONTAINER_CREATED)
	if _, err := s.runtime.StartContainer(t.Context(), &runtime.StartContainerRequest{ContainerId: container}); err != nil {
		t.Fatal(err)
	}
	st := s.awaitExit(t, events, container)
	if st.GetExitCode() != 3 || st.GetReason() != "Error" || st.GetImageId() != id || st.GetFinishedAt() < st.GetStartedAt() {
		t.Errorf("status %v", st)
	}
	log, err := os.ReadFile(st.GetLogPath())
	if err != nil || !strings.Contains(string(log), " stdout F ") {
		t.Errorf("log %q, %v", log, err)
	}
	s.wantState(t, container, runtime.ContainerState_CONTAINER_EXITED)
	if _, err := s.runtime.StartContainer(t.Context(), &runtime.StartContainerRequest{ContainerId: container}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("start of what has ended: %v", err)
	}
	s.removePod(t, sandbox)
	if _, err := s.runtime.ContainerStatus(t.Context(), &runtime.ContainerStatusRequest{ContainerId: container}); status.Code(err) != codes.NotFound {
		t.Errorf("status after the removal: %v", err)
	}
}

// What runs is measured, its log moves on, its limits change, and it stops.
func TestWholeRunning(t *testing.T) {
	s, guest := whole(t)
	ref := guest("forever")
	s.pull(t, ref)
	sandbox := s.run(t, "whole")
	container, err := s.create(t, sandbox, "forever", ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.runtime.StartContainer(t.Context(), &runtime.StartContainerRequest{ContainerId: container}); err != nil {
		t.Fatal(err)
	}
	s.wantState(t, container, runtime.ContainerState_CONTAINER_RUNNING)
	stats, err := s.runtime.ListContainerStats(t.Context(), &runtime.ListContainerStatsRequest{Filter: &runtime.ContainerStatsFilter{PodSandboxId: sandbox}})
	if err != nil || len(stats.GetStats()) != 1 {
		t.Fatalf("stats %v, %v", stats, err)
	}
	// The kubelet takes both without looking.
	if x := stats.GetStats()[0]; x.GetAttributes().GetMetadata() == nil || x.GetMemory().GetWorkingSetBytes().GetValue() == 0 || x.GetCpu().GetUsageCoreNanoSeconds().GetValue() == 0 {
		t.Errorf("stats %v", x)
	}
	if _, err := s.runtime.PodSandboxStats(t.Context(), &runtime.PodSandboxStatsRequest{PodSandboxId: sandbox}); err != nil {
		t.Errorf("pod stats: %v", err)
	}
	log := filepath.Join(s.dir, "logs", "forever.log")
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.runtime.ReopenContainerLog(t.Context(), &runtime.ReopenContainerLogRequest{ContainerId: container}); err != nil {
		t.Errorf("reopen: %v", err)
	}
	if _, err := os.Stat(log); err != nil {
		t.Errorf("no new log: %v", err)
	}
	if _, err := s.runtime.UpdateContainerResources(t.Context(), &runtime.UpdateContainerResourcesRequest{ContainerId: container, Linux: &runtime.LinuxContainerResources{CpuShares: 512}}); err != nil {
		t.Errorf("update: %v", err)
	}
	started := time.Now()
	for range 2 { // the second is of what has stopped
		if _, err := s.runtime.StopContainer(t.Context(), &runtime.StopContainerRequest{ContainerId: container, Timeout: 30}); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("the stop took %s", took)
	}
	r, err := s.runtime.ContainerStatus(t.Context(), &runtime.ContainerStatusRequest{ContainerId: container})
	if err != nil || r.GetStatus().GetExitCode() != 143 {
		t.Errorf("after the stop: %v, %v", r, err)
	}
	s.removePod(t, sandbox)
}

// An image that the node does not have, and one that is not Wasm's: the error
// is what a person reads in the pod's events.
func TestWholeRefused(t *testing.T) {
	s, _ := whole(t)
	sandbox := s.run(t, "whole")
	if _, err := s.create(t, sandbox, "none", s.hub+"/none:v1"); status.Code(err) != codes.NotFound {
		t.Errorf("an image that is not there: %v", err)
	}
	s.removePod(t, sandbox)
}

func (s *site) removePod(t *testing.T, sandbox string) {
	t.Helper()
	if _, err := s.runtime.StopPodSandbox(t.Context(), &runtime.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		t.Error(err)
	}
	if _, err := s.runtime.RemovePodSandbox(t.Context(), &runtime.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		t.Error(err)
	}
}

// wantState asks in each way that there is, filters and streams included.
func (s *site) wantState(t *testing.T, id string, want runtime.ContainerState) {
	t.Helper()
	f := &runtime.ContainerFilter{Id: id, State: &runtime.ContainerStateValue{State: want}}
	l, err := s.runtime.ListContainers(t.Context(), &runtime.ListContainersRequest{Filter: f})
	if err != nil || len(l.GetContainers()) != 1 {
		t.Errorf("list of %s: %v, %v", want, l, err)
	}
	stream, err := s.runtime.StreamContainers(t.Context(), &runtime.StreamContainersRequest{Filter: f})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := collect(stream, (*runtime.StreamContainersResponse).GetContainers); err != nil || len(got) != 1 {
		t.Errorf("stream of %s: %v, %v", want, got, err)
	}
	r, err := s.runtime.ContainerStatus(t.Context(), &runtime.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil || r.GetStatus().GetState() != want || len(r.GetInfo()) == 0 {
		t.Errorf("status: %v, %v, want %s", r, err, want)
	}
}
