package pod

import (
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// memoryMargin is what stays of a container's limit for its host, with
	// pageTables of the limit: the guest's memory is bounded by the rest, so
	// that it sees a failed memory.grow before the kernel ends the process.
	// Measured: a small guest that fills 4 to 256 MiB leaves 1.0 to 1.7 MiB to
	// its host (tests hold it); the rest is for threads, and for files it reads.
	memoryMargin = 4 << 20
	// pageTables is the part of the limit that the kernel needs to map it: an
	// entry of 8 bytes per page of 4096, charged to the container. Measured:
	// 2 MiB at 1 GiB.
	pageTables = 512
	// MinMemory is the smallest limit of a container, in bytes: below it a
	// host may not come up, and the pod would fail with a message about that
	// instead of about its limit.
	MinMemory = 8 << 20
	// minPeriod and maxPeriod bound what a quota is of, and minQuota the quota,
	// in microseconds, maxScore oom_score_adj either way: all are the kernel's.
	minPeriod, maxPeriod = 1000, 1000000
	minQuota             = 1000
	maxScore             = 1000
	// minPids is what a host needs for itself.
	minPids = 16
	// maxPids is the kernel's.
	maxPids = 1 << 22
)

// limits are the resources of a container, with the profile's where the
// request has none, and the bound of the guest's own memory.
func limits(r *runtime.LinuxContainerResources, p Profile) (*specs.LinuxResources, uint64, error) {
	memory := uint64(max(r.GetMemoryLimitInBytes(), 0))
	if memory == 0 {
		memory = p.MemoryDefault
	}
	if p.MemoryMax != 0 {
		if memory > p.MemoryMax {
			return nil, 0, &FieldError{Field: "ContainerConfig.linux.resources.memory_limit_in_bytes", Found: uitoa(memory), Sentence: "the handler's profile allows at most " + uitoa(p.MemoryMax) + " bytes (memory_max)"}
		}
		if memory == 0 {
			memory = p.MemoryMax
		}
	}
	if swap := r.GetMemorySwapLimitInBytes(); swap > 0 && uint64(swap) < memory || swap > 0 && memory == 0 {
		return nil, 0, invalid("memory_swap_limit_in_bytes is %d and the limit of memory %d (0: none); the first counts memory and swap together and cannot be the smaller one", swap, memory)
	}
	out := &specs.LinuxResources{Unified: r.GetUnified()}
	var guest uint64
	if memory != 0 {
		guest = memory - memoryMargin - memory/pageTables
		limit := int64(memory)
		out.Memory = &specs.LinuxMemory{Limit: &limit}
		if swap := r.GetMemorySwapLimitInBytes(); swap != 0 {
			out.Memory.Swap = &swap
		}
	}
	out.CPU = cpuLimits(r)
	if p.PidsLimit > 0 {
		out.Pids = &specs.LinuxPids{Limit: &p.PidsLimit}
	}
	return out, guest, nil
}

func cpuLimits(r *runtime.LinuxContainerResources) *specs.LinuxCPU {
	c := &specs.LinuxCPU{}
	if v := r.GetCpuShares(); v > 0 {
		shares := uint64(v)
		c.Shares = &shares
	}
	if v := r.GetCpuPeriod(); v > 0 {
		period := uint64(v)
		c.Period = &period
	}
	if v := r.GetCpuQuota(); v != 0 {
		c.Quota = &v
	}
	if *c == (specs.LinuxCPU{}) {
		return nil
	}
	return c
}

// cgroupPath is the container's group below the pod's. A pod without one (not
// from a kubelet) gets a group of ours.
func cgroupPath(c *runtime.PodSandboxConfig, id string) string {
	parent := c.GetLinux().GetCgroupParent()
	if parent == "" {
		parent = "/limpet"
	}
	return path.Join("/", parent, id)
}

// merge puts an update over what was asked before: zero leaves a limit as it
// is, as CRI has it. The limit of memory and swap together goes along with that
// of memory where it said that there is no swap, and where it would be below it.
func merge(old, update *runtime.LinuxContainerResources) *runtime.LinuxContainerResources {
	r := &runtime.LinuxContainerResources{
		CpuPeriod: or(update.GetCpuPeriod(), old.GetCpuPeriod()), CpuQuota: or(update.GetCpuQuota(), old.GetCpuQuota()),
		CpuShares: or(update.GetCpuShares(), old.GetCpuShares()), MemoryLimitInBytes: or(update.GetMemoryLimitInBytes(), old.GetMemoryLimitInBytes()),
		MemorySwapLimitInBytes: or(update.GetMemorySwapLimitInBytes(), old.GetMemorySwapLimitInBytes()), OomScoreAdj: or(update.GetOomScoreAdj(), old.GetOomScoreAdj()),
		HugepageLimits: old.GetHugepageLimits(), Unified: map[string]string{},
	}
	if was := old.GetMemorySwapLimitInBytes(); update.GetMemorySwapLimitInBytes() == 0 && was > 0 &&
		(was == old.GetMemoryLimitInBytes() || was < r.GetMemoryLimitInBytes()) {
		r.MemorySwapLimitInBytes = r.GetMemoryLimitInBytes()
	}
	if len(update.GetHugepageLimits()) > 0 {
		r.HugepageLimits = update.GetHugepageLimits()
	}
	for _, m := range []map[string]string{old.GetUnified(), update.GetUnified()} {
		for k, v := range m {
			r.Unified[k] = v
		}
	}
	return r
}

func or(v, otherwise int64) int64 {
	if v != 0 {
		return v
	}
	return otherwise
}
