package pod

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Treatment is what becomes of a field of a request. There is no fourth:
// nothing is ignored.
type Treatment string

// The treatments.
const (
	// Honoured: it has the effect that CRI describes.
	Honoured Treatment = "honoured"
	// ByConstruction: what it asks for holds for every guest anyway.
	ByConstruction Treatment = "satisfied by construction"
	// Refused: a request that sets it (to the values the sentence names, if
	// it names some) fails with a FieldError.
	Refused Treatment = "refused"
)

// Field is one field of a request, or a whole message of them.
type Field struct {
	// Message is the CRI message, PodSandboxConfig or ContainerConfig; Path
	// the field in it, [] standing for each item of a list.
	Message, Path string
	Treatment     Treatment
	// Sentence says how, why, or why not.
	Sentence string
	// refuses reports whether the subject sets what is refused. A field that
	// is honoured may refuse some values too.
	refuses func(subject) bool
}

// Partial reports whether the field refuses some values although it is not
// refused as such.
func (f Field) Partial() bool { return f.refuses != nil && f.Treatment != Refused }

// subject is what the table is asked about: a sandbox, or a container (in a
// sandbox), or one mount of a container.
type subject struct {
	pod   *runtime.PodSandboxConfig
	ctr   *runtime.ContainerConfig
	mount *runtime.Mount
}

func (s subject) podSec() *runtime.LinuxSandboxSecurityContext {
	return s.pod.GetLinux().GetSecurityContext()
}

func (s subject) sec() *runtime.LinuxContainerSecurityContext {
	return s.ctr.GetLinux().GetSecurityContext()
}

func (s subject) res() *runtime.LinuxContainerResources { return s.ctr.GetLinux().GetResources() }

// Names of the two messages that the table is about.
const (
	sandboxMessage   = "PodSandboxConfig"
	containerMessage = "ContainerConfig"
)

// Fields is the table of all fields of a sandbox's and a container's
// configuration: what the check uses, and what the documentation shows.
func Fields() []Field { return slices.Concat(sandboxFields(), containerFields(), mountFields()) }

// checkFields refuses a subject that sets what is refused. The tables are
// built per call; it is a few microseconds of a request of milliseconds.
func checkFields(s subject) error {
	table, message := sandboxFields(), sandboxMessage
	switch {
	case s.mount != nil:
		table, message = mountFields(), containerMessage
	case s.ctr != nil:
		table, message = containerFields(), containerMessage
	}
	for _, f := range table {
		if f.refuses != nil && f.refuses(s) {
			return &FieldError{Field: message + "." + f.Path, Found: s.found(f.Path), Sentence: f.Sentence}
		}
	}
	return nil
}

