package cri

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// refused checks that an error has the code, and words that tell the person who
// reads it what to look at.
func refused(t *testing.T, name string, err error, code codes.Code, words string) {
	t.Helper()
	text := status.Convert(err).Message()
	if status.Code(err) != code || !strings.Contains(text, words) {
		t.Errorf("%s: %s %.300q, want %s with %q", name, status.Code(err), text, code, words)
	}
}

// Requests for sandboxes that no kubelet sends.
func TestOddSandboxes(t *testing.T) {
	s := newSite(t, noHosts{}, copier{})
	for _, c := range []struct {
		name   string
		change func(*runtime.PodSandboxConfig)
		words  string
	}{
		{"empty metadata", func(c *runtime.PodSandboxConfig) { c.Metadata = &runtime.PodSandboxMetadata{} }, "metadata.name"},
		{"line break in the hostname", func(c *runtime.PodSandboxConfig) { c.Hostname = "a\n10.0.0.1 kubernetes.default" }, "hostname"},
		{"zero byte in the hostname", func(c *runtime.PodSandboxConfig) { c.Hostname = "a\x00" }, "hostname"},
		{"line break in dns_config", func(c *runtime.PodSandboxConfig) {
			c.DnsConfig = &runtime.DNSConfig{Servers: []string{"10.0.0.1\nnameserver 10.0.0.2"}}
		}, "dns_config"},
		{"huge annotation", func(c *runtime.PodSandboxConfig) {
			c.Annotations = map[string]string{"a": strings.Repeat("x", 3<<20)}
		}, "annotations"},
		{"huge label", func(c *runtime.PodSandboxConfig) {
			c.Labels = map[string]string{strings.Repeat("x", 14<<20): ""}
		}, "labels"},
		{"huge searches", func(c *runtime.PodSandboxConfig) {
			c.DnsConfig = &runtime.DNSConfig{Searches: []string{strings.Repeat("x", 14<<20)}}
		}, "bytes"},
		{"unknown network", func(c *runtime.PodSandboxConfig) {
			c.Hostname, c.Linux.SecurityContext.NamespaceOptions.Network = "odd", 77
		}, "77"},
	} {
		config := s.sandbox("odd")
		c.change(config)
		_, err := s.runtime.RunPodSandbox(t.Context(), &runtime.RunPodSandboxRequest{Config: config})
		refused(t, c.name, err, codes.InvalidArgument, c.words)
	}
	s.run(t, "odd") // the name is free
}

// Ids that are none, or not one.
func TestOddIDs(t *testing.T) {
	s := newSite(t, noHosts{}, copier{})
	digits := map[byte]int{}
	shared := "" // the beginning of two ids
	for n := 0; shared == ""; n++ {
		id := s.run(t, "n"+strings.Repeat("x", n))
		if digits[id[0]]++; digits[id[0]] == 2 {
			shared = id[:1]
		}
	}
	for _, c := range []struct {
		id                 string
		status, stop, make codes.Code
	}{
		{"", codes.InvalidArgument, codes.InvalidArgument, codes.InvalidArgument},
		{shared, codes.InvalidArgument, codes.InvalidArgument, codes.InvalidArgument},
		{"../../etc", codes.NotFound, codes.OK, codes.NotFound},
		{"\x00", codes.NotFound, codes.OK, codes.NotFound},
		{strings.Repeat("f", 1<<20), codes.NotFound, codes.OK, codes.NotFound},
	} {
		_, err := s.runtime.PodSandboxStatus(t.Context(), &runtime.PodSandboxStatusRequest{PodSandboxId: c.id, Verbose: true})
		refused(t, "status", err, c.status, "")
		if n := len(status.Convert(err).Message()); n > maxText+100 {
			t.Errorf("the error has %d bytes", n)
		}
		_, err = s.runtime.StopPodSandbox(t.Context(), &runtime.StopPodSandboxRequest{PodSandboxId: c.id})
		refused(t, "stop", err, c.stop, "")
		_, err = s.runtime.RemovePodSandbox(t.Context(), &runtime.RemovePodSandboxRequest{PodSandboxId: c.id})
		refused(t, "remove", err, c.stop, "")
		_, err = s.runtime.CreateContainer(t.Context(), &runtime.CreateContainerRequest{PodSandboxId: c.id})
		refused(t, "create", err, c.make, "")
		_, err = s.runtime.PodSandboxStats(t.Context(), &runtime.PodSandboxStatsRequest{PodSandboxId: c.id})
		refused(t, "stats", err, c.status, "")
	}
	// Filters that fit nothing are no error, whatever is in them.
	for _, f := range []*runtime.PodSandboxFilter{
		{Id: "\x00"}, {State: &runtime.PodSandboxStateValue{State: 99}}, {LabelSelector: map[string]string{"": "x"}},
	} {
		r, err := s.runtime.ListPodSandbox(t.Context(), &runtime.ListPodSandboxRequest{Filter: f})
		if err != nil || len(r.GetItems()) != 0 {
			t.Errorf("%v: %v, %v", f, r, err)
		}
	}
}

