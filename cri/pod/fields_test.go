package pod

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Every field of the two messages is in the table, by itself or with the
// message it is in, and nothing else is.
func TestFieldsAreComplete(t *testing.T) {
	table := map[string]bool{}
	for _, f := range Fields() {
		key := f.Message + "." + f.Path
		if table[key] {
			t.Errorf("%s is there twice", key)
		}
		table[key] = false
		if f.Sentence == "" || strings.HasSuffix(f.Sentence, ".") {
			t.Errorf("%s: the sentence is %q; it is a clause without a full stop", key, f.Sentence)
		}
		if f.Treatment == Refused && f.refuses == nil {
			t.Errorf("%s is refused by nobody", key)
		}
	}
	for _, m := range []proto.Message{&runtime.PodSandboxConfig{}, &runtime.ContainerConfig{}} {
		d := m.ProtoReflect().Descriptor()
		cover(t, table, d, string(d.Name()))
	}
	for key, used := range table {
		if !used {
			t.Errorf("%s is no field of CRI", key)
		}
	}
}

func cover(t *testing.T, table map[string]bool, d protoreflect.MessageDescriptor, path string) {
	t.Helper()
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		key := path + "." + string(f.Name())
		if _, ok := table[key]; ok {
			table[key] = true
			continue
		}
		inner := key
		if f.IsList() {
			inner += "[]"
		}
		below := false
		for k := range table {
			below = below || strings.HasPrefix(k, inner+".")
		}
		if !below || f.Message() == nil {
			t.Errorf("%s is in CRI and not in the table: is it honoured, satisfied, refused?", key)
			continue
		}
		cover(t, table, f.Message(), inner)
	}
}

