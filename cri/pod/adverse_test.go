package pod

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/shim/spec"
)

// Whoever gave up hears no id: what was made is undone, and the name is free.
func TestGivenUpAtTheEnd(t *testing.T) {
	for _, step := range []string{"run.files", "create.hosted"} {
		n := newNode(t)
		ctx, cancel := context.WithCancel(t.Context())
		n.cfg.Checkpoint = func(at string) {
			if at == step {
				cancel()
			}
		}
		m := n.start()
		pod, err := m.RunPodSandbox(ctx, podConfig("web"), "")
		if step == "create.hosted" {
			must(t, "run", err)
			_, err = m.CreateContainer(ctx, request(pod, containerConfig("c")))
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", step, err)
		}
		n.cfg.Checkpoint = nil
		if pod == "" {
			_, err = m.RunPodSandbox(t.Context(), podConfig("web"), "")
		} else {
			_, err = m.CreateContainer(t.Context(), request(pod, containerConfig("c")))
		}
		must(t, "the same again", err)
	}
}

// The stop of a sandbox does not wait for an image that is being compiled for
// one of its containers: that gives up.
func TestStopEndsWhatIsBeingMade(t *testing.T) {
	for name, stop := range map[string]func(*Manager, context.Context, string) error{
		"stop": (*Manager).StopPodSandbox, "remove": (*Manager).RemovePodSandbox,
	} {
		n := newNode(t)
		preparing := make(chan struct{})
		n.prepares = func(ctx context.Context) error {
			close(preparing)
			<-ctx.Done()
			return ctx.Err()
		}
		m := n.start()
		pod, err := m.RunPodSandbox(t.Context(), podConfig("web"), "")
		must(t, "run", err)
		created := make(chan error, 1)
		go func() {
			_, err := m.CreateContainer(t.Context(), request(pod, containerConfig("c")))
			created <- err
		}()
		<-preparing
		must(t, name, stop(m, t.Context(), pod))
		if err := <-created; !errors.Is(err, ErrBadPhase) || !strings.Contains(err.Error(), "being stopped") {
			t.Errorf("%s: the creation ended with %v", name, err)
		}
		must(t, "remove", m.RemovePodSandbox(t.Context(), pod))
		if l := n.leftovers(); len(l) > 0 {
			t.Errorf("%s left %v", name, l)
		}
	}
}

// A folder that takes no record, as on a full disk, keeps no pod: removing is
// what makes room again.
func TestRemoveWithoutRecords(t *testing.T) {
	n := newNode(t)
	m := n.start()
	pod, ctr := running(t, m, "web")
	// The file that a record is written to first cannot be made.
	for _, dir := range []string{m.sandboxDir(pod), m.containerDir(ctr)} {
		must(t, "block", os.Mkdir(filepath.Join(dir, fileState+".t"), 0o700))
	}
	must(t, "stop container", m.StopContainer(t.Context(), ctr, 1))
	must(t, "stop", m.StopPodSandbox(t.Context(), pod))
	if r, err := m.PodSandboxStatus(pod, false); err != nil || r.GetStatus().GetState() != runtime.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("after the stop: %v, %v", r, err)
	}
	must(t, "remove", m.RemovePodSandbox(t.Context(), pod))
	if l := n.leftovers(); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
}

// What has ended is stopped, even while somebody is at work with it.
func TestStopBesideARemoval(t *testing.T) {
	n := newNode(t)
	m := n.start()
	_, ctr := running(t, m, "web")
	must(t, "stop", m.StopContainer(t.Context(), ctr, 1))
	c, err := m.index.container(ctr)
	must(t, "find", err)
	release, err := c.turn.take(t.Context())
	must(t, "turn", err)
	defer release()
	must(t, "stop again", m.StopContainer(t.Context(), ctr, 0))
}

// A stop that was given up says that, and not that the process will not end.
func TestStopOfALostOneGivenUp(t *testing.T) {
	n := newNode(t)
	m := n.start()
	_, ctr := running(t, m, "web")
	must(t, "close", m.Close())
	n.fail["adopt"] = errors.New("no hello")
	ctx, cancel := context.WithCancel(t.Context())
	n.cfg.Checkpoint = func(step string) {
		if step == "stop.lost" {
			cancel()
		}
	}
	m = n.start()
	delete(n.fail, "adopt")
	n.host(ctr).stuck = true
	if err := m.StopContainer(ctx, ctr, 1); !errors.Is(err, context.Canceled) || errors.Is(err, ErrStillRunning) {
		t.Error(err)
	}
	n.host(ctr).stuck = false
	must(t, "stop again", m.StopContainer(t.Context(), ctr, 1))
}

