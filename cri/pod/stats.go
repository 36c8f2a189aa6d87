package pod

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/shim/cgroup"
)

// layerAge is how long a measured size of a writable layer is taken for true:
// walking a layer costs, and the kubelet asks every ten seconds.
const layerAge = 10 * time.Second

// layerUsage is the size of a container's writable layer when it was measured.
type layerUsage struct {
	at            time.Time
	bytes, inodes uint64
}

// ContainerStats measures one container.
func (m *Manager) ContainerStats(id string) (*runtime.ContainerStats, error) {
	c, err := m.index.container(id)
	if err != nil {
		return nil, err
	}
	st, err := m.measure(m.index.snapshot(c))
	if err != nil {
		return nil, fmt.Errorf("measure container %s: %w", id, err)
	}
	return st, nil
}

// ListContainerStats measures the containers that a filter lets pass. One
// that ends meanwhile is left out.
func (m *Manager) ListContainerStats(f *runtime.ContainerStatsFilter) []*runtime.ContainerStats {
	var out []*runtime.ContainerStats
	for _, s := range m.selected(f) {
		st, err := m.measure(s)
		if err != nil {
			m.logOf(s.container).Debug("container not measured", "error", err)
			continue
		}
		out = append(out, st)
	}
	return out
}

func (m *Manager) selected(f *runtime.ContainerStatsFilter) []snapshot {
	x := m.index
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []snapshot
	for _, c := range x.containers {
		if c.view == nil || !strings.HasPrefix(c.id, f.GetId()) || !strings.HasPrefix(c.sandbox.id, f.GetPodSandboxId()) || !selects(f.GetLabelSelector(), c.config.GetLabels()) {
			continue
		}
		out = append(out, snapshot{container: c, phase: c.phase, made: c.made})
	}
	return out
}

// measure gives the attributes always, which the kubelet follows without
// looking; CPU and memory only while there is a process.
func (m *Manager) measure(s snapshot) (*runtime.ContainerStats, error) {
	st := &runtime.ContainerStats{Attributes: &runtime.ContainerAttributes{
		Id: s.id, Metadata: s.config.GetMetadata(), Labels: s.config.GetLabels(), Annotations: s.config.GetAnnotations(),
	}}
	u, err := m.layerUsage(s)
	if err != nil {
		return nil, err
	}
	st.WritableLayer = &runtime.FilesystemUsage{
		Timestamp: u.at.UnixNano(), FsId: &runtime.FilesystemIdentifier{Mountpoint: filepath.Join(m.cfg.Root, dirLayers)},
		UsedBytes: value(u.bytes), InodesUsed: value(u.inodes),
	}
	h, ok := hostOf(s.phase)
	if !ok {
		return st, nil
	}
	g, err := h.Stats()
	if errors.Is(err, cgroup.ErrNotFound) {
		return st, nil // it is just ending
	}
	if err != nil {
		return nil, err
	}
	st.Cpu, st.Memory = cpuUsage(g), memoryUsage(g)
	st.Swap = &runtime.SwapUsage{Timestamp: g.At.UnixNano(), SwapUsageBytes: value(g.SwapUsage)}
	return st, nil
}

func cpuUsage(g cgroup.Stats) *runtime.CpuUsage {
	return &runtime.CpuUsage{Timestamp: g.At.UnixNano(), UsageCoreNanoSeconds: value(g.CPUNanoseconds)}
}

func memoryUsage(g cgroup.Stats) *runtime.MemoryUsage {
	u := &runtime.MemoryUsage{
		Timestamp: g.At.UnixNano(), WorkingSetBytes: value(g.MemoryWorkingSet), UsageBytes: value(g.MemoryUsage),
		RssBytes: value(g.MemoryRSS), PageFaults: value(g.PageFaults), MajorPageFaults: value(g.MajorPageFaults),
	}
	if g.MemoryLimit > g.MemoryWorkingSet {
		u.AvailableBytes = value(g.MemoryLimit - g.MemoryWorkingSet)
	}
	return u
}

