package pod_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// freeze stops the only host there is, so that it answers nothing.
func (b *bench) freeze() (pid int) {
	b.Helper()
	pids := b.hosts()
	if len(pids) != 1 {
		b.Fatalf("hosts: %v", pids)
	}
	pid, err := strconv.Atoi(pids[0])
	b.must("pid", err)
	b.must("freeze", unix.Kill(pid, unix.SIGSTOP))
	eventually(b, "stopped", func() bool { // each of its threads
		stats, err := filepath.Glob("/proc/" + pids[0] + "/task/*/stat")
		b.must("list", err)
		return len(stats) > 0 && !slices.ContainsFunc(stats, func(p string) bool {
			stat, err := os.ReadFile(p)
			return err != nil || !strings.Contains(string(stat), ") T ")
		})
	})
	return pid
}

// A process that hangs keeps no stop waiting beyond its grace period, neither
// for the daemon that made it nor for the next one.
func TestRealStopOfAFrozenHost(t *testing.T) {
	b := newBench(t)
	before := b.inventory(t)
	for _, restart := range []bool{false, true} {
		pod, ctr := b.start("frozen", "idle")
		b.freeze()
		if restart {
			b.must("close", b.stack.close())
			var err error
			b.stack, err = b.open(t.Context(), nil, t.Output())
			b.must("open", err)
		}
		began := time.Now()
		b.must("stop", b.StopContainer(t.Context(), ctr, 1))
		t.Logf("restart %v: it took %v", restart, time.Since(began))
		if st := b.status(ctr); st.GetExitCode() != 137 || st.GetReason() != "Killed" {
			t.Errorf("restart %v: %v", restart, st)
		}
		b.must("remove", b.RemovePodSandbox(t.Context(), pod))
	}
	if after := b.inventory(t); len(after) != len(before) {
		t.Errorf("left: %q, before: %q", after, before)
	}
}

// A container whose process hangs while the daemon restarts is what it was.
func TestRealRestartBesideAFrozenHost(t *testing.T) {
	b := newBench(t)
	b.pull("exit7")
	pod, err := b.RunPodSandbox(t.Context(), b.sandbox("frozen"), "")
	b.must("run", err)
	ctr, err := b.CreateContainer(t.Context(), &runtime.CreateContainerRequest{PodSandboxId: pod, Config: b.container("exit7")})
	b.must("create", err)
	pid := b.freeze()
	b.must("close", b.stack.close())
	b.stack, err = b.open(t.Context(), nil, t.Output())
	b.must("open", err)
	if st := b.status(ctr); st.GetState() != runtime.ContainerState_CONTAINER_CREATED {
		t.Errorf("%v", st)
	}
	b.must("thaw", unix.Kill(pid, unix.SIGCONT))
	b.must("start", b.StartContainer(t.Context(), ctr))
	if st := b.exited(ctr); st.GetExitCode() != 7 {
		t.Errorf("%v", st)
	}
	b.must("remove", b.RemovePodSandbox(t.Context(), pod))
}

// Any number of stops at once, of the container and of its sandbox, succeed.
func TestRealStopsAtOnce(t *testing.T) {
	b := newBench(t)
	pod, ctr := b.start("many", "spin")
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			var err error
			switch i % 5 {
			case 4:
				err = b.StopPodSandbox(t.Context(), pod)
			default:
				err = b.StopContainer(t.Context(), ctr, int64(i%3)*10)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if st := b.status(ctr); st.GetExitCode() != 143 && st.GetExitCode() != 137 {
		t.Errorf("%v", st)
	}
	b.must("remove", b.RemovePodSandbox(t.Context(), pod))
}