func sandboxFields() []Field {
	f := func(path string, t Treatment, sentence string, refuses func(subject) bool) Field {
		return Field{Message: sandboxMessage, Path: path, Treatment: t, Sentence: sentence, refuses: refuses}
	}
	const noProcess = "no process runs for a sandbox itself"
	return []Field{
		f("metadata", Honoured, "name, namespace, uid and attempt together name the sandbox", nil),
		f("hostname", Honoured, "in /etc/hostname and in HOSTNAME; with the node's network it may be empty, which means the node's", nil),
		f("log_directory", Honoured, "the folder of the containers' logs", nil),
		f("dns_config", Honoured, "becomes /etc/resolv.conf; without one the node's is copied", nil),
		f("port_mappings", Honoured, "with the node's network the port is the node's; otherwise only entries without a host port are accepted, since a pod with its own network cannot be reached from outside yet: remove hostPort", func(s subject) bool {
			return !hostNetwork(s.pod) && slices.ContainsFunc(s.pod.GetPortMappings(), func(p *runtime.PortMapping) bool { return p.GetHostPort() != 0 })
		}),
		f("labels", Honoured, "returned as given", nil),
		f("annotations", Honoured, "returned as given; those under "+annotationDomain+" are settings, and unknown ones of them are refused", nil),
		f("linux.cgroup_parent", Honoured, "the containers' cgroups are made below it; one that ends in .slice comes from the systemd driver, and limpetd has the cgroupfs driver: set cgroupDriver: cgroupfs in the kubelet's configuration, or use a kubelet from 1.34 on, which asks limpetd for its driver", func(s subject) bool {
			return strings.HasSuffix(strings.TrimRight(s.pod.GetLinux().GetCgroupParent(), "/"), ".slice")
		}),
		f("linux.security_context.namespace_options.network", Honoured, "POD gives a network namespace with loopback, NODE the node's; another sandbox's (CONTAINER, TARGET) cannot be joined", func(s subject) bool {
			n := s.podSec().GetNamespaceOptions().GetNetwork()
			return n != runtime.NamespaceMode_POD && n != runtime.NamespaceMode_NODE
		}),
		f("linux.security_context.namespace_options.pid", ByConstruction, "a guest sees no process but itself, whoever shares; the node's processes (hostPID: true, NODE) cannot be shown to it", func(s subject) bool {
			return s.podSec().GetNamespaceOptions().GetPid() == runtime.NamespaceMode_NODE
		}),
		f("linux.security_context.namespace_options.ipc", ByConstruction, "a guest has no System V or POSIX IPC to share; the node's (hostIPC: true, NODE) cannot be shown to it", func(s subject) bool {
			return s.podSec().GetNamespaceOptions().GetIpc() == runtime.NamespaceMode_NODE
		}),
		f("linux.security_context.namespace_options.target_id", Refused, "a guest cannot see the processes of another container", func(s subject) bool {
			return s.podSec().GetNamespaceOptions().GetTargetId() != ""
		}),
		f("linux.security_context.namespace_options.userns_options", Refused, "user namespaces (hostUsers: false) are not offered; a guest holds no capabilities and is not root by default", func(s subject) bool {
			u := s.podSec().GetNamespaceOptions().GetUsernsOptions()
			return u != nil && u.GetMode() != runtime.NamespaceMode_NODE
		}),
		f("linux.security_context.selinux_options", Refused, "SELinux labels are not set: leave seLinuxOptions out", func(s subject) bool {
			return selinuxSet(s.podSec().GetSelinuxOptions())
		}),
		f("linux.security_context.run_as_user", ByConstruction, noProcess, nil),
		f("linux.security_context.run_as_group", ByConstruction, noProcess, nil),
		f("linux.security_context.readonly_rootfs", ByConstruction, noProcess, nil),
		f("linux.security_context.supplemental_groups", ByConstruction, noProcess+"; containers bring their own list", nil),
		f("linux.security_context.supplemental_groups_policy", ByConstruction, noProcess, nil),
		f("linux.security_context.privileged", Refused, "a guest cannot be privileged: it reaches the node through WASI alone", func(s subject) bool { return s.podSec().GetPrivileged() }),
		f("linux.security_context.seccomp", ByConstruction, noProcess+", and every host has a filter stricter than the runtime's default; a profile of the node (Localhost) is refused", func(s subject) bool {
			return s.podSec().GetSeccomp().GetProfileType() == runtime.SecurityProfile_Localhost
		}),
		f("linux.security_context.apparmor", ByConstruction, noProcess+"; a profile of the node (Localhost) is refused", func(s subject) bool {
			return s.podSec().GetApparmor().GetProfileType() == runtime.SecurityProfile_Localhost
		}),
		f("linux.security_context.seccomp_profile_path", ByConstruction, "the older form of seccomp: runtime/default and unconfined are satisfied, localhost/… is refused", func(s subject) bool {
			//lint:ignore SA1019 a client may still send it
			return strings.HasPrefix(s.podSec().GetSeccompProfilePath(), "localhost/")
		}),
		f("linux.sysctls", Refused, "kernel parameters of the pod are not set: leave securityContext.sysctls out", func(s subject) bool { return len(s.pod.GetLinux().GetSysctls()) > 0 }),
		f("linux.overhead", Honoured, "the kubelet's limits on the pod's own cgroup, below which the containers' are made", nil),
		f("linux.resources", Honoured, "the kubelet's limits on the pod's own cgroup, below which the containers' are made", nil),
		f("windows", Refused, "this is a Linux node", func(s subject) bool { return s.pod.GetWindows() != nil }),
	}
}

