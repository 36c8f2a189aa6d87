package shim_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim"
	"github.com/limpet-cri/limpet/shim/confine"
	"github.com/limpet-cri/limpet/shim/spec"
)

// status reads lines of /proc/PID/status.
func (n *node) status(pid int) map[string]string {
	n.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		n.Fatal(err)
	}
	m := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(line, ":")
		m[k] = strings.Join(strings.Fields(v), " ")
	}
	return m
}

// What the spec asks for is what the kernel shows of the running host. (That
// no step of the confinement can be left out is shown in shim/confine.)
func TestConfinement(t *testing.T) {
	n := newNode(t)
	adj := 321
	h := n.start(n.container(guestSleep, func(c *spec.Container) {
		c.OCI.Process.User = specs.User{UID: 1001, GID: 1002, AdditionalGids: []uint32{7, 9}}
		c.OCI.Process.OOMScoreAdj = &adj
		c.Limpet.RootSize = 3 << 20
		c.OCI.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
	}))
	got := n.status(h.PID())
	for k, want := range map[string]string{
		"Uid": "1001 1001 1001 1001", "Gid": "1002 1002 1002 1002", "Groups": "7 9",
		"CapEff": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": "2",
	} {
		if got[k] != want {
			t.Errorf("%s is %q, want %q", k, got[k], want)
		}
	}
	var root unix.Statfs_t
	if err := unix.Statfs(fmt.Sprintf("/proc/%d/root/guest", h.PID()), &root); err != nil || root.Blocks*uint64(root.Bsize) != 3<<20 {
		t.Errorf("its root has %d blocks of %d bytes, %v, want 3 MiB", root.Blocks, root.Bsize, err)
	}
	if !strings.HasSuffix(got["NSpid"], " 1") {
		t.Errorf("NSpid is %q: it is not the first of its own namespace", got["NSpid"])
	}
	for _, ns := range []string{"pid", "ipc", "uts", "mnt"} {
		if n.namespace(h.PID(), ns) == n.namespace(os.Getpid(), ns) {
			t.Errorf("it shares the node's %s namespace", ns)
		}
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", h.PID())); err != nil || string(b) != "321\n" {
		t.Errorf("oom_score_adj %q, %v", b, err)
	}
	for fd := range 64 { // its order is of no use once the guest may start
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", h.PID(), fd)); err == nil && strings.Contains(to, "limpet-order") {
			t.Errorf("descriptor %d is %s", fd, to)
		}
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", h.PID()))
	if err != nil || !regexp.MustCompile(`(?m)^Max open files +\d+ +200 `).Match(b) {
		t.Errorf("limits %s, %v", b, err)
	}
}

func (n *node) namespace(pid int, kind string) string {
	n.Helper()
	s, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	if err != nil {
		n.Fatal(err)
	}
	return s
}

