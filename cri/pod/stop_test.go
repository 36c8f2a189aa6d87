package pod

import (
	"context"
	"errors"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/shim/spec"
)

// stopCheckpoint lets a test wait for a step.
func stopCheckpoint(n *node, name string) <-chan struct{} {
	reached := make(chan struct{}, 8)
	n.cfg.Checkpoint = func(step string) {
		if step == name {
			reached <- struct{}{}
		}
	}
	return reached
}

// A host that hangs, as one in a stopped or swapped out process, does not
// answer. The grace period bounds a stop of it all the same, and neither keeps
// it a more impatient stop waiting.
func TestStopOfAHostThatHangs(t *testing.T) {
	n := newNode(t)
	recorded := stopCheckpoint(n, "stop.recorded")
	m := n.start()
	_, ctr := running(t, m, "one")
	n.host(ctr).hangs = true
	must(t, "stop", m.StopContainer(t.Context(), ctr, 1))
	if st := status(t, m, ctr); st.GetExitCode() != 137 || st.GetReason() != string(spec.ReasonKilled) {
		t.Errorf("%v", st)
	}
	<-recorded

	_, ctr = running(t, m, "two")
	n.host(ctr).hangs = true
	patient := make(chan error, 1)
	go func() { patient <- m.StopContainer(t.Context(), ctr, 1<<62) }()
	<-recorded
	must(t, "impatient stop", m.StopContainer(t.Context(), ctr, 0))
	must(t, "patient stop", <-patient)
	if st := status(t, m, ctr); st.GetExitCode() != 137 {
		t.Errorf("%v", st)
	}
}

// A start that hangs holds the container's turn; a stop ends it all the same.
func TestStopOfAStartThatHangs(t *testing.T) {
	n := newNode(t)
	recorded := stopCheckpoint(n, "start.recorded")
	m := n.start()
	pod, err := m.RunPodSandbox(t.Context(), podConfig("web"), "")
	must(t, "run", err)
	ctr, err := m.CreateContainer(t.Context(), request(pod, containerConfig("c")))
	must(t, "create", err)
	n.host(ctr).hangs = true
	start := make(chan error, 1)
	go func() { start <- m.StartContainer(t.Context(), ctr) }()
	<-recorded
	must(t, "stop", m.StopContainer(t.Context(), ctr, 0))
	if err := <-start; err == nil {
		t.Error("the start of a container that was ended meanwhile succeeded")
	}
	if st := awaitExit(t, m, ctr); st.GetExitCode() != 137 {
		t.Errorf("%v", st)
	}
}

// A stop that was recorded may never have reached the guest: the daemon ended,
// or the request was given up. The next stop sends the signal again.
func TestStopIsSentAgain(t *testing.T) {
	for _, restart := range []bool{false, true} {
		n := newNode(t)
		recorded := stopCheckpoint(n, "stop.recorded")
		m := n.start()
		_, ctr := running(t, m, "web")
		n.host(ctr).hangs = true
		ctx, cancel := context.WithCancel(t.Context())
		cut := make(chan error, 1)
		go func() { cut <- m.StopContainer(ctx, ctr, 1<<62) }()
		<-recorded
		cancel()
		if err := <-cut; !errors.Is(err, context.Canceled) {
			t.Errorf("a stop that was given up: %v", err)
		}
		if restart {
			must(t, "close", m.Close())
			m = n.start()
		}
		n.host(ctr).hangs = false
		began := time.Now()
		must(t, "stop", m.StopContainer(t.Context(), ctr, 3600))
		st := status(t, m, ctr)
		if st.GetState() != runtime.ContainerState_CONTAINER_EXITED || st.GetExitCode() != 143 || time.Since(began) > 30*time.Minute {
			t.Errorf("restart %v: %v", restart, st)
		}
	}
}
