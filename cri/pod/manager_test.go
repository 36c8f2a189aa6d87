package pod

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/image"
	"github.com/limpet-cri/limpet/shim/spec"
)

func TestLife(t *testing.T) {
	n := newNode(t)
	m := n.start()
	events := m.Events()
	defer events.Close()
	pod, ctr := running(t, m, "web")

	st := status(t, m, ctr)
	if st.GetState() != runtime.ContainerState_CONTAINER_RUNNING || st.GetStartedAt() < st.GetCreatedAt() || st.GetFinishedAt() != 0 {
		t.Errorf("running: %v", st)
	}
	if st.GetImage().GetImage() != "example.test/app:1" || st.GetImageId() != testImage || st.GetImageRef() != "example.test/app@"+testImage {
		t.Errorf("image: %v %q %q", st.GetImage(), st.GetImageId(), st.GetImageRef())
	}
	if st.GetUser().GetLinux().GetUid() != image.DefaultUID || st.GetStopSignal() != runtime.Signal_SIGNAL_SIGTERM || st.GetAnnotations()["hash"] != "\u00e9" {
		t.Errorf("status: %v", st)
	}
	must(t, "stop", m.StopContainer(t.Context(), ctr, 30))
	must(t, "stop again", m.StopContainer(t.Context(), ctr, 30))
	st = status(t, m, ctr)
	if st.GetState() != runtime.ContainerState_CONTAINER_EXITED || st.GetExitCode() != 143 || st.GetReason() != string(spec.ReasonStopped) || st.GetMessage() == "" || st.GetFinishedAt() < st.GetStartedAt() {
		t.Errorf("stopped: %v", st)
	}
	if err := m.StartContainer(t.Context(), ctr); !errors.Is(err, ErrBadPhase) || !strings.Contains(err.Error(), "Exited") {
		t.Errorf("start of an exited container: %v", err)
	}
	must(t, "remove", m.RemoveContainer(t.Context(), ctr))
	if _, err := m.ContainerStatus(ctr, false); !errors.Is(err, ErrNotFound) {
		t.Errorf("status of a removed container: %v", err)
	}
	must(t, "remove again", m.RemoveContainer(t.Context(), ctr))
	must(t, "stop removed", m.StopContainer(t.Context(), ctr, 0))
	must(t, "stop sandbox", m.StopPodSandbox(t.Context(), pod))
	must(t, "stop sandbox again", m.StopPodSandbox(t.Context(), pod))
	if r, err := m.PodSandboxStatus(pod, true); err != nil || r.GetStatus().GetState() != runtime.PodSandboxState_SANDBOX_NOTREADY || r.GetStatus().GetNetwork() != nil {
		t.Errorf("stopped sandbox: %v, %v", r, err)
	}
	if _, err := m.CreateContainer(t.Context(), request(pod, containerConfig("late"))); !errors.Is(err, ErrBadPhase) {
		t.Errorf("create in a stopped sandbox: %v", err)
	}
	must(t, "remove sandbox", m.RemovePodSandbox(t.Context(), pod))
	must(t, "remove sandbox again", m.RemovePodSandbox(t.Context(), pod))
	must(t, "stop removed sandbox", m.StopPodSandbox(t.Context(), pod))
	if l := n.leftovers(); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
	if len(m.index.names)+len(m.index.sandboxes)+len(m.index.containers) > 0 {
		t.Errorf("left in memory: %v", m.index)
	}
	testEvents(t, events, pod, ctr)
}

func testEvents(t *testing.T, s *Subscription, pod, ctr string) {
	t.Helper()
	const created, started, stopped, deleted = runtime.ContainerEventType_CONTAINER_CREATED_EVENT, runtime.ContainerEventType_CONTAINER_STARTED_EVENT,
		runtime.ContainerEventType_CONTAINER_STOPPED_EVENT, runtime.ContainerEventType_CONTAINER_DELETED_EVENT
	for i, want := range []struct {
		id   string
		what runtime.ContainerEventType
	}{{pod, created}, {pod, started}, {ctr, created}, {ctr, started}, {ctr, stopped}, {ctr, deleted}, {pod, stopped}, {pod, deleted}} {
		e := <-s.C()
		if e.GetContainerId() != want.id || e.GetContainerEventType() != want.what {
			t.Fatalf("event %d: %s of %.8s, want %s of %.8s", i, e.GetContainerEventType(), e.GetContainerId(), want.what, want.id)
		}
	}
}

