package confine_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/confine"
	"github.com/limpet-cri/limpet/shim/confine/filter"
)

// All of it together, on all threads, after the seal too.
func TestConfined(t *testing.T) {
	p := run(t, setup{payload: "confined\npid\nmapexec\nmap /code\nseal\nread /code\n"})
	if wrong := answers(map[string]string{"confined": "true", "pid": "1", "mapexec": "ok", "map /code": "ok", "seal": "ok"})(t, p); wrong != "" {
		t.Error(wrong)
	}
	if wrong := inStatus(map[string]string{
		"Uid": "65534 65534 65534 65534", "Gid": "65533 65533 65533 65533", "Groups": "1234 5678",
		"CapEff": none, "CapPrm": none, "CapInh": none, "CapBnd": none, "CapAmb": none,
		"NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": "2",
	})(t, p); wrong != "" {
		t.Error(wrong)
	}
	if strings.Contains(proc(t, p, "maps"), "limpet-order") {
		t.Error("its order is still mapped")
	}
	for _, ns := range []string{"pid", "ipc", "uts", "net", "mnt"} {
		if namespace(t, p.pid(), ns) == namespace(t, "self", ns) {
			t.Errorf("it is in the node's %s namespace", ns)
		}
	}
}

func TestSeal(t *testing.T) {
	p := run(t, setup{payload: "seal\nmapexec\nmap /code\nseal\n"})
	if p.failed("1\n2\n3\n") { // the last answer replaces the first
		t.Fatal(p.end())
	}
	if wrong := answers(map[string]string{"mapexec": "EPERM", "map /code": "EPERM", "seal": "EPERM"})(t, p); wrong != "" {
		t.Error(wrong)
	}
}

// What no host needs ends it at once.
func TestForbiddenCalls(t *testing.T) {
	needRoot(t)
	for name, nr := range map[string]int{
		"execve": unix.SYS_EXECVE, "ptrace": unix.SYS_PTRACE, "mount": unix.SYS_MOUNT, "setns": unix.SYS_SETNS,
		"unshare": unix.SYS_UNSHARE, "bpf": unix.SYS_BPF, "io_uring_setup": unix.SYS_IO_URING_SETUP,
		"userfaultfd": unix.SYS_USERFAULTFD, "keyctl": unix.SYS_KEYCTL, "memfd_create": unix.SYS_MEMFD_CREATE,
		"process_vm_readv": unix.SYS_PROCESS_VM_READV, "setuid": unix.SYS_SETUID, "chroot": unix.SYS_CHROOT,
		"open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT, "socket(0)": unix.SYS_SOCKET, "clone(0)": unix.SYS_CLONE,
	} {
		p := run(t, setup{payload: fmt.Sprintf("syscall %d\n", nr)})
		state, said := p.end()
		if s, ok := state.Sys().(syscall.WaitStatus); !ok || !s.Signaled() || s.Signal() != unix.SIGSYS {
			t.Errorf("%s: %v, answers %v, %s", name, state, p.answers, said)
		}
	}
	p := run(t, setup{payload: fmt.Sprintf("syscall %d\n", unix.SYS_CLONE3)})
	if wrong := answers(map[string]string{fmt.Sprintf("syscall %d", unix.SYS_CLONE3): "ENOSYS"})(t, p); wrong != "" {
		t.Error(wrong)
	}
}

func TestCompileMode(t *testing.T) {
	for _, mode := range []confine.Mode{confine.Compile, confine.Key} {
		p := run(t, setup{
			compile: true, payload: "confined\nlist /\nread /etc/passwd\ncreate /x\nlist /proc\nmapexec\n",
			order: func(o *confine.Order) {
				o.Mode = mode
				o.Rlimits = []confine.Rlimit{{Resource: unix.RLIMIT_AS, Soft: 2 << 30, Hard: 2 << 30}}
			},
		})
		listing := ""
		if confine.LandlockABI() >= confine.MinLandlock {
			listing = "EACCES"
		}
		if wrong := answers(map[string]string{
			"confined": "true", "list /": listing, "read /etc/passwd": "ENOENT", "list /proc": "ENOENT",
			"create /x": "EROFS", "mapexec": "ok",
		})(t, p); wrong != "" {
			t.Error(wrong)
		}
		if wrong := inStatus(map[string]string{"Uid": "65534 65534 65534 65534", "CapEff": none, "CapBnd": none, "NoNewPrivs": "1", "Seccomp": "2"})(t, p); wrong != "" {
			t.Error(wrong)
		}
		if l := proc(t, p, "limits"); !strings.Contains(l, "Max address space         2147483648") {
			t.Error(l)
		}
		if namespace(t, p.pid(), "net") == namespace(t, "self", "net") {
			t.Error("it is in the node's network")
		}
		if n := strings.Count(proc(t, p, "mountinfo"), "\n"); n != 1 {
			t.Errorf("it sees %d mounts", n)
		}
		p.end()
	}
	p := run(t, setup{compile: true, payload: fmt.Sprintf("syscall %d\n", unix.SYS_SOCKET)})
	if state, _ := p.end(); state.ExitCode() != -1 {
		t.Errorf("a socket: %v", state)
	}
}