// Everything at once with one pod, from many sides: no call fails with anything
// but what the table of phases says, nothing is left, and every line of the log
// about a container names its pod.
func TestEverythingAtOnce(t *testing.T) {
	n := newNode(t)
	var log bytes.Buffer
	n.log = slog.New(slog.NewTextHandler(&log, nil))
	m := n.start()
	allowed := []error{ErrNameInUse, ErrBadPhase, ErrNotFound, context.Canceled}
	var g sync.WaitGroup
	for side := range 8 {
		g.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(side)))
			for range 60 {
				if err := anything(t.Context(), m, r); err != nil && !isAny(err, allowed) {
					t.Errorf("side %d: %v", side, err)
				}
			}
		})
	}
	g.Wait()
	for _, s := range m.ListPodSandbox(nil) {
		must(t, "remove", m.RemovePodSandbox(t.Context(), s.GetId()))
	}
	if l := n.leftovers(); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
	if len(m.index.names) > 0 {
		t.Errorf("names that are not free: %v", m.index.names)
	}
	must(t, "close", m.Close())
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, " container=") && !strings.Contains(line, " pod=ns/web ") {
			t.Errorf("a line without its pod: %s", line)
		}
	}
}

// anything makes one call about the pod "web", sometimes one that is given up.
func anything(ctx context.Context, m *Manager, r *rand.Rand) error {
	if r.IntN(8) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		cancel()
	}
	pod, ctr := "none", "none"
	for _, s := range m.ListPodSandbox(nil) {
		pod = s.GetId()
	}
	for _, c := range m.ListContainers(nil) {
		ctr = c.GetId()
	}
	var err error
	switch r.IntN(10) {
	case 0, 1:
		_, err = m.RunPodSandbox(ctx, podConfig("web"), "")
	case 2, 3:
		_, err = m.CreateContainer(ctx, request(pod, containerConfig("c")))
	case 4, 5:
		err = m.StartContainer(ctx, ctr)
	case 6:
		err = m.StopContainer(ctx, ctr, r.Int64N(3)-1)
	case 7:
		err = m.RemoveContainer(ctx, ctr)
	case 8:
		err = m.StopPodSandbox(ctx, pod)
	case 9:
		err = m.RemovePodSandbox(ctx, pod)
	}
	return err
}

func isAny(err error, targets []error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// A kubelet stops a container whose state is unknown before it removes it, and
// a pod with one in it too: so what never answers again has to end as well.
func TestStopOfALostOneThatNeverAnswers(t *testing.T) {
	for name, stop := range map[string]func(m *Manager, pod, ctr string) error{
		"container": func(m *Manager, _, ctr string) error { return m.StopContainer(t.Context(), ctr, 1) },
		"sandbox":   func(m *Manager, pod, _ string) error { return m.StopPodSandbox(t.Context(), pod) },
	} {
		n := newNode(t)
		m := n.start()
		pod, ctr := running(t, m, "web")
		must(t, "close", m.Close())
		n.fail["adopt"] = errors.New("no hello")
		m = n.start()
		must(t, "stop "+name, stop(m, pod, ctr))
		if st := status(t, m, ctr); st.GetState() != runtime.ContainerState_CONTAINER_EXITED || st.GetExitCode() != 137 || !strings.Contains(st.GetMessage(), "did not answer") {
			t.Errorf("%s: %v", name, st)
		}
		must(t, "remove", m.RemovePodSandbox(t.Context(), pod))
		if l := n.leftovers(); len(l) > 0 {
			t.Errorf("%s left %v", name, l)
		}
	}
}

// A run folder that takes no record keeps limpetd from nothing either.
func TestRecoverWithoutRecords(t *testing.T) {
	n := newNode(t)
	m := n.start()
	pod, ctr := running(t, m, "web")
	must(t, "close", m.Close())
	n.host(ctr).end(7, spec.ReasonError)
	must(t, "block", os.Mkdir(filepath.Join(m.containerDir(ctr), fileState+".t"), 0o700))
	m = n.start()
	if st := status(t, m, ctr); st.GetState() != runtime.ContainerState_CONTAINER_EXITED || st.GetExitCode() != 7 {
		t.Errorf("%v", st)
	}
	must(t, "remove", m.RemovePodSandbox(t.Context(), pod))
	if l := n.leftovers(); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
}

// The same with a run folder that is really full: creating says so, and what is
// there stops, is found again and goes.
func TestFullRunFolder(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	n := newNode(t)
	must(t, "run folder", os.MkdirAll(n.cfg.Run, 0o711))
	must(t, "mount", unix.Mount("limpet-test", n.cfg.Run, "tmpfs", 0, "size=256k"))
	t.Cleanup(func() { must(t, "unmount", unix.Unmount(n.cfg.Run, unix.MNT_DETACH)) })
	m := n.start()
	pod, _ := running(t, m, "web")
	other, ctr := running(t, m, "other")
	filler := filepath.Join(n.cfg.Run, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filled: %v", err)
	}
	if _, err := m.RunPodSandbox(t.Context(), podConfig("new"), ""); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("run: %v", err)
	}
	must(t, "stop", m.StopPodSandbox(t.Context(), pod))
	n.host(ctr).end(7, spec.ReasonError)
	awaitExit(t, m, ctr)
	must(t, "close", m.Close())
	m = n.start()
	if st := status(t, m, ctr); st.GetExitCode() != 7 {
		t.Errorf("%v", st)
	}
	must(t, "remove", m.RemovePodSandbox(t.Context(), pod))
	must(t, "remove", m.RemovePodSandbox(t.Context(), other))
	if l := n.leftovers(); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
	must(t, "make room", os.Remove(filler))
}