func containerFields() []Field {
	f := func(path string, t Treatment, sentence string, refuses func(subject) bool) Field {
		return Field{Message: containerMessage, Path: path, Treatment: t, Sentence: sentence, refuses: refuses}
	}
	return slices.Concat([]Field{
		f("metadata", Honoured, "name and attempt name the container in its sandbox", nil),
		f("image", Honoured, "by id, digest or name; it has to be on the node", nil),
		f("command", Honoured, "replaces the image's entry point, and its arguments too", nil),
		f("args", Honoured, "replaces the image's arguments", nil),
		f("working_dir", Honoured, "the guest's folder for relative paths", nil),
		f("envs", Honoured, "over the image's; a name with = in it, or a zero byte, is refused", nil),
		f("devices", Refused, "a guest cannot use devices", func(s subject) bool { return len(s.ctr.GetDevices()) > 0 }),
		f("CDI_devices", Refused, "a guest cannot use devices", func(s subject) bool { return len(s.ctr.GetCDIDevices()) > 0 }),
		f("labels", Honoured, "returned as given", nil),
		f("annotations", Honoured, "returned as given; settings under "+annotationDomain+" belong on the pod and are refused here", func(s subject) bool {
			for k := range s.ctr.GetAnnotations() {
				if strings.HasPrefix(k, annotationDomain) {
					return true
				}
			}
			return false
		}),
		f("log_path", Honoured, "below the sandbox's log_directory; a regular file, no link is followed", nil),
		f("stdin", Honoured, "it is there, and at its end until somebody attaches", nil),
		f("stdin_once", Honoured, "it is at its end after the first who attached", nil),
		f("tty", Refused, "guests have no terminal: leave tty out", func(s subject) bool { return s.ctr.GetTty() }),
		f("windows", Refused, "this is a Linux node", func(s subject) bool { return s.ctr.GetWindows() != nil }),
		f("stop_signal", Honoured, "over the image's; what it does to a guest is in the documentation of stopping", nil),
	}, resourceFields(f), securityFields(f))
}

type fieldMaker = func(path string, t Treatment, sentence string, refuses func(subject) bool) Field

func resourceFields(f fieldMaker) []Field {
	return []Field{
		f("linux.resources.cpu_period", Honoured, fmt.Sprintf("of the container's cgroup, from %d to %d microseconds; 0 leaves the kernel's", minPeriod, maxPeriod), func(s subject) bool {
			p := s.res().GetCpuPeriod()
			return p != 0 && (p < minPeriod || p > maxPeriod)
		}),
		f("linux.resources.cpu_quota", Honoured, fmt.Sprintf("of the container's cgroup, at least %d microseconds; 0 and -1 are none; lifted while the container is being stopped", minQuota), func(s subject) bool {
			q := s.res().GetCpuQuota()
			return q < -1 || q > 0 && q < minQuota
		}),
		f("linux.resources.cpu_shares", Honoured, "of the container's cgroup; 0 leaves the kernel's, a negative number is refused", func(s subject) bool { return s.res().GetCpuShares() < 0 }),
		f("linux.resources.memory_limit_in_bytes", Honoured, fmt.Sprintf("of the container's cgroup, and less %d bytes and one part in %d of the guest's memory; below %d bytes it is refused, because the host itself needs them", memoryMargin, pageTables, MinMemory), func(s subject) bool {
			l := s.res().GetMemoryLimitInBytes()
			return l < 0 || l > 0 && l < int64(MinMemory)
		}),
		f("linux.resources.memory_swap_limit_in_bytes", Honoured, "of the container's cgroup", nil),
		f("linux.resources.oom_score_adj", Honoured, fmt.Sprintf("of the host, from -%d to %d; where the kernel refuses to go so low, the daemon's own value stays", maxScore, maxScore), func(s subject) bool {
			return max(s.res().GetOomScoreAdj(), -s.res().GetOomScoreAdj()) > maxScore || s.res().GetOomScoreAdj() == math.MinInt64
		}),
		f("linux.resources.cpuset_cpus", Refused, "containers are not bound to processors: use the kubelet's CPU manager policy none", func(s subject) bool { return s.res().GetCpusetCpus() != "" }),
		f("linux.resources.cpuset_mems", Refused, "containers are not bound to memory nodes: use the kubelet's memory manager policy None", func(s subject) bool { return s.res().GetCpusetMems() != "" }),
		f("linux.resources.hugepage_limits", ByConstruction, "a host maps no huge pages from hugetlbfs", nil),
		f("linux.resources.unified", Honoured, "of the container's cgroup, where the node has version 2", nil),
	}
}

