package shim_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim"
	"github.com/limpet-cri/limpet/shim/spec"
)

// pipeGuest opens the pipe /data/p with the rights given, and reads or writes
// 64 KiB at a time for ever.
func pipeGuest(call, rights string) string {
	return wat(say(1, "open\n")+`
	  (if (call $path_open (i32.const 4) (i32.const 0) (i32.const 5000) (i32.const 6) (i32.const 0) (i64.const `+rights+`) (i64.const 0) (i32.const 0) (i32.const 16))
	    (then (call $proc_exit (i32.const 50))))
	  `+say(1, "open\n")+`
	  (i32.store (i32.const 0) (i32.const 8192)) (i32.store (i32.const 4) (i32.const 57344))
	  (loop (drop (call $`+call+` (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))`,
		text("open\n"), `(data (i32.const 5000) "data/p")`)
}

// blocked are guests that wait in one place of the kernel or spin, and how to
// get them there.
var blocked = []struct {
	name, guest, first string
	change             func(n *node, c *spec.Container)
	reach              func(n *node, c *spec.Container)
}{
	{"spin", guestSpin, "spin", nil, nil},
	{"sleep", guestSleep, "wait", nil, nil},
	{"read of standard input", guestRead, "read", func(_ *node, c *spec.Container) { stdin(c) }, nil},
	{"read of an empty pipe", pipeGuest("fd_read", "2"), "open", pipeVolume, nil},
	{"write to a full pipe", pipeGuest("fd_write", "64"), "open", pipeVolume, nil},
	{"write to a log that takes nothing", wat(`(loop `+say(1, "tick\n")+`(br 0))`, text("tick\n")), "tick", nil, fullLog},
}

// pipeVolume gives the guest a pipe, which somebody else has open at both ends
// and does not use.
func pipeVolume(n *node, c *spec.Container) {
	n.Helper()
	dir := filepath.Join(n.dir, c.ID+"-data")
	path := filepath.Join(dir, "p")
	if err := os.Mkdir(dir, 0o755); err != nil {
		n.Fatal(err)
	}
	if err := unix.Mkfifo(path, 0o666); err != nil {
		n.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		n.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { f.Close() })
	c.OCI.Mounts = []specs.Mount{{Destination: "/data", Source: dir}}
}

// fullLog lets the guest's log go on in a pipe that nobody reads, and waits
// until it is full: the guest is in a write to it.
func fullLog(n *node, c *spec.Container) {
	n.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { unix.Close(p[0]) })
	fd, err := call(c.Socket)
	if err != nil {
		n.Fatal(err)
	}
	defer unix.Close(fd)
	answer := make([]byte, spec.MaxControlMessage)
	if _, err := unix.Read(fd, answer); err != nil {
		n.Fatal(err)
	}
	reopen := &spec.Message{Op: spec.OpReopenLog}
	if err := unix.Sendmsg(fd, reopen.Encode(), unix.UnixRights(p[1]), nil, 0); err != nil {
		n.Fatal(err)
	}
	unix.Close(p[1])
	if _, err := unix.Read(fd, answer); err != nil {
		n.Fatal(err)
	}
	// The kernel gives less than 64 KiB to who has many pipes already.
	size, err := unix.FcntlInt(uintptr(p[0]), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		n.Fatal(err)
	}
	eventually(n, "a full pipe", func() bool {
		held, err := unix.IoctlGetInt(p[0], unix.TIOCINQ)
		return err == nil && held > size*9/10
	})
}

// stand starts a guest and brings it to where it waits.
func (n *node) stand(i int, quota bool) (*spec.Container, *shim.Host) {
	n.Helper()
	b := blocked[i]
	c := n.container(b.guest)
	if b.change != nil {
		b.change(n, c)
	}
	if quota {
		cpuQuota(c)
	}
	h := n.create(c)
	if err := h.Start(context.Background()); err != nil {
		n.Fatal(err)
	}
	n.awaitOutput(c, b.first)
	if b.reach != nil {
		b.reach(n, c)
	}
	return c, h
}

// Wherever a guest is, a stop ends it with 143, and under a tight CPU limit
// too. How fast is BenchmarkStop's to say.
func TestStopOfABlockedGuest(t *testing.T) {
	for i, b := range blocked {
		for _, quota := range []bool{false, true} {
			name := b.name
			if quota {
				name += " under a tight quota"
			}
			t.Run(name, func(t *testing.T) {
				n := newNode(t)
				_, h := n.stand(i, quota)
				began := time.Now()
				if err := h.Stop(context.Background(), unix.SIGTERM); err != nil {
					t.Fatal(err)
				}
				if x := n.ended(h); x.Code != 143 || x.Reason != spec.ReasonStopped {
					t.Errorf("ended with %+v", x)
				}
				t.Logf("ended %v after the signal", time.Since(began))
			})
		}
	}
}

// A log whose disk hangs cannot be reopened, which is said; the guest can be
// stopped all the same.
func TestReopenOfALogThatHangs(t *testing.T) {
	n := newNode(t)
	_, h := n.stand(len(blocked)-1, false)
	if err := h.ReopenLog(context.Background()); err == nil || !strings.Contains(err.Error(), "hangs") {
		t.Errorf("reopen: %v", err)
	}
	if err := h.Stop(context.Background(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if x := n.ended(h); x.Code != 143 {
		t.Errorf("ended with %+v", x)
	}
}

// BenchmarkStop measures the time from the signal to the end being known, of
// one guest at a time.
func BenchmarkStop(b *testing.B) {
	for i, g := range blocked {
		for _, quota := range []bool{false, true} {
			name := g.name
			if quota {
				name += ", quota 5 %"
			}
			b.Run(name, func(b *testing.B) {
				n := newNode(b)
				var took []time.Duration
				for b.Loop() {
					b.StopTimer()
					c, h := n.stand(i, quota)
					if quota && g.name == "spin" {
						n.awaitThrottled(c)
					}
					b.StartTimer()
					began := time.Now()
					if err := h.Stop(context.Background(), unix.SIGTERM); err != nil {
						b.Fatal(err)
					}
					<-h.Done()
					took = append(took, time.Since(began))
					b.StopTimer()
					if err := n.sup.Remove(context.Background(), c); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
				b.ReportMetric(quantile(took, .5), "ms")
				b.ReportMetric(quantile(took, .99), "p99-ms")
				b.ReportMetric(float64(slices.Max(took).Microseconds())/1000, "max-ms")
			})
		}
	}
}
