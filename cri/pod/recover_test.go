package pod

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/shim/record"
	"github.com/limpet-cri/limpet/shim/spec"
)

func TestRecoverUnchanged(t *testing.T) {
	n := newNode(t)
	m := n.start()
	pod, ctr := running(t, m, "web")
	created, err := m.CreateContainer(t.Context(), request(pod, containerConfig("waiting")))
	must(t, "create", err)
	before := status(t, m, ctr)
	must(t, "close", m.Close())

	m = n.start()
	after := status(t, m, ctr)
	if before.String() != after.String() {
		t.Errorf("before %v\nafter  %v", before, after)
	}
	if c, err := m.index.container(ctr); err != nil || string(c.config.GetEnvs()[0].GetValue()) != "\xff\xfe" {
		t.Errorf("bytes of the environment: %v, %v", c, err)
	}
	if st := status(t, m, created).GetState(); st != runtime.ContainerState_CONTAINER_CREATED {
		t.Errorf("created: %v", st)
	}
	must(t, "start", m.StartContainer(t.Context(), created))
	if _, err := m.RunPodSandbox(t.Context(), podConfig("web"), ""); !errors.Is(err, ErrNameInUse) {
		t.Errorf("the name is free: %v", err)
	}
	n.host(ctr).end(9, spec.ReasonError)
	if st := awaitExit(t, m, ctr); st.GetExitCode() != 9 {
		t.Errorf("%v", st)
	}
	must(t, "remove", m.RemovePodSandbox(t.Context(), pod))
	if l := n.leftovers(); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
}

// After a boot nothing runs, whatever became of the unflushed states.
func TestRecoverAfterBoot(t *testing.T) {
	for _, lost := range []bool{false, true} {
		n := newNode(t)
		m := n.start()
		pod, ctr := running(t, m, "web")
		must(t, "close", m.Close())
		n.mu.Lock()
		clear(n.hosts)
		clear(n.nets)
		n.mu.Unlock()
		if lost { // what a power loss makes of files that were not flushed
			must(t, "empty", os.WriteFile(filepath.Join(m.containerDir(ctr), fileState), nil, 0o600))
			must(t, "empty", os.WriteFile(filepath.Join(m.sandboxDir(pod), fileState), nil, 0o600))
		}
		m = n.boot()
		st := status(t, m, ctr)
		if st.GetState() != runtime.ContainerState_CONTAINER_EXITED || st.GetReason() != string(spec.ReasonUnknown) || st.GetMessage() != rebooted {
			t.Errorf("lost %v: %v", lost, st)
		}
		if r, err := m.PodSandboxStatus(pod, false); err != nil || r.GetStatus().GetState() != runtime.PodSandboxState_SANDBOX_NOTREADY {
			t.Errorf("lost %v: %v, %v", lost, r, err)
		}
		must(t, "remove", m.RemovePodSandbox(t.Context(), pod))
		if l := n.leftovers(); len(l) > 0 {
			t.Errorf("lost %v: left: %v", lost, l)
		}
	}
}

// boot starts a daemon that believes in another boot.
func (n *node) boot() *Manager {
	n.t.Helper()
	m, err := New(n.cfg, fakeImages{n.world}, fakeHosts{n.world}, fakeNets{n.world}, quiet())
	must(n.t, "new", err)
	m.boot = "another boot"
	must(n.t, "recover", m.Recover(n.t.Context()))
	n.t.Cleanup(func() { m.Close() })
	return m
}

// A process that does not answer is shown as unknown, and can be ended.
func TestRecoverLost(t *testing.T) {
	n := newNode(t)
	m := n.start()
	_, ctr := running(t, m, "web")
	_, other := running(t, m, "other")
	must(t, "close", m.Close())
	n.fail["adopt"] = errors.New("no hello")
	n.fail["end"] = errors.New("a process holds its lock")
	m = n.start()
	st := status(t, m, ctr)
	if st.GetState() != runtime.ContainerState_CONTAINER_UNKNOWN || !strings.Contains(st.GetMessage(), "no hello") {
		t.Errorf("%v", st)
	}
	if err := m.StopContainer(t.Context(), ctr, 1); !errors.Is(err, n.fail["end"]) {
		t.Errorf("stopped what is not ended: %v", err)
	}
	must(t, "remove", m.RemoveContainer(t.Context(), other))
	delete(n.fail, "adopt")
	must(t, "stop", m.StopContainer(t.Context(), ctr, 1))
	if st := status(t, m, ctr); st.GetState() != runtime.ContainerState_CONTAINER_EXITED || st.GetExitCode() != 137 {
		t.Errorf("%v", st)
	}
}