// An order that the kernel does not let the daemon have in full: without
// CAP_SYS_RESOURCE nobody goes below what it had. That is no reason to fail.
func TestOOMScoreIsClamped(t *testing.T) {
	needRoot(t)
	own := strings.TrimSpace(string(must(os.ReadFile("/proc/self/oom_score_adj"))(t)))
	score := -1000
	for name, thread := range map[string]func(*pod) error{"as it is": nil, "without CAP_SYS_RESOURCE": withoutResource} {
		p := run(t, setup{thread: thread, order: func(o *confine.Order) { o.OOMScoreAdj = &score }})
		if wrong := answers(map[string]string{"confined": "true"})(t, p); wrong != "" {
			_, said := p.end()
			t.Fatal(name, ": ", wrong, "; ", said)
		}
		got := strings.TrimSpace(proc(t, p, "oom_score_adj"))
		if got != own && (thread != nil || got != "-1000") {
			t.Errorf("%s: oom_score_adj %s, want -1000 or the parent's %s", name, got, own)
		}
	}
}

// Strangers are closed wherever they stand, behind the last descriptor that an
// order can name too.
func TestHighStrangers(t *testing.T) {
	needRoot(t)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil || was.Cur <= confine.MaxFD+1 {
		t.Skip("needs more open files than ", was.Cur)
	}
	null := must(os.Open(os.DevNull))(t)
	defer null.Close()
	// Inherited by whatever is started meanwhile: no test here runs beside.
	for _, fd := range []int{confine.MaxFD - 1, confine.MaxFD, confine.MaxFD + 1} {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	if wrong := noStrangers(t, run(t, setup{})); wrong != "" {
		t.Error(wrong)
	}
	p := run(t, setup{order: func(o *confine.Order) { o.Keep = []int{confine.MaxFD - 1} }})
	want := fmt.Sprintf("descriptor %d is %s", confine.MaxFD-1, os.DevNull)
	if wrong := noStrangers(t, p); wrong != want {
		t.Errorf("%s, want %s alone", wrong, want)
	}
}

// A held lock is a second host of the same container.
func TestLockIsHeld(t *testing.T) {
	p := run(t, setup{payload: "pid\n", lockedBy: "another"})
	if state, said := p.end(); state.ExitCode() != 71 || said != "confine: lock: flock: Resource temporarily unavailable\n" {
		t.Errorf("exit %d, %q", state.ExitCode(), said)
	}
}

// Whatever stands on descriptor 3, nothing runs unconfined.
func TestForeignOrders(t *testing.T) {
	needRoot(t)
	unsealed := must(os.CreateTemp(t.TempDir(), ""))(t)
	valid := order(t).Encode(nil)
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"no memory file": {nil, "descriptor 3: is no sealed memory file"},
		"empty":          {[]byte{}, "memory file: has a wrong size"},
		"text":           {[]byte(strings.Repeat("text", 16)), "memory file: holds no order"},
		"version":        {patch(valid, 8, 2), "version: the order was written by another release"},
		"length":         {patch(valid, 12, 31), "header: lengths do not fit"},
		"long length":    {patch(valid, 12, 1<<20), "header: lengths do not fit"},
		"payload":        {patch(valid, 28, 1), "header: lengths do not fit"},
		"mode":           {patch(valid, 32, 9), "mode: unknown"},
		"flags":          {patch(valid, 36, 0x80), "flags: unknown"},
		"empty ns":       {patch(valid, 40, 0), "empty mount namespace: missing"},
		"fd":             {patch(valid, 44, 4096), "descriptor: out of range"},
		"uid":            {patch(valid, 64, 0), "user or group: 0 is not allowed"},
		"uid -1":         {patch(valid, 64, 0xffffffff), "user or group: out of range"},
		"tasks":          {patch(valid, 76, 17), "descriptors: too many"},
		"truncated":      {truncated(valid), ""},
	} {
		f := unsealed
		if c.content != nil {
			f = memfd(t, c.content)
		}
		cmd := exec.Command(buildProbe(t))
		cmd.Env, cmd.ExtraFiles = []string{"LIMPET_HOST=1"}, []*os.File{f}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 71 || !strings.HasPrefix(string(out), "confine: order: "+c.want) {
			t.Errorf("%s: %v, %q, want %q", name, err, out, c.want)
		}
	}
}