// Whoever gives a host an order but not the confinement gets no guest: by
// hand, all of it would have the caller's rights.
func TestUnconfinedHostRefuses(t *testing.T) {
	path, err := built()
	if err != nil {
		t.Skip("needs a C compiler: ", err)
	}
	order := &confine.Order{Mode: confine.Compile, EmptyNS: 8, UID: 1, GID: 1, Filter: make([]byte, 8)}
	file, err := order.File((&spec.Payload{}).Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, mode := range []string{"run", "compile", "key"} {
		cmd := exec.Command(path, mode)
		cmd.Env, cmd.ExtraFiles = []string{"LIMPET_HOST=0"}, []*os.File{file}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 64 || !bytes.HasPrefix(out, []byte("limpet-host "+mode+": this process is not confined")) {
			t.Errorf("%s: %v, %q", mode, err, out)
		}
	}
}

// Root in the container is a user without capabilities, confined as any other.
func TestRunAsRoot(t *testing.T) {
	n := newNode(t)
	h := n.start(n.container(guestSleep, func(c *spec.Container) { c.OCI.Process.User = specs.User{} }))
	got := n.status(h.PID())
	const none = "0000000000000000"
	for k, want := range map[string]string{
		"Uid": "0 0 0 0", "Gid": "0 0 0 0", "Groups": "", "CapEff": none, "CapPrm": none, "CapInh": none, "CapBnd": none,
		"CapAmb": none, "NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": "2",
	} {
		if got[k] != want {
			t.Errorf("%s is %q, want %q", k, got[k], want)
		}
	}
	for _, ns := range []string{"pid", "ipc", "uts", "mnt"} {
		if n.namespace(h.PID(), ns) == n.namespace(os.Getpid(), ns) {
			t.Errorf("it shares the node's %s namespace", ns)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", h.PID()))
	want := fmt.Sprintf(`(?m)^Max core file size +0 +0 (.|\n)*^Max open files +%[1]d +%[1]d `, shim.DefaultFiles)
	if err != nil || !regexp.MustCompile(want).Match(limits) {
		t.Errorf("limits %s, %v, want %s", limits, err, want)
	}
}

// netns makes a network namespace and returns a path to it.
func (n *node) netns() string {
	n.Helper()
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result)
	// The main thread cannot be thrown away, and /proc/self is seen through it.
	var thread func()
	thread = func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if unix.Gettid() == os.Getpid() {
			go thread()
			return
		}
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{nil, err}
			return
		}
		f, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		done <- result{f, err}
	}
	go thread()
	r := <-done
	if r.err != nil {
		n.Fatal(r.err)
	}
	n.Cleanup(func() { r.f.Close() })
	return fmt.Sprintf("/proc/self/fd/%d", r.f.Fd())
}

// The sockets that a guest inherits are bound in the pod's network.
func TestListensInThePodsNetwork(t *testing.T) {
	n := newNode(t)
	path := n.netns()
	c := n.container(guestAccept, func(c *spec.Container) {
		c.OCI.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.NetworkNamespace, Path: path}}
		c.Limpet.Listen = []spec.Listen{{Address: ":39126"}, {Address: "[::]:39127"}, {Address: "0.0.0.0:39128"}}
	})
	h := n.start(c)
	var pod []byte
	for _, f := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", h.PID(), f))
		if err != nil {
			t.Fatal(err)
		}
		own, err := os.ReadFile("/proc/thread-self/net/" + f)
		if err != nil {
			t.Fatal(err)
		}
		pod = append(pod, b...)
		for port := 39126; port <= 39128; port++ {
			if bytes.Contains(own, fmt.Appendf(nil, ":%04X ", port)) {
				t.Errorf("port %d is bound in the node's network", port)
			}
		}
	}
	for port := 39126; port <= 39128; port++ {
		if !bytes.Contains(pod, fmt.Appendf(nil, ":%04X ", port)) {
			t.Errorf("port %d is not bound in the pod's network", port)
		}
	}
	if err := h.Stop(context.Background(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if x := n.ended(h); x.Code != 60+28 {
		t.Errorf("ended with %+v", x)
	}
}

// What a host links, every container pays: these packages stay out.
func TestHostIsSmall(t *testing.T) {
	path, err := built()
	if err != nil {
		t.Skip("needs a C compiler: ", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The names of all functions are in a Go binary, stripped or not.
	if !bytes.Contains(b, []byte("limpet/shim/host.Main")) {
		t.Fatal("this is not limpet-host, or it names no functions")
	}
	for _, f := range []string{"encoding/json.", "net.(*", "net/http.", "os/exec.", "log/slog.", "crypto/sha256.", "regexp.", "text/template.", "google.golang.org/"} {
		if bytes.Contains(b, []byte(f)) {
			t.Errorf("it links %s", f)
		}
	}
	const most = 20 << 20
	if len(b) > most {
		t.Errorf("it has %d bytes, at most %d are wanted", len(b), most)
	}
}