// What each refusing field refuses, and beside it what it lets pass.
func TestFieldsRefuse(t *testing.T) {
	type pod = runtime.PodSandboxConfig
	type ctr = runtime.ContainerConfig
	type psc = runtime.LinuxSandboxSecurityContext
	type csc = runtime.LinuxContainerSecurityContext
	type nso = runtime.NamespaceOption
	podSec := func(s *psc) *pod { return &pod{Linux: &runtime.LinuxPodSandboxConfig{SecurityContext: s}} }
	podNS := func(n *nso) *pod { return podSec(&psc{NamespaceOptions: n}) }
	sec := func(s *csc) *ctr { return &ctr{Linux: &runtime.LinuxContainerConfig{SecurityContext: s}} }
	ns := func(n *nso) *ctr { return sec(&csc{NamespaceOptions: n}) }
	res := func(r *runtime.LinuxContainerResources) *ctr {
		return &ctr{Linux: &runtime.LinuxContainerConfig{Resources: r}}
	}
	mnt := func(m *runtime.Mount) *ctr { return &ctr{Mounts: []*runtime.Mount{m}} }
	localhost := &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Localhost, LocalhostRef: "/p"}
	userns := &runtime.UserNamespace{Mode: runtime.NamespaceMode_POD}
	const node, target, container = runtime.NamespaceMode_NODE, runtime.NamespaceMode_TARGET, runtime.NamespaceMode_CONTAINER

	refused := map[string]bool{}
	for _, c := range []struct {
		path string
		pod  *pod
		ctr  *ctr
	}{
		{"linux.cgroup_parent", &pod{Linux: &runtime.LinuxPodSandboxConfig{CgroupParent: "/kubepods.slice/kubepods-pod1.slice"}}, nil},
		{"port_mappings", &pod{PortMappings: []*runtime.PortMapping{{HostPort: 80}}}, nil},
		{"linux.security_context.namespace_options.network", podNS(&nso{Network: container}), nil},
		{"linux.security_context.namespace_options.pid", podNS(&nso{Pid: node}), nil},
		{"linux.security_context.namespace_options.ipc", podNS(&nso{Ipc: node}), nil},
		{"linux.security_context.namespace_options.target_id", podNS(&nso{TargetId: "x"}), nil},
		{"linux.security_context.namespace_options.userns_options", podNS(&nso{UsernsOptions: userns}), nil},
		{"linux.security_context.selinux_options", podSec(&psc{SelinuxOptions: &runtime.SELinuxOption{Level: "s0"}}), nil},
		{"linux.security_context.privileged", podSec(&psc{Privileged: true}), nil},
		{"linux.security_context.seccomp", podSec(&psc{Seccomp: localhost}), nil},
		{"linux.security_context.apparmor", podSec(&psc{Apparmor: localhost}), nil},
		//lint:ignore SA1019 a client may still send it
		{"linux.security_context.seccomp_profile_path", podSec(&psc{SeccompProfilePath: "localhost/x"}), nil},
		{"linux.sysctls", &pod{Linux: &runtime.LinuxPodSandboxConfig{Sysctls: map[string]string{"net.core.somaxconn": "1"}}}, nil},
		{"windows", &pod{Windows: &runtime.WindowsPodSandboxConfig{}}, nil},

		{"devices", nil, &ctr{Devices: []*runtime.Device{{HostPath: "/dev/fuse"}}}},
		{"CDI_devices", nil, &ctr{CDIDevices: []*runtime.CDIDevice{{Name: "x"}}}},
		{"annotations", nil, &ctr{Annotations: map[string]string{"limpet.dev/on-stop": "wait"}}},
		{"tty", nil, &ctr{Tty: true}},
		{"windows", nil, &ctr{Windows: &runtime.WindowsContainerConfig{}}},
		{"linux.resources.memory_limit_in_bytes", nil, res(&runtime.LinuxContainerResources{MemoryLimitInBytes: int64(MinMemory) - 1})},
		{"linux.resources.cpuset_cpus", nil, res(&runtime.LinuxContainerResources{CpusetCpus: "0"})},
		{"linux.resources.cpuset_mems", nil, res(&runtime.LinuxContainerResources{CpusetMems: "0"})},
		{"linux.security_context.capabilities", nil, sec(&csc{Capabilities: &runtime.Capability{AddCapabilities: []string{"NET_ADMIN"}}})},
		{"linux.security_context.privileged", nil, sec(&csc{Privileged: true})},
		{"linux.security_context.namespace_options.network", nil, ns(&nso{Network: node})},
		{"linux.security_context.namespace_options.pid", nil, ns(&nso{Pid: target})},
		{"linux.security_context.namespace_options.ipc", nil, ns(&nso{Ipc: node})},
		{"linux.security_context.namespace_options.target_id", nil, ns(&nso{TargetId: "x"})},
		{"linux.security_context.namespace_options.userns_options", nil, ns(&nso{UsernsOptions: userns})},
		{"linux.security_context.selinux_options", nil, sec(&csc{SelinuxOptions: &runtime.SELinuxOption{Type: "t"}})},
		{"linux.security_context.masked_paths", nil, sec(&csc{MaskedPaths: []string{"/proc/../etc"}})},
		{"linux.security_context.readonly_paths", nil, sec(&csc{ReadonlyPaths: []string{"/data"}})},
		{"linux.security_context.seccomp", nil, sec(&csc{Seccomp: localhost})},
		{"linux.security_context.apparmor", nil, sec(&csc{Apparmor: localhost})},
		//lint:ignore SA1019 a client may still send it
		{"linux.security_context.apparmor_profile", nil, sec(&csc{ApparmorProfile: "localhost/x"})},
		//lint:ignore SA1019 a client may still send it
		{"linux.security_context.seccomp_profile_path", nil, sec(&csc{SeccompProfilePath: "localhost/x"})},
		{"linux.resources.cpu_shares", nil, res(&runtime.LinuxContainerResources{CpuShares: -5})},
		{"linux.resources.cpu_period", nil, res(&runtime.LinuxContainerResources{CpuPeriod: 1 << 40})},
		{"linux.resources.cpu_period", nil, res(&runtime.LinuxContainerResources{CpuPeriod: -1})},
		{"linux.resources.cpu_quota", nil, res(&runtime.LinuxContainerResources{CpuQuota: 999})},
		{"linux.resources.cpu_quota", nil, res(&runtime.LinuxContainerResources{CpuQuota: -2})},
		{"linux.resources.oom_score_adj", nil, res(&runtime.LinuxContainerResources{OomScoreAdj: 1001})},
		{"linux.resources.oom_score_adj", nil, res(&runtime.LinuxContainerResources{OomScoreAdj: -1 << 63})},
		{"mounts[].recursive_read_only", nil, mnt(&runtime.Mount{RecursiveReadOnly: true})},
		{"mounts[].propagation", nil, mnt(&runtime.Mount{Propagation: runtime.MountPropagation_PROPAGATION_HOST_TO_CONTAINER})},
		{"mounts[].uidMappings", nil, mnt(&runtime.Mount{UidMappings: []*runtime.IDMapping{{}}})},
		{"mounts[].gidMappings", nil, mnt(&runtime.Mount{GidMappings: []*runtime.IDMapping{{}}})},
		{"mounts[].image", nil, mnt(&runtime.Mount{Image: &runtime.ImageSpec{Image: "x"}})},
		{"mounts[].image_sub_path", nil, mnt(&runtime.Mount{ImageSubPath: "x"})},
		{"mounts[].mount_options", nil, mnt(&runtime.Mount{MountOptions: []string{"exec"}})},
	} {
		s := subject{pod: c.pod, ctr: c.ctr}
		message := sandboxMessage
		if c.ctr != nil {
			message, s.pod = containerMessage, &pod{}
			if len(c.ctr.GetMounts()) > 0 {
				s.mount = c.ctr.GetMounts()[0]
			}
		}
		err := checkFields(s)
		var fe *FieldError
		if !errors.As(err, &fe) || !errors.Is(err, ErrRefused) || fe.Field != message+"."+c.path {
			t.Errorf("%s.%s: %v", message, c.path, err)
		}
		refused[message+"."+c.path] = true
	}
	for _, f := range Fields() {
		if key := f.Message + "." + f.Path; f.refuses != nil && !refused[key] {
			t.Errorf("%s refuses something, and no case here shows it", key)
		}
	}
}