func securityFields(f fieldMaker) []Field {
	const sec = "linux.security_context."
	const ns = sec + "namespace_options."
	return []Field{
		f(sec+"capabilities", ByConstruction, "a guest holds no capabilities, so dropping is done; adding one is refused: leave capabilities.add out", func(s subject) bool {
			c := s.sec().GetCapabilities()
			return len(c.GetAddCapabilities())+len(c.GetAddAmbientCapabilities()) > 0
		}),
		f(sec+"privileged", Refused, "a guest cannot be privileged: it reaches the node through WASI alone", func(s subject) bool { return s.sec().GetPrivileged() }),
		f(ns+"network", Honoured, "the sandbox's; a container cannot have another network than its pod", func(s subject) bool {
			want := s.sec().GetNamespaceOptions()
			return want != nil && s.pod != nil && (want.GetNetwork() == runtime.NamespaceMode_NODE) != hostNetwork(s.pod)
		}),
		f(ns+"pid", ByConstruction, "a guest sees no process but itself; the node's (NODE) or another container's (TARGET) cannot be shown to it", func(s subject) bool {
			p := s.sec().GetNamespaceOptions().GetPid()
			return p == runtime.NamespaceMode_NODE || p == runtime.NamespaceMode_TARGET
		}),
		f(ns+"ipc", ByConstruction, "a guest has no System V or POSIX IPC to share; the node's (NODE) cannot be shown to it", func(s subject) bool {
			return s.sec().GetNamespaceOptions().GetIpc() == runtime.NamespaceMode_NODE
		}),
		f(ns+"target_id", Refused, "a guest cannot see the processes of another container", func(s subject) bool { return s.sec().GetNamespaceOptions().GetTargetId() != "" }),
		f(ns+"userns_options", Refused, "user namespaces (hostUsers: false) are not offered; a guest holds no capabilities and is not root by default", func(s subject) bool {
			u := s.sec().GetNamespaceOptions().GetUsernsOptions()
			return u != nil && u.GetMode() != runtime.NamespaceMode_NODE
		}),
		f(sec+"selinux_options", Refused, "SELinux labels are not set: leave seLinuxOptions out", func(s subject) bool { return selinuxSet(s.sec().GetSelinuxOptions()) }),
		f(sec+"run_as_user", Honoured, "the host's uid; 0 only where the handler's profile permits, and then without capabilities", nil),
		f(sec+"run_as_group", Honoured, "the host's gid; 0 only where the handler's profile permits", nil),
		f(sec+"run_as_username", Honoured, "if it is the image's own user, which has been resolved; other names are refused", nil),
		f(sec+"readonly_rootfs", Honoured, "by the kernel and by Landlock", nil),
		f(sec+"supplemental_groups", Honoured, "the host's further groups; fsGroup is among them", nil),
		f(sec+"supplemental_groups_policy", ByConstruction, "groups are never taken from an image, so that Merge and Strict are the same", nil),
		f(sec+"no_new_privs", ByConstruction, "set for every host", nil),
		f(sec+"masked_paths", ByConstruction, "a guest has no /proc and no /sys; a path elsewhere is refused", func(s subject) bool { return !kernelPaths(s.sec().GetMaskedPaths()) }),
		f(sec+"readonly_paths", ByConstruction, "a guest has no /proc and no /sys; a path elsewhere is refused", func(s subject) bool { return !kernelPaths(s.sec().GetReadonlyPaths()) }),
		f(sec+"seccomp", ByConstruction, "every host has a filter stricter than the runtime's default, also when Unconfined is asked for; a profile of the node (Localhost) is refused", func(s subject) bool {
			return s.sec().GetSeccomp().GetProfileType() == runtime.SecurityProfile_Localhost
		}),
		f(sec+"apparmor", ByConstruction, "every host is confined by Landlock and seccomp; a profile of the node (Localhost) is refused", func(s subject) bool {
			return s.sec().GetApparmor().GetProfileType() == runtime.SecurityProfile_Localhost
		}),
		f(sec+"apparmor_profile", ByConstruction, "the older form of apparmor: runtime/default and unconfined are satisfied, localhost/… is refused", func(s subject) bool {
			//lint:ignore SA1019 a client may still send it
			return strings.HasPrefix(s.sec().GetApparmorProfile(), "localhost/")
		}),
		f(sec+"seccomp_profile_path", ByConstruction, "the older form of seccomp: runtime/default and unconfined are satisfied, localhost/… is refused", func(s subject) bool {
			//lint:ignore SA1019 a client may still send it
			return strings.HasPrefix(s.sec().GetSeccompProfilePath(), "localhost/")
		}),
	}
}