func value(n uint64) *runtime.UInt64Value { return &runtime.UInt64Value{Value: n} }

// layerUsage measures the writable layer, or remembers. A container without an
// image's files writes to memory, which its cgroup counts.
func (m *Manager) layerUsage(s snapshot) (layerUsage, error) {
	if s.made == nil || !s.made.Writable {
		return layerUsage{at: time.Now()}, nil
	}
	m.index.mu.RLock()
	u := s.usage
	m.index.mu.RUnlock()
	if time.Since(u.at) < layerAge {
		return u, nil
	}
	upper, _ := m.layer(s.id)
	u, err := diskUsage(upper)
	if err != nil {
		return u, fmt.Errorf("measure the writable layer: %w", err)
	}
	m.index.mu.Lock()
	s.usage = u
	m.index.mu.Unlock()
	return u, nil
}

// diskUsage counts what a folder holds. What vanishes meanwhile is not counted.
func diskUsage(dir string) (layerUsage, error) {
	u := layerUsage{at: time.Now()}
	seen := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return ignoreNotExist(err)
		}
		fi, err := d.Info()
		if err != nil {
			return ignoreNotExist(err)
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok || st.Nlink > 1 && !fi.IsDir() && seen[st.Ino] {
			return nil
		}
		if st.Nlink > 1 { // the others come once, and there may be millions
			seen[st.Ino] = true
		}
		u.bytes += uint64(st.Blocks) * 512
		u.inodes++
		return nil
	})
	return u, err
}

func ignoreNotExist(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// PodSandboxStats measures a sandbox: the sum of its containers.
func (m *Manager) PodSandboxStats(id string) (*runtime.PodSandboxStats, error) {
	s, err := m.index.sandbox(id)
	if err != nil {
		return nil, err
	}
	return m.measureSandbox(s), nil
}

// ListPodSandboxStats measures the sandboxes that a filter lets pass.
func (m *Manager) ListPodSandboxStats(f *runtime.PodSandboxStatsFilter) []*runtime.PodSandboxStats {
	var out []*runtime.PodSandboxStats
	for _, v := range m.ListPodSandbox(&runtime.PodSandboxFilter{Id: f.GetId(), LabelSelector: f.GetLabelSelector()}) {
		if s, err := m.index.sandbox(v.GetId()); err == nil {
			out = append(out, m.measureSandbox(s))
		}
	}
	return out
}

func (m *Manager) measureSandbox(s *sandbox) *runtime.PodSandboxStats {
	st := &runtime.PodSandboxStats{
		Attributes: &runtime.PodSandboxAttributes{Id: s.id, Metadata: s.config.GetMetadata(), Labels: s.config.GetLabels(), Annotations: s.config.GetAnnotations()},
		Linux:      &runtime.LinuxPodSandboxStats{Containers: m.ListContainerStats(&runtime.ContainerStatsFilter{PodSandboxId: s.id})},
	}
	now := time.Now().UnixNano()
	var cpu, working, used, rss uint64
	for _, c := range st.Linux.Containers {
		cpu += c.GetCpu().GetUsageCoreNanoSeconds().GetValue()
		working += c.GetMemory().GetWorkingSetBytes().GetValue()
		used += c.GetMemory().GetUsageBytes().GetValue()
		rss += c.GetMemory().GetRssBytes().GetValue()
	}
	st.Linux.Cpu = &runtime.CpuUsage{Timestamp: now, UsageCoreNanoSeconds: value(cpu)}
	st.Linux.Memory = &runtime.MemoryUsage{Timestamp: now, WorkingSetBytes: value(working), UsageBytes: value(used), RssBytes: value(rss)}
	return st
}

// LayerUsage is what the writable layers of all containers take on disk, for
// ImageFsInfo's container file system.
func (m *Manager) LayerUsage() (bytes, inodes uint64) {
	for _, s := range m.selected(nil) {
		if u, err := m.layerUsage(s); err == nil {
			bytes += u.bytes
			inodes += u.inodes
		}
	}
	return bytes, inodes
}