// Damaged orders end in a line, never in a crash, and never in a host. None of
// their descriptors exist, so that nothing comes of one that is still whole.
func TestDamagedOrders(t *testing.T) {
	needRoot(t)
	o := order(t)
	o.Mounts = []confine.Mount{{FD: 11, Path: "/a/b"}, {FD: 12, Path: "/c", File: true}}
	o.Groups, o.Ports = []uint32{1, 2}, []uint16{80}
	valid := o.Encode([]byte("payload"))
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		b := slices.Clone(valid)
		for range 1 + r.IntN(4) {
			b[8+r.IntN(180)] = byte(r.IntN(256)) // behind the magic, before the filter
		}
		cmd := exec.Command(buildProbe(t))
		cmd.Env, cmd.ExtraFiles = []string{"LIMPET_HOST=1"}, []*os.File{memfd(t, b)}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 71 || bytes.Count(out, []byte("\n")) != 1 {
			t.Fatalf("%v, %q\n%x", err, out, b[:188])
		}
	}
}

// Without the environment the constructor does nothing.
func TestOrdinaryProcess(t *testing.T) {
	needRoot(t)
	cmd := exec.Command(buildProbe(t))
	cmd.Env, cmd.ExtraFiles = []string{}, []*os.File{must(order(t).File([]byte("confined\n")))(t)}
	out, _ := cmd.CombinedOutput() // it has nowhere to answer to: 4
	if cmd.ProcessState.ExitCode() != 4 {
		t.Errorf("exit %d, %s", cmd.ProcessState.ExitCode(), out)
	}
}

// The product has no way to leave out a step.
func TestProductSkipsNothing(t *testing.T) {
	needRoot(t)
	needGo(t)
	path := filepath.Join(t.TempDir(), "product")
	if err := goBuild(path, ""); err != nil {
		t.Fatal(err)
	}
	p := run(t, setup{binary: path, skip: "uid"})
	if wrong := inStatus(map[string]string{"Uid": "65534 65534 65534 65534"})(t, p); wrong != "" {
		t.Error(wrong)
	}
	if b := must(os.ReadFile(path))(t); strings.Contains(string(b), "LIMPET_CONFINE_SKIP") {
		t.Error("the product knows LIMPET_CONFINE_SKIP")
	}
}

// order is a valid one whose descriptors do not exist.
func order(t *testing.T) *confine.Order {
	return &confine.Order{
		Mode: confine.Run, EmptyNS: 8, NetNS: 9, Code: 10, UID: 65534, GID: 65534,
		Filter: must(filter.Run())(t), SealFilter: must(filter.Seal())(t),
	}
}

// patch returns a copy with another 32-bit number at off.
func patch(b []byte, off int, v uint32) []byte {
	b = slices.Clone(b)
	binary.LittleEndian.PutUint32(b[off:], v)
	return b
}

// truncated returns an order that ends within its records, with a header that
// says so.
func truncated(b []byte) []byte {
	b = slices.Clone(b[:70])
	for off, v := range map[int]uint32{12: 70, 16: 70, 20: 0, 24: 70, 28: 0} {
		binary.LittleEndian.PutUint32(b[off:], v)
	}
	return b
}

func memfd(t *testing.T, content []byte) *os.File {
	t.Helper()
	fd := must(unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING))(t)
	f := os.NewFile(uintptr(fd), "order")
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	must(unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE))(t)
	return f
}
