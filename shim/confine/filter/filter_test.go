package filter

import (
	"encoding/binary"
	"testing"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// evaluate runs a program on one system call. The virtual machine reads big
// words where the kernel reads the machine's: so they are put in that way.
func evaluate(t *testing.T, prog []bpf.Instruction, arch, nr uint32, args ...uint64) seccomp.Action {
	t.Helper()
	vm, err := bpf.NewVM(prog)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[offNumber:], nr)
	binary.BigEndian.PutUint32(data[offArch:], arch)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[offArgs+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[offArgs+8*i+4:], uint32(a>>32))
	}
	r, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return seccomp.Action(uint32(r))
}

const (
	allow  = seccomp.ActionAllow
	kill   = seccomp.ActionKillProcess
	enosys = seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)
	eperm  = seccomp.ActionErrno | seccomp.Action(unix.EPERM)
)

func runPlan() plan {
	return plan{[][]rule{runtimeCalls, guestCalls}, [][]conditional{runtimeConditions, guestConditions}}
}

func compilePlan() plan {
	return plan{[][]rule{runtimeCalls}, [][]conditional{runtimeConditions}}
}

type call struct {
	name string
	args []uint64
	want seccomp.Action
}

var runCases = []call{
	{"read", nil, allow}, {"openat2", nil, allow}, {"newfstatat", nil, allow}, {"sendmsg", nil, allow},
	{"utimensat", nil, allow}, {"accept4", nil, allow},
	{"clone", []uint64{unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD}, allow},
	{"clone", []uint64{uint64(unix.SIGCHLD)}, kill},
	{"clone", []uint64{unix.CLONE_THREAD}, kill},
	// The number of an allowed call as an argument must not let the next
	// comparison succeed.
	{"clone", []uint64{0}, kill}, {"clone", []uint64{1}, kill}, {"clone", []uint64{63}, kill},
	{"clone3", nil, enosys}, {"copy_file_range", nil, enosys}, {"sendfile", nil, enosys},
	{"socket", []uint64{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK}, allow},
	{"socket", []uint64{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP}, allow},
	{"socket", []uint64{unix.AF_INET, unix.SOCK_DGRAM}, kill},
	{"socket", []uint64{unix.AF_INET, unix.SOCK_RAW}, kill},
	{"socket", []uint64{unix.AF_UNIX, unix.SOCK_STREAM}, kill},
	{"socket", []uint64{unix.AF_NETLINK, unix.SOCK_RAW}, kill},
	{"socket", []uint64{unix.AF_PACKET, unix.SOCK_RAW}, kill},
	{"socket", []uint64{unix.AF_VSOCK, unix.SOCK_STREAM}, kill},
	{"connect", nil, kill},
	{"prctl", []uint64{unix.PR_SET_VMA}, allow}, {"prctl", []uint64{unix.PR_SET_NAME}, allow},
	{"prctl", []uint64{unix.PR_SET_DUMPABLE}, kill}, {"prctl", []uint64{unix.PR_CAPBSET_DROP}, kill},
	{"prlimit64", []uint64{0}, allow}, {"prlimit64", []uint64{1}, kill},
	{"ioctl", []uint64{0, unix.TCGETS}, allow}, {"ioctl", []uint64{0, unix.TIOCSTI}, kill},
	{"seccomp", []uint64{unix.SECCOMP_SET_MODE_FILTER}, allow}, {"seccomp", []uint64{unix.SECCOMP_SET_MODE_STRICT}, kill},
	{"mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, allow},
}

// forbidden are the calls that must end the process whatever their arguments.
var forbidden = []string{
	"execve", "execveat", "ptrace", "mount", "umount2", "move_mount", "open_tree", "fsopen", "fsmount", "mount_setattr",
	"pivot_root", "chroot", "setns", "unshare", "bpf", "io_uring_setup", "io_uring_enter", "userfaultfd", "keyctl",
	"add_key", "request_key", "memfd_create", "memfd_secret", "process_vm_readv", "process_vm_writev", "kexec_load",
	"init_module", "finit_module", "perf_event_open", "open_by_handle_at", "name_to_handle_at", "mknodat", "fchmodat",
	"fchownat", "setuid", "setgid", "setresuid", "setgroups", "capset", "personality", "kill", "tkill", "pidfd_open",
	"pidfd_getfd", "pidfd_send_signal", "rt_sigqueueinfo", "shmget", "shmat", "msgget", "semget", "mq_open", "connect",
	"socketpair", "quotactl", "reboot", "sethostname", "swapon", "syslog", "acct", "settimeofday", "clock_settime",
	"adjtimex", "vmsplice", "tee", "pkey_mprotect", "mbind", "setpriority", "sched_setaffinity", "fanotify_init",
	"inotify_init1", "signalfd4", "landlock_create_ruleset", "landlock_restrict_self", "nfsservctl", "lookup_dcookie",
}

func TestPrograms(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		info, err := archInfo(goarch)
		if err != nil {
			t.Fatal(err)
		}
		id := uint32(info.ID)
		run, err := assemble(goarch, runPlan())
		if err != nil {
			t.Fatal(err)
		}
		compile, err := assemble(goarch, compilePlan())
		if err != nil {
			t.Fatal(err)
		}
		number := func(name string) uint32 {
			if nr, ok := info.SyscallNames[name]; ok {
				return uint32(nr)
			}
			return uint32(info.SyscallNames["fstatat"])
		}
		for _, c := range runCases {
			if got := evaluate(t, run, id, number(c.name), c.args...); got != c.want {
				t.Errorf("%s: %s %x = %#x, want %#x", goarch, c.name, c.args, uint32(got), uint32(c.want))
			}
		}
		for _, name := range forbidden {
			nr, ok := info.SyscallNames[name]
			if !ok {
				continue
			}
			for what, prog := range map[string][]bpf.Instruction{"run": run, "compile": compile} {
				if got := evaluate(t, prog, id, uint32(nr), 0, 1, 2, 3); got != kill {
					t.Errorf("%s %s: %s = %#x, want it to end the process", goarch, what, name, uint32(got))
				}
			}
		}
		for _, name := range []string{"socket", "openat2", "unlinkat", "seccomp", "accept4", "sendmsg", "bind"} {
			if got := evaluate(t, compile, id, number(name), unix.AF_INET, unix.SOCK_STREAM); got != kill {
				t.Errorf("%s compile: %s = %#x", goarch, name, uint32(got))
			}
		}
		other := uint32(seccompOther(goarch))
		if got := evaluate(t, run, other, number("read")); got != kill {
			t.Errorf("%s: a call of another architecture = %#x", goarch, uint32(got))
		}
		if got := evaluate(t, run, id, number("read")|x32Bit); got != kill {
			t.Errorf("%s: a call of the x32 ABI = %#x", goarch, uint32(got))
		}
	}
}