// Requests for containers that no kubelet sends, to real hosts. Nothing is left
// of any, and the name stays free.
func TestOddContainers(t *testing.T) {
	s, guest := whole(t)
	ref := guest("exit3")
	s.pull(t, ref)
	pod := s.run(t, "odd")
	res := func(c *runtime.ContainerConfig) *runtime.LinuxContainerResources {
		c.Linux = &runtime.LinuxContainerConfig{Resources: &runtime.LinuxContainerResources{}}
		return c.Linux.Resources
	}
	for _, c := range []struct {
		name   string
		change func(*runtime.ContainerConfig)
		words  string
	}{
		{"no metadata", func(c *runtime.ContainerConfig) { c.Metadata = nil }, "metadata.name"},
		{"no image", func(c *runtime.ContainerConfig) { c.Image = nil }, "image"},
		{"image that is no reference", func(c *runtime.ContainerConfig) { c.Image.Image = "A B\x00" }, "image"},
		{"zero byte in an argument", func(c *runtime.ContainerConfig) { c.Args = []string{"a\x00b"} }, "argument"},
		{"zero byte in a command", func(c *runtime.ContainerConfig) { c.Command = []string{"a\x00b"} }, "argument"},
		{"zero byte in a variable", func(c *runtime.ContainerConfig) {
			c.Envs = []*runtime.KeyValue{{Key: "A", Value: []byte("\x00")}}
		}, "environment variable"},
		{"empty variable", func(c *runtime.ContainerConfig) { c.Envs = []*runtime.KeyValue{{}} }, "environment variable"},
		{"many arguments", func(c *runtime.ContainerConfig) { c.Args = make([]string, 1<<17) }, "arguments"},
		{"huge environment", func(c *runtime.ContainerConfig) {
			c.Envs = []*runtime.KeyValue{{Key: "A", Value: []byte(strings.Repeat("<", 15<<20))}}
		}, "bytes"},
		{"huge annotation", func(c *runtime.ContainerConfig) {
			c.Annotations = map[string]string{"a": strings.Repeat("x", 14<<20)}
		}, "annotations"},
		{"folder as log", func(c *runtime.ContainerConfig) { c.LogPath = "." }, "log"},
		{"zero byte in the log's path", func(c *runtime.ContainerConfig) { c.LogPath = "a\x00b" }, "log"},
		{"mount of nothing", func(c *runtime.ContainerConfig) { c.Mounts = []*runtime.Mount{{}} }, "mount"},
		{"mount at a long path", func(c *runtime.ContainerConfig) {
			c.Mounts = []*runtime.Mount{{HostPath: "/etc", ContainerPath: "/" + strings.Repeat("x/", 5000)}}
		}, "mount"},
		{"mount at a long name", func(c *runtime.ContainerConfig) {
			c.Mounts = []*runtime.Mount{{HostPath: "/etc", ContainerPath: "/" + strings.Repeat("x", 300)}}
		}, "mount"},
		{"two mounts at one path", func(c *runtime.ContainerConfig) {
			c.Mounts = []*runtime.Mount{{HostPath: "/etc", ContainerPath: "/a"}, {HostPath: "/etc", ContainerPath: "/b/../a/"}}
		}, "two mounts"},
		{"negative shares", func(c *runtime.ContainerConfig) { res(c).CpuShares = -5 }, "cpu_shares"},
		{"negative period", func(c *runtime.ContainerConfig) { res(c).CpuPeriod = -5 }, "cpu_period"},
		{"period beyond a second", func(c *runtime.ContainerConfig) { res(c).CpuPeriod = 1 << 40 }, "cpu_period"},
		{"quota below a millisecond", func(c *runtime.ContainerConfig) { r := res(c); r.CpuPeriod, r.CpuQuota = 100000, 1 }, "cpu_quota"},
		{"memory beyond all", func(c *runtime.ContainerConfig) { res(c).MemoryLimitInBytes = -1 << 63 }, "memory"},
		{"score beyond the kernel's", func(c *runtime.ContainerConfig) { res(c).OomScoreAdj = 1 << 40 }, "oom_score_adj"},
		{"user beyond the kernel's", func(c *runtime.ContainerConfig) {
			c.Linux = &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{RunAsUser: &runtime.Int64Value{Value: 1 << 32}}}
		}, "user"},
		{"many groups", func(c *runtime.ContainerConfig) {
			l := make([]int64, 5000)
			for i := range l {
				l[i] = int64(i + 1)
			}
			c.Linux = &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{SupplementalGroups: l}}
		}, "groups"},
		{"unknown signal", func(c *runtime.ContainerConfig) { c.StopSignal = 9999 }, "signal"},
		{"long working directory", func(c *runtime.ContainerConfig) { c.WorkingDir = "/" + strings.Repeat("x", 5000) }, "working directory"},
	} {
		config := &runtime.ContainerConfig{Metadata: &runtime.ContainerMetadata{Name: "odd"}, Image: &runtime.ImageSpec{Image: ref}}
		c.change(config)
		r, err := s.runtime.CreateContainer(t.Context(), &runtime.CreateContainerRequest{PodSandboxId: pod, Config: config})
		refused(t, c.name, err, codes.InvalidArgument, c.words)
		if err == nil {
			if _, err := s.runtime.RemoveContainer(t.Context(), &runtime.RemoveContainerRequest{ContainerId: r.GetContainerId()}); err != nil {
				t.Error(err)
			}
		}
	}
	if l, err := s.runtime.ListContainers(t.Context(), &runtime.ListContainersRequest{}); err != nil || len(l.GetContainers()) != 0 {
		t.Errorf("left: %v, %v", l, err)
	}
	if strings.Contains(s.log.String(), "panic") {
		t.Errorf("a call panicked:\n%s", s.log)
	}
	s.removePod(t, pod)
}