func TestRemoveSandboxEndsAll(t *testing.T) {
	n := newNode(t)
	m := n.start()
	pod, ctr := running(t, m, "web")
	if _, err := m.CreateContainer(t.Context(), request(pod, containerConfig("second"))); err != nil {
		t.Fatal(err)
	}
	must(t, "remove", m.RemovePodSandbox(t.Context(), pod))
	if _, err := m.ContainerStatus(ctr, false); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if l := n.leftovers(); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
}

func TestNames(t *testing.T) {
	n := newNode(t)
	m := n.start()
	pod, ctr := running(t, m, "web")
	if _, err := m.RunPodSandbox(t.Context(), podConfig("web"), ""); !errors.Is(err, ErrNameInUse) || !strings.Contains(err.Error(), pod) {
		t.Errorf("same sandbox again: %v", err)
	}
	again := podConfig("web")
	again.Metadata.Attempt = 1
	if _, err := m.RunPodSandbox(t.Context(), again, ""); err != nil {
		t.Errorf("next attempt: %v", err)
	}
	if _, err := m.CreateContainer(t.Context(), request(pod, containerConfig("c"))); !errors.Is(err, ErrNameInUse) || !strings.Contains(err.Error(), ctr) {
		t.Errorf("same container again: %v", err)
	}
}