func seccompOther(goarch string) uint32 {
	if goarch == "amd64" {
		return unix.AUDIT_ARCH_I386
	}
	return unix.AUDIT_ARCH_ARM
}

func TestSeal(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		info, err := archInfo(goarch)
		if err != nil {
			t.Fatal(err)
		}
		prog, err := assembleSeal(goarch)
		if err != nil {
			t.Fatal(err)
		}
		rw, x := uint64(unix.PROT_READ|unix.PROT_WRITE), uint64(unix.PROT_EXEC)
		for _, c := range []call{
			{"mmap", []uint64{0, 4096, rw}, allow}, {"mmap", []uint64{0, 4096, rw | x}, eperm},
			{"mmap", []uint64{0, 4096, x | 1<<32}, eperm},
			{"mprotect", []uint64{0, 4096, rw}, allow}, {"mprotect", []uint64{0, 4096, x}, eperm},
			{"pkey_mprotect", []uint64{0, 4096, x}, eperm},
			{"read", []uint64{0, 0, x}, allow}, {"seccomp", []uint64{1}, eperm},
		} {
			if got := evaluate(t, prog, uint32(info.ID), uint32(info.SyscallNames[c.name]), c.args...); got != c.want {
				t.Errorf("%s: %s %x = %#x, want %#x", goarch, c.name, c.args, uint32(got), uint32(c.want))
			}
		}
	}
}

// Every line of the tables says why, and no call stands twice.
func TestTables(t *testing.T) {
	seen := map[string]string{}
	add := func(name, why string) {
		if why == "" {
			t.Errorf("%s: no reason given", name)
		}
		if old, ok := seen[name]; ok {
			t.Errorf("%s stands twice: %q and %q", name, old, why)
		}
		seen[name] = why
	}
	for _, l := range [][]rule{runtimeCalls, guestCalls, amd64Calls} {
		for _, r := range l {
			for _, c := range r.calls {
				add(c, r.why)
			}
		}
	}
	for _, l := range [][]conditional{runtimeConditions, guestConditions} {
		for _, c := range l {
			add(c.call, c.why)
		}
	}
	for _, r := range refusals {
		for _, c := range r.calls {
			add(c, r.why)
		}
	}
}

func TestLengths(t *testing.T) {
	for name, f := range map[string]func() ([]byte, error){"run": Run, "compile": Compile, "seal": Seal} {
		b, err := f()
		if err != nil {
			t.Fatal(err)
		}
		if len(b) == 0 || len(b)%8 != 0 || len(b)/8 > 4096 {
			t.Errorf("%s: %d bytes", name, len(b))
		}
		t.Logf("%s: %d instructions", name, len(b)/8)
	}
}

func BenchmarkRun(b *testing.B) {
	for b.Loop() {
		if _, err := Run(); err != nil {
			b.Fatal(err)
		}
	}
}
