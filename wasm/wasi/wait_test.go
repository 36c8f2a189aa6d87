package wasi

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var errEnough = errors.New("enough")

// signalled is an Output that tells when the System is about to wait: it
// flushes its streams then, and only then.
type signalled struct{ waits chan struct{} }

func (o *signalled) Write(p []byte) (int, error) { return len(p), nil }

func (o *signalled) Flush() error {
	close(o.waits)
	return nil
}

// one fills the System's buffers with n bytes.
func one(s *System, n int) *Buffers {
	b := s.Buffers()
	b.Add(make([]byte, n))
	return b
}

// pair returns a connected socket as a stream of the System's and its peer.
func pair(t *testing.T, s *System) (fd uint32, peer int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[1]) })
	fd, err = s.table.add(newStream(p[0], rightsStream))
	if err != nil {
		t.Fatal(err)
	}
	return fd, p[1]
}

// listener returns a listening socket.
func listener(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// blocking has one way to wait of each kind, and the function that waits then.
// prepare returns the call.
var blocking = []struct {
	name, waits string
	prepare     func(t *testing.T, s *System) func() error
}{
	{"read standard input", "readStdin", func(t *testing.T, s *System) func() error {
		return func() error { _, err := s.Read(0, one(s, 1)); return err }
	}},
	{"read a connection", "readPatient", func(t *testing.T, s *System) func() error {
		fd, _ := pair(t, s)
		return func() error { _, err := s.Read(fd, one(s, 1)); return err }
	}},
	{"receive", "Receive", func(t *testing.T, s *System) func() error {
		fd, _ := pair(t, s)
		return func() error { _, _, err := s.Receive(fd, one(s, 1), false, true); return err }
	}},
	{"receive all of what came in part", "Receive", func(t *testing.T, s *System) func() error {
		fd, peer := pair(t, s)
		if _, err := unix.Write(peer, []byte("x")); err != nil {
			t.Fatal(err)
		}
		return func() error { _, _, err := s.Receive(fd, one(s, 2), false, true); return err }
	}},
	{"write to a full connection", "send", func(t *testing.T, s *System) func() error {
		fd, _ := pair(t, s)
		return func() error { return fill(s, fd, s.Write) }
	}},
	{"send to a full connection", "send", func(t *testing.T, s *System) func() error {
		fd, _ := pair(t, s)
		return func() error { return fill(s, fd, s.Send) }
	}},
	{"write to a full pipe", "Write", func(t *testing.T, s *System) func() error {
		fd := pipe(t, s, 1)
		return func() error { return fill(s, fd, s.Write) }
	}},
	{"read an empty pipe", "readPatient", func(t *testing.T, s *System) func() error {
		fd := pipe(t, s, 0)
		return func() error { _, err := s.Read(fd, one(s, 1)); return err }
	}},
	{"accept", "Accept", func(t *testing.T, s *System) func() error {
		if err := s.SetFlags(FirstPreopen, 0); err != nil { // it starts non-blocking, as Go wants it
			t.Fatal(err)
		}
		return func() error { _, err := s.Accept(FirstPreopen, 0); return err }
	}},
	{"sleep", "Poll", func(t *testing.T, s *System) func() error {
		return func() error {
			sub := s.Subscriptions(1)
			sub[0] = Subscription{Type: EventClock, Clock: ClockMonotonic, Timeout: 1 << 60}
			return s.Poll(sub)
		}
	}},
	{"poll a descriptor", "Poll", func(t *testing.T, s *System) func() error {
		fd, _ := pair(t, s)
		return func() error {
			sub := s.Subscriptions(1)
			sub[0] = Subscription{Type: EventRead, FD: fd}
			return s.Poll(sub)
		}
	}},
	{"poll nothing", "Poll", func(t *testing.T, s *System) func() error {
		return func() error { return s.Poll(s.Subscriptions(0)) }
	}},
}

// TestEveryWaitIsTried: no function of the package waits that the table above
// does not bring to wait.
func TestEveryWaitIsTried(t *testing.T) {
	tried := map[string]bool{"waitFor": true} // it is how others wait
	for _, c := range blocking {
		tried[c.waits] = true
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			ast.Inspect(d, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && (s.Sel.Name == "wait" || s.Sel.Name == "waitFor" || s.Sel.Name == "Ppoll") {
					found[d.(*ast.FuncDecl).Name.Name] = true
				}
				return true
			})
		}
	}
	delete(found, "wait") // the one place that waits
	if !maps.Equal(found, tried) {
		t.Errorf("these wait: %v; these are tried: %v", found, tried)
	}
}