func TestShortIDs(t *testing.T) {
	m := newNode(t).start()
	pod, ctr := running(t, m, "web")
	if r, err := m.PodSandboxStatus(pod[:13], false); err != nil || r.GetStatus().GetId() != pod {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := m.ContainerStatus(ctr[:13], false); err != nil || r.GetStatus().GetId() != ctr {
		t.Errorf("%v, %v", r, err)
	}
	if l := m.ListContainers(&runtime.ContainerFilter{Id: ctr[:5], PodSandboxId: pod[:5]}); len(l) != 1 {
		t.Errorf("filter by short ids: %v", l)
	}
	if _, err := m.ContainerStatus("", false); !errors.Is(err, ErrInvalid) {
		t.Errorf("empty id: %v", err)
	}
	for range 17 { // some two of 17 ids begin with the same digit
		if _, err := m.CreateContainer(t.Context(), request(pod, containerConfig("c"+newID()))); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[byte]bool{}
	for _, c := range m.ListContainers(nil) {
		if d := c.GetId()[0]; seen[d] {
			if err := m.StopContainer(t.Context(), string(d), 0); !errors.Is(err, ErrAmbiguous) {
				t.Errorf("ambiguous id: %v", err)
			}
			return
		} else {
			seen[d] = true
		}
	}
}

func TestLists(t *testing.T) {
	n := newNode(t)
	m := n.start()
	podA, ctrA := running(t, m, "a")
	podB, _ := running(t, m, "b")
	must(t, "stop", m.StopContainer(t.Context(), ctrA, 1))
	must(t, "stop sandbox", m.StopPodSandbox(t.Context(), podB))
	pods := func(f *runtime.PodSandboxFilter) int { return len(m.ListPodSandbox(f)) }
	ctrs := func(f *runtime.ContainerFilter) int { return len(m.ListContainers(f)) }
	ready := &runtime.PodSandboxStateValue{State: runtime.PodSandboxState_SANDBOX_READY}
	exited := &runtime.ContainerStateValue{State: runtime.ContainerState_CONTAINER_EXITED}
	for what, c := range map[string][2]int{
		"all pods":          {pods(nil), 2},
		"ready pods":        {pods(&runtime.PodSandboxFilter{State: ready}), 1},
		"pods by label":     {pods(&runtime.PodSandboxFilter{LabelSelector: map[string]string{"io.kubernetes.pod.uid": "uid-a"}}), 1},
		"pods by no label":  {pods(&runtime.PodSandboxFilter{LabelSelector: map[string]string{"none": ""}}), 0},
		"pod by id":         {pods(&runtime.PodSandboxFilter{Id: podA}), 1},
		"all containers":    {ctrs(nil), 2},
		"exited ones":       {ctrs(&runtime.ContainerFilter{State: exited}), 2},
		"of a pod":          {ctrs(&runtime.ContainerFilter{PodSandboxId: podA}), 1},
		"of an unknown pod": {ctrs(&runtime.ContainerFilter{PodSandboxId: "zz"}), 0},
		"by label":          {ctrs(&runtime.ContainerFilter{LabelSelector: map[string]string{"io.kubernetes.container.name": "c"}}), 2},
		"stats":             {len(m.ListContainerStats(&runtime.ContainerStatsFilter{PodSandboxId: podA})), 1},
		"pod stats":         {len(m.ListPodSandboxStats(nil)), 2},
	} {
		if c[0] != c[1] {
			t.Errorf("%s: %d, want %d", what, c[0], c[1])
		}
	}
}

// The kubelet's questions, several a second for ever, are answered from memory:
// also when nothing is left on disk.
func TestListsFromMemory(t *testing.T) {
	n := newNode(t)
	m := n.start()
	pod, ctr := running(t, m, "a")
	must(t, "remove", os.RemoveAll(n.cfg.Run))
	if got := len(m.ListPodSandbox(nil)); got != 1 {
		t.Errorf("%d sandboxes", got)
	}
	if got := len(m.ListContainers(nil)); got != 1 {
		t.Errorf("%d containers", got)
	}
	if got := len(m.ListContainerStats(nil)); got != 1 {
		t.Errorf("%d statistics", got)
	}
	_, err := m.PodSandboxStatus(pod, true)
	must(t, "sandbox status", err)
	_, err = m.ContainerStatus(ctr, true)
	must(t, "container status", err)
}

// A failure at each act leaves nothing and frees the name.
func TestUndo(t *testing.T) {
	broken := errors.New("broken by the test")
	for _, act := range []string{"network", "prepare", "host"} {
		n := newNode(t)
		m := n.start()
		n.fail[act] = broken
		pod, err := m.RunPodSandbox(t.Context(), podConfig("web"), "")
		if act == "network" {
			if !errors.Is(err, broken) || len(n.leftovers()) > 0 || len(m.ListPodSandbox(nil)) > 0 {
				t.Errorf("%s: %v, left %v", act, err, n.leftovers())
			}
			delete(n.fail, act)
			_, err := m.RunPodSandbox(t.Context(), podConfig("web"), "")
			must(t, "the same again", err)
			continue
		}
		must(t, "run", err)
		before := len(n.leftovers())
		if _, err := m.CreateContainer(t.Context(), request(pod, containerConfig("c"))); !errors.Is(err, broken) {
			t.Errorf("%s: %v", act, err)
		}
		if l := n.leftovers(); len(l) != before || len(m.ListContainers(nil)) > 0 {
			t.Errorf("%s: left %v", act, l)
		}
		delete(n.fail, act)
		_, err = m.CreateContainer(t.Context(), request(pod, containerConfig("c")))
		must(t, "the same again", err)
	}
}

// A request that was given up is undone all the same.
func TestUndoAfterCancel(t *testing.T) {
	n := newNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	n.cfg.Checkpoint = func(step string) {
		if step == "create.prepared" {
			cancel()
		}
	}
	m := n.start()
	pod, err := m.RunPodSandbox(ctx, podConfig("web"), "")
	must(t, "run", err)
	n.fail["host"] = context.Canceled
	before := len(n.leftovers())
	if _, err := m.CreateContainer(ctx, request(pod, containerConfig("c"))); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if l := n.leftovers(); len(l) != before {
		t.Errorf("left: %v", l)
	}
}

func TestStartFails(t *testing.T) {
	n := newNode(t)
	m := n.start()
	pod, err := m.RunPodSandbox(t.Context(), podConfig("web"), "")
	must(t, "run", err)
	ctr, err := m.CreateContainer(t.Context(), request(pod, containerConfig("c")))
	must(t, "create", err)
	n.fail["start"] = errors.New("unreachable executed")
	if err := m.StartContainer(t.Context(), ctr); !errors.Is(err, n.fail["start"]) {
		t.Error(err)
	}
	if st := awaitExit(t, m, ctr); st.GetState() != runtime.ContainerState_CONTAINER_EXITED || st.GetExitCode() != 137 {
		t.Errorf("after a start that failed: %v", st)
	}
	must(t, "remove", m.RemovePodSandbox(t.Context(), pod))
	if l := n.leftovers(); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
}

func TestStop(t *testing.T) {
	n := newNode(t)
	signalled := make(chan struct{}, 8)
	n.cfg.Checkpoint = func(step string) {
		if step == "stop.signalled" {
			signalled <- struct{}{}
		}
	}
	m := n.start()
	_, ctr := running(t, m, "deaf")
	n.host(ctr).deaf = true
	first := make(chan error, 1)
	go func() { first <- m.StopContainer(t.Context(), ctr, 1<<62) }() // a grace beyond any duration
	<-signalled
	// A second, impatient stop ends it for both.
	must(t, "impatient stop", m.StopContainer(t.Context(), ctr, 0))
	must(t, "patient stop", <-first)
	if st := status(t, m, ctr); st.GetExitCode() != 137 || st.GetReason() != string(spec.ReasonKilled) {
		t.Errorf("%v", st)
	}

	_, ctr = running(t, m, "given-up")
	n.host(ctr).deaf = true
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := m.StopContainer(ctx, ctr, 60); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop that was given up: %v", err)
	}
	if st := status(t, m, ctr); st.GetState() != runtime.ContainerState_CONTAINER_RUNNING {
		t.Errorf("%v", st)
	}

	_, ctr = running(t, m, "mute")
	n.fail["stop"] = errors.New("no answer")
	must(t, "stop of a host that does not answer", m.StopContainer(t.Context(), ctr, 60))
	if st := status(t, m, ctr); st.GetExitCode() != 137 {
		t.Errorf("%v", st)
	}
}

func TestStopCreated(t *testing.T) {
	n := newNode(t)
	m := n.start()
	pod, err := m.RunPodSandbox(t.Context(), podConfig("web"), "")
	must(t, "run", err)
	ctr, err := m.CreateContainer(t.Context(), request(pod, containerConfig("c")))
	must(t, "create", err)
	must(t, "stop", m.StopContainer(t.Context(), ctr, 30))
	if st := status(t, m, ctr); st.GetState() != runtime.ContainerState_CONTAINER_EXITED || st.GetStartedAt() != 0 {
		t.Errorf("%v", st)
	}
}

func TestHandlers(t *testing.T) {
	n := newNode(t)
	n.cfg.Handlers["strict"] = Profile{MemoryMax: 64 << 20, PidsLimit: 100}
	m := n.start()
	if _, err := m.RunPodSandbox(t.Context(), podConfig("x"), "runc"); !errors.Is(err, ErrUnknownHandler) || !strings.Contains(err.Error(), "limpet, strict, wasm, wasmtime") {
		t.Errorf("unknown handler: %v", err)
	}
	pod, err := m.RunPodSandbox(t.Context(), podConfig("x"), "strict")
	must(t, "run", err)
	root := containerConfig("root")
	root.Linux = &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{RunAsUser: &runtime.Int64Value{Value: 0}}}
	if _, err := m.CreateContainer(t.Context(), request(pod, root)); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "allow_root") {
		t.Errorf("root: %v", err)
	}
	big := containerConfig("big")
	big.Linux = &runtime.LinuxContainerConfig{Resources: &runtime.LinuxContainerResources{MemoryLimitInBytes: 65 << 20}}
	if _, err := m.CreateContainer(t.Context(), request(pod, big)); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "memory_max") {
		t.Errorf("too much memory: %v", err)
	}
	id, err := m.CreateContainer(t.Context(), request(pod, containerConfig("plain")))
	must(t, "create", err)
	if c := n.host(id).spec; c.Limpet.MemoryLimit != 64<<20-memoryMargin-64<<11 || *c.OCI.Linux.Resources.Pids.Limit != 100 {
		t.Errorf("limits: %+v", c.Limpet)
	}
	if r, err := m.PodSandboxStatus(pod, false); err != nil || r.GetStatus().GetRuntimeHandler() != "strict" {
		t.Errorf("%v, %v", r, err)
	}
}

func TestUnknownImage(t *testing.T) {
	n := newNode(t)
	m := n.start()
	pod, err := m.RunPodSandbox(t.Context(), podConfig("x"), "")
	must(t, "run", err)
	c := containerConfig("c")
	c.Image.Image = "sha256:none"
	if _, err := m.CreateContainer(t.Context(), request(pod, c)); !errors.Is(err, image.ErrNotFound) {
		t.Error(err)
	}
	if _, err := m.CreateContainer(t.Context(), request("none", c)); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}