// A refusal quotes what it found, as far as that is one value.
func TestFieldsQuote(t *testing.T) {
	for want, s := range map[string]subject{
		`ContainerConfig.linux.resources.cpuset_cpus ("0-3") is refused: `:   {ctr: &runtime.ContainerConfig{Linux: &runtime.LinuxContainerConfig{Resources: &runtime.LinuxContainerResources{CpusetCpus: "0-3"}}}},
		`ContainerConfig.mounts[].mount_options (noexec, suid) is refused: `: {ctr: &runtime.ContainerConfig{}, mount: &runtime.Mount{MountOptions: []string{"noexec", "suid"}}},
		`PodSandboxConfig.linux.security_context.namespace_options.pid (NODE) is refused: `: {pod: &runtime.PodSandboxConfig{Linux: &runtime.LinuxPodSandboxConfig{
			SecurityContext: &runtime.LinuxSandboxSecurityContext{NamespaceOptions: &runtime.NamespaceOption{Pid: runtime.NamespaceMode_NODE}}}}},
		`PodSandboxConfig.linux.security_context.privileged is refused: `: {pod: &runtime.PodSandboxConfig{Linux: &runtime.LinuxPodSandboxConfig{
			SecurityContext: &runtime.LinuxSandboxSecurityContext{Privileged: true}}}},
		`ContainerConfig.linux.resources.cpuset_mems ("` + strings.Repeat("1", maxFound-1) + `...) is refused: `: {ctr: &runtime.ContainerConfig{
			Linux: &runtime.LinuxContainerConfig{Resources: &runtime.LinuxContainerResources{CpusetMems: strings.Repeat("1", 5000)}}}},
	} {
		if err := checkFields(s); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s...", err, want)
		}
	}
}

// What a stock kubelet sends passes.
func TestFieldsLetPass(t *testing.T) {
	masked := []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/sys/firmware", "/sys/devices/virtual/powercap"}
	p := podConfig("x")
	p.PortMappings = []*runtime.PortMapping{{ContainerPort: 80}}
	p.Linux.SecurityContext = &runtime.LinuxSandboxSecurityContext{
		NamespaceOptions: &runtime.NamespaceOption{Pid: runtime.NamespaceMode_CONTAINER, UsernsOptions: &runtime.UserNamespace{Mode: runtime.NamespaceMode_NODE}},
		Seccomp:          &runtime.SecurityProfile{}, SupplementalGroups: []int64{1000},
	}
	c := containerConfig("x")
	c.Linux = &runtime.LinuxContainerConfig{
		Resources: &runtime.LinuxContainerResources{CpuShares: 2, OomScoreAdj: 1000, MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 64 << 20, HugepageLimits: []*runtime.HugepageLimit{{PageSize: "2MB"}}},
		SecurityContext: &runtime.LinuxContainerSecurityContext{
			Capabilities: &runtime.Capability{DropCapabilities: []string{"ALL"}}, MaskedPaths: masked, ReadonlyPaths: []string{"/proc/bus", "/proc/sys"},
			NamespaceOptions: p.Linux.SecurityContext.NamespaceOptions, Seccomp: &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Unconfined},
			RunAsUser: &runtime.Int64Value{Value: 1000}, NoNewPrivs: true, ReadonlyRootfs: true,
		},
	}
	m := &runtime.Mount{ContainerPath: "/x", HostPath: "/", Readonly: true, RecursiveReadOnly: true, SelinuxRelabel: true, MountOptions: []string{"noexec", "nosuid"}}
	for _, s := range []subject{{pod: p}, {pod: p, ctr: c}, {pod: p, ctr: c, mount: m}} {
		if err := checkFields(s); err != nil {
			t.Error(err)
		}
	}
}

