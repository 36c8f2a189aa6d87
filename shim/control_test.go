package shim_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/spec"
)

// call connects to a host's control socket, as whoever knows its path.
func call(socket string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// asUser runs f on a thread that is nobody special to the file system.
func asUser(uid int, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread goes with its user
		if _, _, errno := unix.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0); errno == 0 {
			f()
		}
	}()
	<-done
}

// Whoever may connect may stop the guest and take its log. Only root may, even
// if nothing protects the folder, and under any umask.
func TestOnlyRootConnects(t *testing.T) {
	n := newNode(t)
	if err := os.Chmod(n.cfg.RunDir, 0o777); err != nil {
		t.Fatal(err)
	}
	umask := unix.Umask(0)
	c := n.container(guestSleep)
	h := n.start(c)
	unix.Umask(umask)
	for _, uid := range []int{int(c.OCI.Process.User.UID), 65534, 1} {
		var err error
		ran := false
		asUser(uid, func() { ran = true; _, err = call(c.Socket) })
		if !ran || !errors.Is(err, unix.EACCES) {
			t.Errorf("user %d connects: %v", uid, err)
		}
	}
	if err := h.Stop(context.Background(), unix.SIGTERM); err != nil {
		t.Error(err)
	}
}

// What an earlier host left at the path, or somebody else, is in nobody's way.
func TestStaleSocket(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a socket of a dead host": func(path string) error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Bind(fd, &unix.SockaddrUnix{Name: path})
		},
		"a file": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a link": func(path string) error { return os.Symlink("/etc/passwd", path) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			c := n.container(guestExit3)
			if err := put(c.Socket); err != nil {
				t.Fatal(err)
			}
			if x := n.ended(n.start(c)); x.Code != 3 {
				t.Errorf("ended with %+v", x)
			}
		})
	}
}

// The longest path that a socket can have works, one byte more is refused.
func TestLongestSocket(t *testing.T) {
	n := newNode(t)
	c := n.container(guestExit3)
	const longest = 107
	dir := n.cfg.RunDir + "/"
	for len(dir) < longest-1 {
		dir += "d"
	}
	dir = dir[:longest-3]
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c.Socket = dir + "/ss"
	if len(c.Socket) != longest {
		t.Fatalf("%d bytes", len(c.Socket))
	}
	if x := n.ended(n.start(c)); x.Code != 3 {
		t.Errorf("ended with %+v", x)
	}
	c = n.container(guestExit3)
	c.Socket = dir + "/sss"
	if _, err := n.sup.Create(context.Background(), c, nil); err == nil {
		t.Error("a longer one is taken")
	}
}

// nonsense are messages that no supervisor sends.
var nonsense = map[string][]byte{
	"an unknown request":     {200},
	"a hello":                (&spec.Message{Op: spec.OpHello, Version: 9, Phase: 9}).Encode(),
	"half a stop":            {byte(spec.OpStop)},
	"a start and more":       {byte(spec.OpStart), 0},
	"a long message":         bytes.Repeat([]byte{byte(spec.OpStop)}, 60_000),
	"zeros":                  make([]byte, 64),
	"a reopen without a log": {byte(spec.OpReopenLog)},
}

