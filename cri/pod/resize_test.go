package pod_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/shim/cgroup"
)

// said waits until the last line of a container's log is the number given.
func (b *bench) said(pod, guest string, n int) {
	b.Helper()
	want := fmt.Sprintf("%07d", n)
	eventually(b, "said "+want, func() bool {
		if _, err := os.Stat(filepath.Join(b.Dir, "logs", pod, guest, "0.log")); err != nil {
			return false
		}
		l := b.lines(b, pod, guest)
		return len(l) > 0 && l[len(l)-1] == want
	})
}

func (b *bench) limit(ctr string, mib int64) {
	b.Helper()
	b.must("update", b.UpdateContainerResources(b.Context(), ctr, &runtime.LinuxContainerResources{MemoryLimitInBytes: mib << 20}))
}

// inForce checks what is reported, and what the kernel holds to.
func (b *bench) inForce(ctr string, mib int64) {
	b.Helper()
	r := b.status(ctr).GetResources().GetLinux()
	if r.GetMemoryLimitInBytes() != mib<<20 || r.GetMemorySwapLimitInBytes() != mib<<20 {
		b.Errorf("reported: %v, want %d MiB of both", r, mib)
	}
	for _, file := range []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"} {
		path := filepath.Join(cgroup.Root, "memory", b.Cgroup, ctr, file)
		if got, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(got)) != fmt.Sprint(mib<<20) {
			b.Errorf("%s is %s, want %d MiB", file, got, mib)
		}
	}
	if got, err := os.ReadFile(filepath.Join(cgroup.Root, b.Cgroup, ctr, "memory.max")); err == nil && strings.TrimSpace(string(got)) != fmt.Sprint(mib<<20) {
		b.Errorf("memory.max is %s, want %d MiB", got, mib)
	}
}

func noSwap(_ *runtime.PodSandboxConfig, c *runtime.ContainerConfig) {
	c.Linux.Resources.MemorySwapLimitInBytes = c.Linux.Resources.MemoryLimitInBytes
}

// A running guest gets what an update gives and no more than what it leaves, by
// a daemon that came later too.
func TestRealResize(t *testing.T) {
	b := newBench(t)
	pod, ctr := b.start("resize", "stretch", noSwap)
	b.said("resize", "stretch", 59) // of 64 MiB, less the host's part
	b.limit(ctr, 96)
	b.said("resize", "stretch", 91)
	b.inForce(ctr, 96)
	b.limit(ctr, 32) // below what it reserved, of which it has touched nothing
	b.inForce(ctr, 32)

	b.must("close", b.stack.close())
	var err error
	b.stack, err = b.place.open(t.Context(), nil, t.Output())
	b.must("open", err)
	b.inForce(ctr, 32)
	b.limit(ctr, 128)
	b.said("resize", "stretch", 123)
	b.inForce(ctr, 128)
	if got, want := b.lines(t, "resize", "stretch"), []string{"0000059", "0000091", "0000123"}; !slices.Equal(got, want) {
		t.Errorf("the guest said %q, want %q", got, want)
	}
	b.must("remove", b.RemovePodSandbox(t.Context(), pod))
}

// A limit below what a container uses is refused, whole: nothing of the update
// is in force, and the container runs on.
func TestRealResizeBelowUse(t *testing.T) {
	b := newBench(t)
	pod, ctr := b.start("below", "hold", noSwap)
	b.said("below", "hold", 0)
	err := b.UpdateContainerResources(t.Context(), ctr, &runtime.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, CpuShares: 100})
	if !errors.Is(err, cgroup.ErrLimit) || !strings.Contains(err.Error(), "bytes in use") {
		t.Errorf("got %v", err)
	}
	b.inForce(ctr, 64)
	if st := b.status(ctr); st.GetState() != runtime.ContainerState_CONTAINER_RUNNING || st.GetResources().GetLinux().GetCpuShares() != 0 {
		t.Errorf("%v", st)
	}
	b.limit(ctr, 48)
	b.inForce(ctr, 48)
	b.must("remove", b.RemovePodSandbox(t.Context(), pod))
}

// The other numbers of an update reach the process too.
func TestRealResizeOOMScore(t *testing.T) {
	b := newBench(t)
	pod, ctr := b.start("score", "idle", func(_ *runtime.PodSandboxConfig, c *runtime.ContainerConfig) { c.Linux.Resources.OomScoreAdj = 500 })
	b.must("update", b.UpdateContainerResources(t.Context(), ctr, &runtime.LinuxContainerResources{OomScoreAdj: 900}))
	got, err := os.ReadFile("/proc/" + b.hosts()[0] + "/oom_score_adj")
	if err != nil || strings.TrimSpace(string(got)) != "900" {
		t.Errorf("oom_score_adj %q, %v", got, err)
	}
	if adj := b.status(ctr).GetResources().GetLinux().GetOomScoreAdj(); adj != 900 {
		t.Errorf("reported: %d", adj)
	}
	b.must("remove", b.RemovePodSandbox(t.Context(), pod))
}
