package wasip1

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm/wasi"
)

// output tells when the guest is about to wait: that is when it is flushed.
type output struct {
	flushed chan struct{}
	text    []byte
}

func newOutput() *output { return &output{flushed: make(chan struct{}, 16)} }

func (o *output) Write(p []byte) (int, error) {
	o.text = append(o.text, p...)
	return len(p), nil
}

func (o *output) Flush() error {
	o.flushed <- struct{}{}
	return nil
}

// blocker is a guest with a descriptor of each kind that can block, in the
// state in which it does.
type blocker struct {
	*tester
	out              *output
	stdinEnd         int
	emptyFifo, full  uint64
	listener         uint64
	listenAddr       unix.Sockaddr
	stream, fullConn uint64
}

func listen(t testing.TB) (int, unix.Sockaddr) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 16); err != nil {
		t.Fatal(err)
	}
	addr, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, addr
}

func (b *blocker) connect() int {
	b.t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := unix.Connect(fd, b.listenAddr); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func (b *blocker) accept() uint64 {
	b.t.Helper()
	b.ok("sock_accept", b.listener, 0, atOut)
	return uint64(b.u32(atOut))
}

func newBlocker(t testing.TB) *blocker {
	t.Helper()
	dir := t.TempDir()
	for _, f := range []string{"empty", "full"} {
		if err := unix.Mkfifo(filepath.Join(dir, f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[1]) })
	lfd, addr := listen(t)
	out := newOutput()
	b := &blocker{out: out, stdinEnd: p[1], listenAddr: addr, listener: 4}
	b.tester = newTester(t, wasi.Config{
		Stdin: p[0], Stdout: out, Listeners: []int{lfd},
		Preopens: []wasi.Preopen{{Name: "/", FD: folder(t, dir), Root: true}},
	})
	b.openFifos()
	b.ok("fd_fdstat_set_flags", b.listener, 0)
	b.connect()
	b.stream = b.accept()
	b.connect()
	b.fullConn = b.accept()
	b.fillUp("full socket", b.fullConn)
	return b
}

func (b *blocker) openFifos() {
	var e Errno
	if b.emptyFifo, e = b.open(3, "empty", 1, 0, allRights); e != 0 {
		b.t.Fatal(e)
	}
	if b.full, e = b.open(3, "full", 1, 0, allRights); e != 0 {
		b.t.Fatal(e)
	}
	b.fillUp("full fifo", b.full)
}

// fillUp writes until the descriptor would block.
func (b *blocker) fillUp(what string, fd uint64) {
	b.t.Helper()
	b.ok("fd_fdstat_set_flags", fd, uint64(wasi.FlagNonblock))
	for range 1 << 12 {
		if e := b.write(fd, string(make([]byte, 1<<16))); e == errnoAgain {
			b.ok("fd_fdstat_set_flags", fd, 0)
			return
		}
	}
	b.t.Fatal(what + " does not fill")
}

// subscribe writes a subscription to a clock or a descriptor.
func (c *tester) subscribe(i int, userdata uint64, tag byte, a, b uint64) {
	p := c.mem[atData+48*i:][:48]
	clear(p)
	le.PutUint64(p, userdata)
	p[8] = tag
	le.PutUint32(p[16:], uint32(a))
	if tag == 0 {
		le.PutUint64(p[24:], b)
	}
}

const atEvents = atData + 0x8000

func (c *tester) poll(n uint64) Errno {
	c.t.Helper()
	return c.call("poll_oneoff", atData, atEvents, n, atOut)
}

type event struct {
	userdata uint64
	errno    Errno
	tag      byte
	bytes    uint64
	flags    uint16
}

func (c *tester) events() []event {
	var out []event
	for i := range int(c.u32(atOut)) {
		p := c.mem[atEvents+32*i:]
		out = append(out, event{le.Uint64(p), Errno(le.Uint16(p[8:])), p[10], le.Uint64(p[16:]), le.Uint16(p[24:])})
	}
	return out
}

// blocking are all the ways to wait.
var blocking = []struct {
	name string
	do   func(b *blocker) (Errno, error)
}{
	{"fd_read of stdin", func(b *blocker) (Errno, error) { return b.rawVec("fd_read", 0) }},
	{"fd_read of a fifo", func(b *blocker) (Errno, error) { return b.rawVec("fd_read", b.emptyFifo) }},
	{"fd_read of a socket", func(b *blocker) (Errno, error) { return b.rawVec("fd_read", b.stream) }},
	{"fd_write to a fifo", func(b *blocker) (Errno, error) { return b.rawVec("fd_write", b.full) }},
	{"fd_write to a socket", func(b *blocker) (Errno, error) { return b.rawVec("fd_write", b.fullConn) }},
	{"sock_accept", func(b *blocker) (Errno, error) { return b.raw("sock_accept", b.listener, 0, atOut) }},
	{"sock_recv", func(b *blocker) (Errno, error) {
		return b.raw("sock_recv", b.stream, atVec, 1, 0, atOut, atOut+8)
	}},
	{"sock_recv of all", func(b *blocker) (Errno, error) {
		return b.raw("sock_recv", b.stream, atVec, 1, 2, atOut, atOut+8)
	}},
	{"sock_send", func(b *blocker) (Errno, error) { return b.raw("sock_send", b.fullConn, atVec, 1, 0, atOut) }},
	{"poll_oneoff of a clock", func(b *blocker) (Errno, error) {
		b.subscribe(0, 1, 0, 1, 1<<62)
		return b.raw("poll_oneoff", atData, atEvents, 1, atOut)
	}},
	{"poll_oneoff of everything", func(b *blocker) (Errno, error) {
		for i, fd := range []uint64{0, b.emptyFifo, b.listener, b.stream} {
			b.subscribe(i, 1, 1, fd, 0)
		}
		b.subscribe(4, 1, 2, b.full, 0)
		b.subscribe(5, 1, 2, b.fullConn, 0)
		b.subscribe(6, 1, 0, 0, ^uint64(0))
		return b.raw("poll_oneoff", atData, atEvents, 7, atOut)
	}},
}

func (b *blocker) rawVec(name string, fd uint64) (Errno, error) {
	p, n := b.vec("0123456789")
	return b.raw(name, fd, p, n, atOut)
}

var errStopped = errors.New("stopped by the test")

// TestInterrupt ends each wait. That the guest waits is known because its
// output was flushed, which nothing else does.
func TestInterrupt(t *testing.T) {
	for _, op := range blocking {
		t.Run(op.name, func(t *testing.T) {
			b := newBlocker(t)
			if e := b.write(1, "x"); e != 0 {
				t.Fatal(e)
			}
			b.vec("0123456789")
			ended := make(chan error, 1)
			go func() {
				e, err := op.do(b)
				if err == nil {
					err = errors.New("it returned errno " + string(rune('0'+e%10)))
				}
				ended <- err
			}()
			<-b.out.flushed
			began := time.Now()
			b.sys.Interrupt(errStopped)
			select {
			case err := <-ended:
				if err != errStopped {
					t.Fatal(err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it still waits")
			}
			t.Logf("ended %v after the interrupt", time.Since(began))
			if _, err := b.raw("sched_yield"); err != errStopped {
				t.Fatalf("a later call: %v", err)
			}
			if _, err := b.raw("proc_exit", 0); err != errStopped {
				t.Fatalf("proc_exit: %v", err)
			}
		})
	}
}

func TestCloseStdin(t *testing.T) {
	b := newBlocker(t)
	if _, err := unix.Write(b.stdinEnd, []byte("last words")); err != nil {
		t.Fatal(err)
	}
	if s, e := b.read(0, 4); s != "last" || e != 0 {
		t.Fatal(s, e)
	}
	b.write(1, "x")
	b.subscribe(0, 7, 0, 1, 1<<62)
	ended := make(chan string, 2)
	go func() {
		s, _ := b.read(0, 100)
		ended <- s
		b.write(1, "x")
		s, e := b.read(0, 100)
		if e != 0 {
			s = "an error"
		}
		ended <- s
	}()
	if s := <-ended; s != " words" {
		t.Fatal(s)
	}
	<-b.out.flushed
	b.sys.CloseStdin()
	if s := <-ended; s != "" {
		t.Fatalf("read %q at the end", s)
	}
	b.subscribe(0, 9, 1, 0, 0)
	if e := b.poll(1); e != 0 || len(b.events()) != 1 {
		t.Fatal(e, b.events())
	}
}

func TestStopListening(t *testing.T) {
	b := newBlocker(t)
	b.write(1, "x")
	ended := make(chan Errno, 1)
	go func() {
		e, _ := b.raw("sock_accept", b.listener, 0, atOut)
		ended <- e
	}()
	<-b.out.flushed
	b.sys.StopListening()
	if e := <-ended; e == 0 {
		t.Fatal("it accepted")
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, b.listenAddr); err != unix.ECONNREFUSED {
		t.Fatalf("connect: %v", err)
	}
}

func TestPollClocks(t *testing.T) {
	b := newBlocker(t)
	now, err := b.sys.Now(wasi.ClockMonotonic)
	if err != nil {
		t.Fatal(err)
	}
	b.subscribe(0, 10, 0, 1, 30e6)
	b.subscribe(1, 11, 0, 1, 1e6)
	b.subscribe(2, 12, 0, 0, 3600e9)
	b.subscribe(3, 13, 0, 1, now) // absolute, over already
	le.PutUint16(b.mem[atData+48*3+40:], 1)
	if e := b.poll(3); e != 0 {
		t.Fatal(e)
	}
	if ev := b.events(); len(ev) != 1 || ev[0].userdata != 11 || ev[0].tag != 0 || ev[0].errno != 0 {
		t.Fatal(ev)
	}
	after, _ := b.sys.Now(wasi.ClockMonotonic)
	if after-now < 1e6 {
		t.Fatalf("it slept %d ns instead of 1 ms", after-now)
	}
	if e := b.poll(4); e != 0 {
		t.Fatal(e)
	}
	if ev := b.events(); len(ev) != 1 || ev[0].userdata != 13 {
		t.Fatal(ev)
	}
	b.subscribe(0, 20, 0, 9, 1)  // no such clock
	b.subscribe(1, 21, 0, 2, 1)  // cannot be waited for
	b.subscribe(2, 22, 1, 99, 0) // no such descriptor
	b.subscribe(3, 23, 1, 3, 0)  // a folder
	if e := b.poll(4); e != 0 {
		t.Fatal(e)
	}
	want := []event{{20, errnoInval, 0, 0, 0}, {21, errnoNotsup, 0, 0, 0}, {22, errnoBadf, 1, 0, 0}, {23, errnoNotcapable, 1, 0, 0}}
	for i, ev := range b.events() {
		if ev != want[i] {
			t.Errorf("event %+v, want %+v", ev, want[i])
		}
	}
	if len(b.events()) != 4 {
		t.Error(b.events())
	}
}

func TestPollDescriptors(t *testing.T) {
	b := newBlocker(t)
	file, e := b.open(3, "f", 1, 1, allRights)
	if e != 0 {
		t.Fatal(e)
	}
	b.write(file, "12345")
	b.ok("fd_seek", file, 2, 0, atOut)
	conn := b.connect()
	unix.Write(b.stdinEnd, []byte("x"))
	for i, fd := range []uint64{0, b.emptyFifo, b.listener, b.stream, file} {
		b.subscribe(i, fd, 1, fd, 0)
	}
	b.subscribe(5, 100, 2, 1, 0)
	b.subscribe(6, 101, 2, b.full, 0)
	b.subscribe(7, 102, 0, 1, 3600e9)
	if e := b.poll(8); e != 0 {
		t.Fatal(e)
	}
	got := map[uint64]event{}
	for _, ev := range b.events() {
		got[ev.userdata] = ev
		if ev.errno != 0 {
			t.Error(ev)
		}
	}
	if len(got) != 4 || got[0].tag != 1 || got[b.listener].tag != 1 || got[file].bytes != 3 || got[100].tag != 2 {
		t.Fatalf("%+v", got)
	}
	// A peer that goes away shows as readable, and its end can be read.
	peer := b.accept()
	unix.Close(conn)
	b.subscribe(0, 5, 1, peer, 0)
	if e := b.poll(1); e != 0 || len(b.events()) != 1 {
		t.Fatal(e, b.events())
	}
	if s, e := b.read(peer, 10); s != "" || e != 0 {
		t.Fatal(s, e)
	}
}
