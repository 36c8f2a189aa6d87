package pod_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/cri/pod"
	"github.com/limpet-cri/limpet/image"
)

// bench is a node with its daemon in this process.
type bench struct {
	testing.TB
	place
	hub
	*stack
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{TB: t, place: newPlace(t)}
	b.hub = newHub(t)
	var err error
	if b.stack, err = b.place.open(t.Context(), nil, t.Output()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.stack.close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) must(what string, err error) {
	b.Helper()
	if err != nil {
		b.Fatalf("%s: %v", what, err)
	}
}

// pull makes sure that a guest's image is there.
func (b *bench) pull(guest string) {
	b.Helper()
	_, found, err := b.images.Status(b.ref(guest))
	b.must("status", err)
	if !found {
		_, err := b.images.Pull(b.Context(), b.ref(guest), image.PullOptions{})
		b.must("pull "+guest, err)
	}
}

// start runs a pod with one container.
func (b *bench) start(name, guest string, change ...func(*runtime.PodSandboxConfig, *runtime.ContainerConfig)) (pod, ctr string) {
	b.Helper()
	b.pull(guest)
	s, c := b.sandbox(name), b.container(guest)
	for _, f := range change {
		f(s, c)
	}
	pod, err := b.RunPodSandbox(b.Context(), s, "")
	b.must("run", err)
	ctr, err = b.CreateContainer(b.Context(), &runtime.CreateContainerRequest{PodSandboxId: pod, Config: c, SandboxConfig: s})
	b.must("create", err)
	b.must("start", b.StartContainer(b.Context(), ctr))
	return pod, ctr
}

func (b *bench) status(ctr string) *runtime.ContainerStatus {
	b.Helper()
	r, err := b.ContainerStatus(ctr, false)
	b.must("status", err)
	return r.GetStatus()
}

func (b *bench) exited(ctr string) *runtime.ContainerStatus {
	b.Helper()
	eventually(b, "exited", func() bool { return b.status(ctr).GetState() == runtime.ContainerState_CONTAINER_EXITED })
	st := b.status(ctr)
	// Whatever a test is about: an end that is not the guest's own has a reason
	// and a sentence, and the guest's own needs none.
	if own := st.GetReason() == "Completed" || st.GetReason() == "Error"; own != (st.GetMessage() == "") || st.GetReason() == "" {
		b.Errorf("ended with %d, reason %q, message %q", st.GetExitCode(), st.GetReason(), st.GetMessage())
	}
	return st
}

func TestRealLives(t *testing.T) {
	b := newBench(t)
	before := b.inventory(t)
	for _, c := range []struct {
		guest  string
		code   int32
		reason string
		says   string
	}{
		{"hello", 0, "Completed", ""},
		{"exit7", 7, "Error", ""},
		{"trap", 134, "Trap", "unreachable"},
		{"grow", 3, "Error", ""},
	} {
		pod, ctr := b.start(c.guest, c.guest)
		st := b.exited(ctr)
		if st.GetExitCode() != c.code || st.GetReason() != c.reason || !strings.Contains(st.GetMessage(), c.says) {
			t.Errorf("%s: code %d, reason %s, message %q", c.guest, st.GetExitCode(), st.GetReason(), st.GetMessage())
		}
		if st.GetStartedAt() < st.GetCreatedAt() || st.GetFinishedAt() < st.GetStartedAt() {
			t.Errorf("%s: created %d, started %d, finished %d", c.guest, st.GetCreatedAt(), st.GetStartedAt(), st.GetFinishedAt())
		}
		b.must("remove", b.RemovePodSandbox(t.Context(), pod))
	}
	if got := b.lines(t, "hello", "hello"); !slices.Equal(got, []string{"0000000"}) {
		t.Errorf("log: %q", got)
	}
	if after := b.inventory(t); !slices.Equal(before, after) {
		t.Errorf("left: %q, before: %q", after, before)
	}
}

func TestRealStop(t *testing.T) {
	b := newBench(t)
	for _, guest := range []string{"idle", "spin", "count"} {
		pod, ctr := b.start("stop-"+guest, guest, func(_ *runtime.PodSandboxConfig, c *runtime.ContainerConfig) {
			c.Linux.Resources.CpuPeriod, c.Linux.Resources.CpuQuota = 100_000, 5_000 // a tight one
		})
		eventually(t, "written", func() bool {
			fi, err := os.Stat(filepath.Join(b.Dir, "logs", "stop-"+guest, guest, "0.log"))
			return err == nil && fi.Size() > 0
		})
		began := time.Now()
		b.must("stop", b.StopContainer(t.Context(), ctr, 30))
		took := time.Since(began)
		st := b.status(ctr)
		t.Logf("%s ended %v after the signal", guest, took)
		if st.GetExitCode() != 143 || st.GetReason() != "Stopped" || took > 10*time.Second {
			t.Errorf("%s: %d %s %q after %v", guest, st.GetExitCode(), st.GetReason(), st.GetMessage(), took)
		}
		b.must("remove", b.RemovePodSandbox(t.Context(), pod))
	}
}

// What the guest's process gets of the request, seen from outside.
func TestRealConfinement(t *testing.T) {
	b := newBench(t)
	pod, ctr := b.start("confined", "idle", func(_ *runtime.PodSandboxConfig, c *runtime.ContainerConfig) {
		c.Linux.SecurityContext = &runtime.LinuxContainerSecurityContext{
			RunAsUser: &runtime.Int64Value{Value: 1234}, RunAsGroup: &runtime.Int64Value{Value: 2345}, SupplementalGroups: []int64{3456},
		}
	})
	r, err := b.ContainerStatus(ctr, true)
	b.must("status", err)
	pids := b.hosts()
	if len(pids) != 1 {
		t.Fatalf("hosts: %v", pids)
	}
	proc, err := os.ReadFile("/proc/" + pids[0] + "/status")
	b.must("read", err)
	for _, want := range []string{"Uid:\t1234\t1234\t1234\t1234", "Gid:\t2345\t2345\t2345\t2345", "Groups:\t3456", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"} {
		if !strings.Contains(string(proc), want) {
			t.Errorf("no %q in %s", want, proc)
		}
	}
	var mine, theirs syscall.Stat_t
	b.must("stat", syscall.Stat("/proc/self/ns/net", &mine))
	b.must("stat", syscall.Stat("/proc/"+pids[0]+"/ns/net", &theirs))
	if mine.Ino == theirs.Ino {
		t.Error("the guest has the node's network")
	}
	if u := r.GetStatus().GetUser().GetLinux(); u.GetUid() != 1234 || u.GetGid() != 2345 {
		t.Errorf("reported: %v", u)
	}
	adj, err := os.ReadFile("/proc/" + pids[0] + "/oom_score_adj")
	if err != nil || strings.TrimSpace(string(adj)) != "1000" {
		t.Errorf("oom_score_adj %q, %v", adj, err)
	}
	groups, err := os.ReadFile("/proc/" + pids[0] + "/cgroup")
	b.must("read", err)
	for _, c := range []string{"memory", "cpu", "cpuacct", "pids"} { // version 2 has one line for all
		if !regexp.MustCompile(`(?m)^(0:|\d+:(.*,)?` + c + `(,.*)?):` + regexp.QuoteMeta(b.Cgroup+"/"+ctr) + `$`).Match(groups) {
			t.Errorf("its %s is not limited below the pod's cgroup %s: %s", c, b.Cgroup, groups)
		}
	}
	st, err := b.ContainerStats(ctr)
	b.must("stats", err)
	if st.GetCpu().GetUsageCoreNanoSeconds().GetValue() == 0 || st.GetMemory().GetWorkingSetBytes().GetValue() == 0 {
		t.Errorf("stats: %v", st)
	}
	t.Logf("idle container: %v", st.GetMemory())
	b.must("update", b.UpdateContainerResources(t.Context(), ctr, &runtime.LinuxContainerResources{MemoryLimitInBytes: 96 << 20, MemorySwapLimitInBytes: 96 << 20}))
	if got := b.status(ctr).GetResources().GetLinux().GetMemoryLimitInBytes(); got != 96<<20 {
		t.Errorf("reported limit: %d", got)
	}
	b.must("remove", b.RemovePodSandbox(t.Context(), pod))
}

func TestRealLogRotation(t *testing.T) {
	b := newBench(t)
	pod, ctr := b.start("rotate", "count")
	log := filepath.Join(b.Dir, "logs", "rotate", "count", "0.log")
	grown := func() bool { fi, err := os.Stat(log); return err == nil && fi.Size() > 200 }
	eventually(t, "written", grown)
	b.must("rename", os.Rename(log, log+".1"))
	b.must("reopen", b.ReopenContainerLog(t.Context(), ctr))
	eventually(t, "written anew", grown)
	b.must("remove", b.RemoveContainer(t.Context(), ctr))
	old, err := os.ReadFile(log + ".1")
	b.must("read", err)
	now, err := os.ReadFile(log)
	b.must("read", err)
	b.must("write", os.WriteFile(log, append(old, now...), 0o600))
	unbroken(t, b.lines(t, "rotate", "count"))
	b.must("remove sandbox", b.RemovePodSandbox(t.Context(), pod))
}

// A guest that takes all it can sees memory.grow fail, and is not killed: at
// the smallest limit and at large ones the margin is enough for the host.
func TestRealMemoryMargin(t *testing.T) {
	b := newBench(t)
	for _, limit := range []int64{int64(pod.MinMemory), 16 << 20, 64 << 20, 256 << 20, 1 << 30} {
		name := fmt.Sprintf("fill-%d", limit>>20)
		pod, ctr := b.start(name, "fill", func(_ *runtime.PodSandboxConfig, c *runtime.ContainerConfig) {
			c.Linux.Resources.MemoryLimitInBytes, c.Linux.Resources.MemorySwapLimitInBytes = limit, limit
		})
		st := b.exited(ctr)
		peak, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/memory", b.Cgroup, ctr, "memory.max_usage_in_bytes"))
		if err == nil {
			t.Logf("limit %d MiB: peak %s", limit>>20, strings.TrimSpace(string(peak)))
		}
		if st.GetExitCode() != 3 {
			t.Errorf("limit %d MiB: %d %s %s", limit>>20, st.GetExitCode(), st.GetReason(), st.GetMessage())
		}
		b.must("remove", b.RemovePodSandbox(t.Context(), pod))
	}
}