// What belongs to nothing goes; what is none of ours stays.
func TestRecoverStrays(t *testing.T) {
	n := newNode(t)
	m := n.start()
	_, ctr := running(t, m, "web")
	must(t, "close", m.Close())
	before := n.leftovers()
	n.nets[newID()] = true
	n.leases[newID()] = testImage
	foreign := filepath.Join(n.cfg.Run, "containers", "backup")
	for _, d := range []string{m.containerDir(newID()), m.sandboxDir(newID()), m.layerDir(newID()), foreign} {
		must(t, "mkdir", os.Mkdir(d, 0o700))
	}
	must(t, "socket", os.WriteFile(m.socket(newID()), nil, 0o600))
	m = n.start()
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("a folder of somebody else is gone: %v", err)
	}
	must(t, "remove", os.Remove(foreign))
	if after := n.leftovers(); strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Errorf("before %q\nafter  %q", before, after)
	}
	if st := status(t, m, ctr); st.GetState() != runtime.ContainerState_CONTAINER_RUNNING {
		t.Errorf("%v", st)
	}
}

// A record of a newer version stops the start, and nothing is taken away.
func TestRecoverNewer(t *testing.T) {
	n := newNode(t)
	m := n.start()
	pod, _ := running(t, m, "web")
	must(t, "close", m.Close())
	newer := sandboxRecord
	newer.Version++
	must(t, "write", record.Write(filepath.Join(m.sandboxDir(pod), fileRecord), newer, identity{}, record.Killed))
	before := n.leftovers()
	m, err := New(n.cfg, fakeImages{n.world}, fakeHosts{n.world}, fakeNets{n.world}, quiet())
	must(t, "new", err)
	if err := m.Recover(t.Context()); !errors.Is(err, record.ErrNewer) {
		t.Errorf("%v", err)
	}
	if after := n.leftovers(); strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Errorf("taken away: before %q, after %q", before, after)
	}
	must(t, "close", m.Close())
}

// A handler that was taken out of the configuration leaves its pods alone.
func TestRecoverWithoutHandler(t *testing.T) {
	n := newNode(t)
	n.cfg.Handlers["old"] = DefaultProfile()
	m := n.start()
	pod, err := m.RunPodSandbox(t.Context(), podConfig("web"), "old")
	must(t, "run", err)
	must(t, "close", m.Close())
	delete(n.cfg.Handlers, "old")
	m = n.start()
	if r, err := m.PodSandboxStatus(pod, false); err != nil || r.GetStatus().GetState() != runtime.PodSandboxState_SANDBOX_READY {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := m.CreateContainer(t.Context(), request(pod, containerConfig("c"))); !errors.Is(err, ErrUnknownHandler) {
		t.Errorf("%v", err)
	}
}

// The records of this package in every damaged form neither stop the start
// nor stay.
func FuzzRecover(f *testing.F) {
	f.Add([]byte{}, []byte{}, true)
	f.Add([]byte("LMCR"), []byte("LMCS"), false)
	f.Fuzz(func(t *testing.T, id, state []byte, ofSandbox bool) {
		n := newNode(t)
		m, err := New(n.cfg, fakeImages{n.world}, fakeHosts{n.world}, fakeNets{n.world}, quiet())
		must(t, "new", err)
		dir := m.containerDir(newID())
		if ofSandbox {
			dir = m.sandboxDir(newID())
		}
		must(t, "mkdir", os.Mkdir(dir, 0o700))
		must(t, "write", os.WriteFile(filepath.Join(dir, fileRecord), id, 0o600))
		must(t, "write", os.WriteFile(filepath.Join(dir, fileState), state, 0o600))
		err = m.Recover(t.Context())
		if err != nil && !errors.Is(err, record.ErrNewer) {
			t.Fatal(err)
		}
		if l := n.leftovers(); err == nil && len(l) > 0 {
			t.Fatalf("left: %v", l)
		}
		must(t, "close", m.Close())
	})
}