// TestOpensDoNotWait: what the kernel would keep a caller waiting for in an
// open is answered at once.
func TestOpensDoNotWait(t *testing.T) {
	dir := t.TempDir()
	fifo, leased := filepath.Join(dir, "fifo"), filepath.Join(dir, "leased")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	lessee, err := os.Create(leased)
	if err != nil {
		t.Fatal(err)
	}
	defer lessee.Close()
	// The kernel gives the lessee 45 seconds to let go before others may open.
	if _, err := unix.FcntlInt(lessee.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skip("needs leases: ", err)
	}
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Stdin: -1, Preopens: []Preopen{{Name: "/", FD: root, Root: true}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, c := range []struct {
		path   string
		rights Rights
		want   error
	}{
		{"fifo", RightFDRead, nil}, // nobody writes
		{"leased", RightFDRead, unix.EAGAIN},
		{"leased", RightFDRead | RightFDWrite, unix.EAGAIN},
	} {
		if _, err := s.Open(FirstPreopen, true, c.path, 0, c.rights, 0, 0); err != c.want {
			t.Errorf("open %s for %x: %v, want %v", c.path, c.rights, err, c.want)
		}
	}
	if err := s.CloseFD(FirstPreopen + 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(FirstPreopen, true, "fifo", 0, RightFDWrite, 0, 0); err != unix.ENXIO {
		t.Errorf("open a fifo that nobody reads to write: %v, want %v", err, unix.ENXIO)
	}
}

// fill writes until it fails.
func fill(s *System, fd uint32, write func(uint32, *Buffers) (int, error)) error {
	for {
		if _, err := write(fd, one(s, 1<<16)); err != nil {
			return err
		}
	}
}

// pipe adds one end of a pipe to the table.
func pipe(t *testing.T, s *System, end int) uint32 {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[1-end]) })
	fd, err := s.table.add(&Descriptor{kind: kindPipe, fd: p[end], from: -1, base: rightsPipe})
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func waiting(t *testing.T) (*System, *signalled) {
	t.Helper()
	var in [2]int
	if err := unix.Pipe2(in[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(in[1]) })
	out := &signalled{make(chan struct{})}
	s, err := New(Config{Stdin: in[0], Stdout: out, Listeners: []int{listener(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, out
}

// TestInterrupt: every call that waits ends when the System is interrupted,
// and every later one at once.
func TestInterrupt(t *testing.T) {
	for _, c := range blocking {
		t.Run(c.name, func(t *testing.T) {
			s, out := waiting(t)
			call := c.prepare(t, s)
			if _, err := s.Write(1, one(s, 1)); err != nil { // so that a wait flushes
				t.Fatal(err)
			}
			done := make(chan error)
			go func() { done <- call() }()
			select {
			case <-out.waits:
			case err := <-done:
				t.Fatalf("it did not wait: %v", err)
			}
			s.Interrupt(errEnough)
			s.Interrupt(errors.New("a second one does not count"))
			if err := <-done; !errors.Is(err, ErrInterrupted) {
				t.Errorf("got %v, want %v", err, ErrInterrupted)
			}
			if err := call(); !errors.Is(err, ErrInterrupted) {
				t.Errorf("the next call: got %v, want %v", err, ErrInterrupted)
			}
			if s.Err() != errEnough {
				t.Errorf("Err is %v, want %v", s.Err(), errEnough)
			}
		})
	}
}