// No connection harms a host: neither what it sends, nor that it does not read,
// nor how many there are. The guest runs on, no descriptor stays, and its
// supervisor is heard.
func TestHostileConnections(t *testing.T) {
	n := newNode(t)
	c := n.container(guestCount)
	h := n.start(c)
	fds := "/proc/" + strconv.Itoa(h.PID()) + "/fd"
	before := len(n.list(fds))
	var open []int
	connect := func() int {
		fd, err := call(c.Socket)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, fd)
		return fd
	}
	for name, m := range nonsense {
		fd := connect()
		for range 2000 { // more than the socket holds replies
			err := unix.Sendto(fd, m, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	// Descriptors that nobody asked for, more than a message may carry.
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, count := range []int{1, 2, 4, 5, 200} {
		fd := connect()
		rights := make([]int, count)
		for i := range rights {
			rights[i] = int(null.Fd())
		}
		for _, op := range []spec.Op{spec.OpReopenLog, 200} {
			if op == spec.OpReopenLog && count == 1 {
				continue // that is a request
			}
			if err := unix.Sendmsg(fd, []byte{byte(op)}, unix.UnixRights(rights...), nil, unix.MSG_NOSIGNAL); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 300 { // far more than it serves at a time
		connect()
	}
	n.lines(c, 20)
	if err := h.ReopenLog(context.Background()); err != nil {
		t.Error(err)
	}
	for _, fd := range open {
		unix.Close(fd)
	}
	eventually(t, "as many descriptors as before", func() bool { return len(n.list(fds)) <= before })
	if err := h.Stop(context.Background(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if x := n.ended(h); x.Code != 143 {
		t.Errorf("ended with %+v", x)
	}
	n.checkTicks(c, 10*time.Second)
}

// lines waits for so many more lines of the log.
func (n *node) lines(c *spec.Container, more int) {
	n.Helper()
	count := func() int {
		b, err := os.ReadFile(c.Limpet.LogPath)
		if err != nil {
			n.Fatal(err)
		}
		return bytes.Count(b, []byte("\n"))
	}
	want := count() + more
	eventually(n, "more lines in the log", func() bool { return count() >= want })
}

// Others that connect before the guest starts push the connection out on which
// its host was made; the start finds another way.
func TestStartOnAnotherConnection(t *testing.T) {
	n := newNode(t)
	c := n.container(guestExit3)
	h := n.create(c)
	for range 8 {
		fd, err := call(c.Socket)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		// Its hello has come, so it has a place.
		if _, err := unix.Read(fd, make([]byte, spec.MaxControlMessage)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := h.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if x := n.ended(h); x.Code != 3 {
		t.Errorf("ended with %+v", x)
	}
}

// freeze stops a process and waits until each of its threads stands.
func (n *node) freeze(pid int) {
	n.Helper()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		n.Fatal(err)
	}
	tasks := fmt.Sprintf("/proc/%d/task", pid)
	eventually(n, "stopped", func() bool {
		for _, task := range n.list(tasks) {
			b, err := os.ReadFile(filepath.Join(tasks, task, "stat"))
			if err != nil || !strings.Contains(string(b), ") T ") {
				return false
			}
		}
		return true
	})
}

// A host that hangs answers nothing: requests end with their contexts, and a
// kill ends the host.
func TestFrozenHost(t *testing.T) {
	n := newNode(t)
	c := n.container(guestSleep)
	h := n.start(c)
	n.freeze(h.PID())
	for name, ask := range map[string]func(context.Context) error{
		"stop":       func(ctx context.Context) error { return h.Stop(ctx, unix.SIGTERM) },
		"reopen log": h.ReopenLog,
	} {
		for range 40 { // more than may wait to be accepted
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			if err := ask(ctx); err == nil {
				t.Errorf("%s succeeds", name)
			}
			cancel()
		}
	}
	if err := h.Kill(); err != nil {
		t.Fatal(err)
	}
	if x := n.ended(h); x.Code != 137 || x.Reason != spec.ReasonKilled {
		t.Errorf("ended with %+v", x)
	}
}

// A host that was ready and hangs when the next supervisor comes is started by
// it once it answers again.
func TestAdoptFrozenReadyHost(t *testing.T) {
	n := newNode(t)
	ctx := context.Background()
	c := n.container(guestExit3)
	old := n.create(c)
	pid := old.PID()
	n.close()
	n.freeze(pid)
	n.open()
	h, err := n.sup.Adopt(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if x := n.ended(h); x.Code != 3 {
		t.Errorf("ended with %+v", x)
	}
	if _, err := os.Stat(filepath.Join(c.Dir, spec.FileExit)); err != nil {
		t.Error(err)
	}
}
