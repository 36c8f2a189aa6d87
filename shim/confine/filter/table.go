package filter

import "golang.org/x/sys/unix"

// rule says that a system call is allowed, and why.
type rule struct {
	calls []string
	why   string
}

// runtimeCalls is what the Go runtime, glibc and the engine need in every mode.
var runtimeCalls = []rule{
	{[]string{"mmap", "munmap", "mremap", "mprotect", "madvise", "brk", "mincore"}, "heaps, stacks, linear memories, mapped code"},
	{[]string{"futex", "set_robust_list", "rseq", "sched_yield", "sched_getaffinity", "exit", "exit_group"}, "threads"},
	{[]string{"getpid", "gettid", "tgkill"}, "signals among the own threads; the process is alone in its pid namespace"},
	{[]string{"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall"}, "signal handling of Go and of Wasm traps"},
	{[]string{"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres"}, "time, where the vDSO has no answer"},
	{[]string{"getrandom"}, "seeds; random_get"},
	{[]string{"membarrier"}, "publishing code on arm64"},
	{[]string{"getuid", "geteuid", "getgid", "getegid", "uname", "sysinfo"}, "libraries that look around; nothing of the node but its name and size"},
	{[]string{"read", "write", "readv", "writev", "pread64", "pwrite64", "lseek", "close", "fstat", "fcntl", "ftruncate", "fsync"}, "descriptors"},
	{[]string{"openat", "newfstatat", "statx"}, "files: the mapped code; what libraries look for in /proc and /sys and do not find"},
	{[]string{"epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2", "pipe2", "ppoll"}, "Go's network poller; poll_oneoff"},
}

// guestCalls is what WASI adds, and the host's conversation with its
// supervisor.
var guestCalls = []rule{
	{[]string{"openat2"}, "path_open beneath a preopen"},
	{[]string{"preadv", "pwritev", "preadv2", "pwritev2"}, "fd_pread, fd_pwrite"},
	{[]string{"getdents64", "readlinkat", "mkdirat", "unlinkat", "renameat", "renameat2", "linkat", "symlinkat", "utimensat"}, "folders and links"},
	{[]string{"fallocate", "fadvise64", "fdatasync"}, "file contents and their durability"},
	{[]string{"dup", "dup3"}, "fd_renumber"},
	{[]string{"bind", "listen", "accept4", "getsockname", "getpeername", "getsockopt", "setsockopt"}, "listening sockets of the pod; the control socket"},
	{[]string{"recvmsg", "sendmsg", "recvfrom", "sendto", "shutdown"}, "their connections; the control socket"},
}

// amd64Calls are the older names that libraries use on amd64 alone.
var amd64Calls = []rule{
	{[]string{"poll", "epoll_wait", "dup2"}, "as ppoll, epoll_pwait, dup3"},
}

// check is one condition on an argument: its low 32 bits, masked, must equal a
// value. The kernel's types of all arguments below are of 32 bits or it looks
// at those alone, but for pointers, which are not looked at here.
type check struct {
	arg, mask, value uint32
}

// conditional allows a system call if one of the sets of checks holds.
type conditional struct {
	call string
	any  [][]check
	why  string
}

const all = 0xffffffff

// runtimeConditions hold in every mode.
var runtimeConditions = []conditional{
	{"clone", [][]check{{{0, unix.CLONE_THREAD | unix.CLONE_VM, unix.CLONE_THREAD | unix.CLONE_VM}}},
		"threads, never processes"},
	{"prctl", [][]check{{{0, all, unix.PR_SET_VMA}}, {{0, all, unix.PR_SET_NAME}}},
		"names of memory areas and threads"},
	{"prlimit64", [][]check{{{0, all, 0}}}, "the own limits: Go raises the soft limit of open files to the hard one"},
	{"ioctl", [][]check{{{1, all, unix.TCGETS}}, {{1, all, unix.TIOCINQ}}}, "is it a terminal; how much can be read"},
}

// guestConditions are what WASI adds.
var guestConditions = []conditional{
	{"socket", [][]check{
		{{0, all, unix.AF_INET}, {1, sockTypeMask, unix.SOCK_STREAM}},
		{{0, all, unix.AF_INET6}, {1, sockTypeMask, unix.SOCK_STREAM}},
	}, "listening TCP sockets; nothing else: no netlink, no packets, no vsock"},
	{"seccomp", [][]check{{{0, all, unix.SECCOMP_SET_MODE_FILTER}}}, "Seal"},
}

// sockTypeMask is the kernel's SOCK_TYPE_MASK: the rest are flags.
const sockTypeMask = 0xf

// refusal answers a system call with an error instead of ending the process:
// libraries try it and do something else then.
type refusal struct {
	calls []string
	errno unix.Errno
	why   string
}

var refusals = []refusal{
	{[]string{"clone3"}, unix.ENOSYS, "its flags lie in memory, where no filter sees them; glibc falls back to clone"},
	{[]string{"copy_file_range", "splice", "sendfile"}, unix.ENOSYS, "short cuts of Go's io.Copy, which then reads and writes"},
	{[]string{"epoll_pwait2"}, unix.ENOSYS, "a newer epoll_pwait"},
}