func TestSandboxChecks(t *testing.T) {
	node := &runtime.LinuxPodSandboxConfig{SecurityContext: &runtime.LinuxSandboxSecurityContext{NamespaceOptions: &runtime.NamespaceOption{Network: runtime.NamespaceMode_NODE}}}
	for _, c := range []struct {
		name    string
		change  func(*runtime.PodSandboxConfig)
		p       Profile
		refused error
		text    string
	}{
		{"plain", func(*runtime.PodSandboxConfig) {}, Profile{}, nil, ""},
		{"no name", func(c *runtime.PodSandboxConfig) { c.Metadata = nil }, Profile{}, ErrInvalid, "metadata.name"},
		{"no hostname", func(c *runtime.PodSandboxConfig) { c.Hostname = "" }, Profile{}, ErrInvalid, "hostname"},
		{"no hostname on the node's network", func(c *runtime.PodSandboxConfig) { c.Hostname, c.Linux = "", node }, Profile{}, nil, ""},
		{"long hostname", func(c *runtime.PodSandboxConfig) { c.Hostname = strings.Repeat("x", 65) }, Profile{}, ErrInvalid, "65"},
		{"group without user", func(c *runtime.PodSandboxConfig) {
			c.Linux = &runtime.LinuxPodSandboxConfig{SecurityContext: &runtime.LinuxSandboxSecurityContext{RunAsGroup: &runtime.Int64Value{}}}
		}, Profile{}, ErrInvalid, "run_as_group"},
		{"unknown setting", func(c *runtime.PodSandboxConfig) { c.Annotations["limpet.dev/listn.web"] = "80" }, Profile{}, ErrRefused, "limpet.dev/on-stop.CONTAINER"},
		{"another's annotation", func(c *runtime.PodSandboxConfig) { c.Annotations["limpet.development/x"] = "80" }, Profile{}, nil, ""},
		{"listen", func(c *runtime.PodSandboxConfig) { c.Annotations["limpet.dev/listen.web"] = "80" }, Profile{}, nil, ""},
		{"listen for nobody", func(c *runtime.PodSandboxConfig) { c.Annotations["limpet.dev/listen"] = "80" }, Profile{}, ErrRefused, "listen.CONTAINER"},
		{"listen badly", func(c *runtime.PodSandboxConfig) { c.Annotations["limpet.dev/listen.web"] = "http" }, Profile{}, ErrRefused, `"http" is no port`},
		{"listen on the node", func(c *runtime.PodSandboxConfig) { c.Linux, c.Annotations["limpet.dev/listen.web"] = node, "80" }, Profile{}, ErrRefused, "allow_host_listen"},
		{"listen on the node, allowed", func(c *runtime.PodSandboxConfig) { c.Linux, c.Annotations["limpet.dev/listen.web"] = node, "80" }, Profile{AllowHostListen: true}, nil, ""},
		{"on-stop", func(c *runtime.PodSandboxConfig) { c.Annotations["limpet.dev/on-stop.web"] = "wait" }, Profile{}, nil, ""},
		{"on-stop badly", func(c *runtime.PodSandboxConfig) { c.Annotations["limpet.dev/on-stop"] = "drain" }, Profile{}, ErrRefused, "wait, close-stdin and kill"},
		{"host port on the node", func(c *runtime.PodSandboxConfig) {
			c.Linux, c.PortMappings = node, []*runtime.PortMapping{{HostPort: 80}}
		}, Profile{}, nil, ""},
	} {
		cfg := podConfig("x")
		c.change(cfg)
		err := checkSandbox(cfg, c.p)
		if !errors.Is(err, c.refused) || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