func mountFields() []Field {
	f := func(path string, t Treatment, sentence string, refuses func(subject) bool) Field {
		return Field{Message: containerMessage, Path: "mounts[]." + path, Treatment: t, Sentence: sentence, refuses: refuses}
	}
	return []Field{
		f("container_path", Honoured, "an absolute path; folders and single files, one inside another", nil),
		f("host_path", Honoured, "has to exist; a link is followed", nil),
		f("readonly", Honoured, "by the kernel and by limpet-host; what is mounted below it on the node is read-only too", nil),
		f("recursive_read_only", Honoured, "every read-only mount is recursively so", func(s subject) bool { return s.mount.GetRecursiveReadOnly() && !s.mount.GetReadonly() }),
		f("propagation", Honoured, "mounts are private; HostToContainer and Bidirectional are refused: use mountPropagation None", func(s subject) bool {
			return s.mount.GetPropagation() != runtime.MountPropagation_PROPAGATION_PRIVATE
		}),
		f("selinux_relabel", ByConstruction, "a host needs no label to read what its uid may read", nil),
		f("uidMappings", Refused, "user namespaces (hostUsers: false) are not offered", func(s subject) bool { return len(s.mount.GetUidMappings()) > 0 }),
		f("gidMappings", Refused, "user namespaces (hostUsers: false) are not offered", func(s subject) bool { return len(s.mount.GetGidMappings()) > 0 }),
		f("image", Refused, "image volumes are not offered", func(s subject) bool { return s.mount.GetImage().GetImage() != "" }),
		f("image_sub_path", Refused, "image volumes are not offered", func(s subject) bool { return s.mount.GetImageSubPath() != "" }),
		f("mount_options", ByConstruction, "every mount is noexec, nodev and nosuid; other options are refused", func(s subject) bool {
			return slices.ContainsFunc(s.mount.GetMountOptions(), func(o string) bool { return o != "noexec" && o != "nodev" && o != "nosuid" })
		}),
	}
}

func selinuxSet(o *runtime.SELinuxOption) bool {
	return o.GetUser() != "" || o.GetRole() != "" || o.GetType() != "" || o.GetLevel() != ""
}

// kernelPaths reports whether all paths lie in file systems that guests do not
// have.
func kernelPaths(l []string) bool {
	return !slices.ContainsFunc(l, func(p string) bool {
		p = path.Clean(p)
		return p != "/proc" && p != "/sys" && !strings.HasPrefix(p, "/proc/") && !strings.HasPrefix(p, "/sys/")
	})
}
