package pod

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestUpdateAndReopen(t *testing.T) {
	n := newNode(t)
	m := n.start()
	_, ctr := running(t, m, "web")
	must(t, "update", m.UpdateContainerResources(t.Context(), ctr, &runtime.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, CpuShares: 512}))
	must(t, "update", m.UpdateContainerResources(t.Context(), ctr, &runtime.LinuxContainerResources{CpuQuota: 5000, CpuPeriod: 100000}))
	r := status(t, m, ctr).GetResources().GetLinux()
	if r.GetMemoryLimitInBytes() != 32<<20 || r.GetCpuShares() != 512 || r.GetCpuQuota() != 5000 {
		t.Errorf("reported: %v", r)
	}
	if l := n.host(ctr).limit; *l.Memory.Limit != 32<<20 || *l.CPU.Shares != 512 || *l.CPU.Quota != 5000 {
		t.Errorf("set: %+v", l)
	}
	if b := n.host(ctr).bound; b.To != 32<<20-memoryMargin-32<<20/pageTables || b.From != b.To {
		t.Errorf("bound of the guest: %+v", b)
	}
	if err := m.UpdateContainerResources(t.Context(), ctr, &runtime.LinuxContainerResources{MemoryLimitInBytes: 1}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "UpdateContainerResourcesRequest.linux.memory_limit_in_bytes (1) is refused") {
		t.Errorf("tiny: %v", err)
	}
	must(t, "reopen", m.ReopenContainerLog(t.Context(), ctr))
	m = n.start() // the record has it too
	if r := status(t, m, ctr).GetResources().GetLinux(); r.GetMemoryLimitInBytes() != 32<<20 || r.GetCpuQuota() != 5000 {
		t.Errorf("after a restart: %v", r)
	}
	must(t, "stop", m.StopContainer(t.Context(), ctr, 1))
	if err := m.ReopenContainerLog(t.Context(), ctr); !errors.Is(err, ErrBadPhase) {
		t.Errorf("reopen of an exited container: %v", err)
	}
	if err := m.UpdateContainerResources(t.Context(), ctr, nil); !errors.Is(err, ErrBadPhase) {
		t.Errorf("update of an exited container: %v", err)
	}
}

func TestStats(t *testing.T) {
	n := newNode(t)
	m := n.start()
	_, ctr := running(t, m, "web")
	st, err := m.ContainerStats(ctr)
	must(t, "stats", err)
	if st.GetAttributes().GetMetadata().GetName() != "c" || st.GetCpu().GetUsageCoreNanoSeconds().GetValue() != 4 || st.GetMemory().GetWorkingSetBytes().GetValue() != 2 {
		t.Errorf("%v", st)
	}
	must(t, "stop", m.StopContainer(t.Context(), ctr, 1))
	if st, err = m.ContainerStats(ctr); err != nil || st.GetAttributes().GetId() != ctr || st.GetWritableLayer() == nil || st.GetCpu() != nil {
		t.Errorf("exited: %v, %v", st, err)
	}
}

func TestDiskUsage(t *testing.T) {
	dir := t.TempDir()
	must(t, "write", os.WriteFile(filepath.Join(dir, "a"), make([]byte, 8192), 0o600))
	must(t, "link", os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b")))
	u, err := diskUsage(dir)
	if err != nil || u.inodes != 2 || u.bytes < 8192 || u.bytes > 8192+8192 {
		t.Errorf("%+v, %v", u, err)
	}
	if u, err = diskUsage(filepath.Join(dir, "none")); err != nil || u.inodes != 0 {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestSlowSubscriber(t *testing.T) {
	m := newNode(t).start()
	s := m.Events()
	for range eventBuffer + 1 {
		m.bus.send(&runtime.ContainerEventResponse{})
	}
	n := 0
	for range s.C() {
		n++
	}
	if n != eventBuffer || !errors.Is(s.Err(), ErrSlow) {
		t.Errorf("%d events, then %v", n, s.Err())
	}
	s.Close()
	s = m.Events()
	must(t, "close", m.Close())
	if _, ok := <-s.C(); ok || !errors.Is(s.Err(), ErrClosed) {
		t.Errorf("after Close: %v", s.Err())
	}
}

func TestVerbose(t *testing.T) {
	m := newNode(t).start()
	_, ctr := running(t, m, "web")
	r, err := m.ContainerStatus(ctr, true)
	must(t, "status", err)
	var v struct {
		PID         int `json:"pid"`
		RuntimeSpec struct{ Process struct{ Args []string } }
	}
	must(t, "decode", json.Unmarshal([]byte(r.GetInfo()["info"]), &v))
	if v.PID != 4242 || len(v.RuntimeSpec.Process.Args) != 1 || v.RuntimeSpec.Process.Args[0] != "app.wasm" {
		t.Errorf("%+v", v)
	}
}

func TestSandboxFiles(t *testing.T) {
	n := newNode(t)
	m := n.start()
	c := podConfig("web")
	c.DnsConfig = &runtime.DNSConfig{Servers: []string{"10.0.0.10"}, Searches: []string{"a.local", "b.local"}, Options: []string{"ndots:5"}}
	pod, err := m.RunPodSandbox(t.Context(), c, "")
	must(t, "run", err)
	for name, want := range map[string]string{
		fileHostname: "web\n", fileResolvConf: "search a.local b.local\nnameserver 10.0.0.10\noptions ndots:5\n",
	} {
		if b, err := os.ReadFile(filepath.Join(m.sandboxDir(pod), name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(m.sandboxDir(pod), fileHosts)); err != nil || !strings.Contains(string(b), "127.0.0.1\tweb\n") {
		t.Errorf("hosts: %q, %v", b, err)
	}
	c = podConfig("evil")
	c.DnsConfig = &runtime.DNSConfig{Searches: []string{"x\nnameserver 6.6.6.6"}}
	if _, err := m.RunPodSandbox(t.Context(), c, ""); !errors.Is(err, ErrInvalid) {
		t.Errorf("a line break: %v", err)
	}
}

func BenchmarkList(b *testing.B) {
	n := newNode(b)
	m := n.start()
	for i := range 1000 {
		c := podConfig(newID()[:8])
		c.Metadata.Attempt = uint32(i)
		if _, err := m.RunPodSandbox(b.Context(), c, ""); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if len(m.ListPodSandbox(nil)) != 1000 {
			b.Fatal("lost some")
		}
	}
}
