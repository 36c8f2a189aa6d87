package shim_test

import (
	"context"
	"errors"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/limpet-cri/limpet/shim"
	"github.com/limpet-cri/limpet/shim/cgroup"
	"github.com/limpet-cri/limpet/shim/logs"
	"github.com/limpet-cri/limpet/shim/spec"
)

// guestStretch waits for the end of its input, then takes all the memory it can
// get, and tells in pages, as four hexadecimal digits, whenever it has got more.
var guestStretch = wat(`(local $said i32)
	`+say(1, "wait\n")+`
	(i32.store (i32.const 0) (i32.const 2048)) (i32.store (i32.const 4) (i32.const 16))
	(drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
	(loop $for_ever
	  (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
	  (if (i32.ne (memory.size) (local.get $said)) (then
	    (local.set $said (memory.size))
	    (call $digits (local.get $said))
	    (call $print (i32.const 1) (i32.const 4112) (i32.const 5))))
	  (call $sleep (i64.const 1000000))
	  (br $for_ever))`,
	text("wait\n"), `(data (i32.const 4112) "....\n")`, `(func $digits (param $n i32) (local $at i32)
	  (local.set $at (i32.const 4116))
	  (loop
	    (local.set $at (i32.sub (local.get $at) (i32.const 1)))
	    (i32.store8 (local.get $at) (i32.add
	      (i32.add (i32.and (local.get $n) (i32.const 15)) (i32.const 48))
	      (i32.mul (i32.const 39) (i32.gt_u (i32.and (local.get $n) (i32.const 15)) (i32.const 9)))))
	    (local.set $n (i32.shr_u (local.get $n) (i32.const 4)))
	    (br_if 0 (i32.gt_u (local.get $at) (i32.const 4112)))))`)

// hostRoom is what the tests leave to the host beside its guest's memory.
const hostRoom = 32 << 20

func room(bytes uint64) *specs.LinuxResources {
	n := int64(bytes) + hostRoom
	return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &n}}
}

func stretching(c *spec.Container) {
	c.Limpet.MemoryLimit, c.Limpet.Stdin, c.Limpet.OnStop = 4<<20, true, spec.OnStopCloseStdin
	c.OCI.Linux.Resources = room(4 << 20)
}

// resize changes both limits and looks at the cgroup's.
func (n *node) resize(h *shim.Host, from, to uint64) {
	n.Helper()
	if err := h.Resize(context.Background(), room(to), shim.Bound{From: from, To: to}); err != nil {
		n.Fatal(err)
	}
	if st, err := h.Stats(); err != nil || st.MemoryLimit != to+hostRoom {
		n.Errorf("the cgroup's limit is %d, %v, want %d", st.MemoryLimit, err, to+hostRoom)
	}
}

// stretch ends the guest's input.
func (n *node) stretch(h *shim.Host) {
	n.Helper()
	if err := h.Stop(context.Background(), syscall.SIGTERM); err != nil {
		n.Fatal(err)
	}
}

// A running guest's memory.grow succeeds after its bound has risen and fails
// beyond a lower one, also by the hand of a later daemon.
func TestResizeRunning(t *testing.T) {
	n := newNode(t)
	c := n.container(guestStretch, stretching)
	h := n.start(c)
	n.awaitOutput(c, "wait")
	n.resize(h, 4<<20, 1<<20) // while it blocks in a host call
	n.stretch(h)
	n.awaitOutput(c, "0010\n")
	n.resize(h, 1<<20, 2<<20)
	n.awaitOutput(c, "0020\n")
	n.resize(h, 2<<20, 1<<20) // below what it has, which it keeps
	n.resize(h, 1<<20, 3<<20)
	n.awaitOutput(c, "0030\n")

	n.close()
	n.open()
	h, err := n.sup.Adopt(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	n.resize(h, 3<<20, 10<<20)
	n.awaitOutput(c, "00a0\n")
	if got, want := n.output(c, logs.Stdout), "wait\n0010\n0020\n0030\n00a0\n"; got != want {
		t.Errorf("the guest said %q, want %q", got, want)
	}
}

// What changes before the start holds from the start.
func TestResizeCreated(t *testing.T) {
	n := newNode(t)
	c := n.container(guestStretch, stretching)
	h := n.create(c)
	n.resize(h, 4<<20, 2<<20)
	if err := h.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	n.awaitOutput(c, "wait")
	n.stretch(h)
	n.awaitOutput(c, "0020\n")
}

// When the cgroup refuses a lower limit, the guest's bound is as it was; a host
// that has ended is told as such.
func TestResizeRefused(t *testing.T) {
	n := newNode(t)
	c := n.container(guestStretch, stretching)
	h := n.start(c)
	n.awaitOutput(c, "wait")
	r := room(0)
	tiny, check := int64(4096), true
	r.Memory.Limit, r.Memory.CheckBeforeUpdate = &tiny, &check
	if err := h.Resize(context.Background(), r, shim.Bound{From: 4 << 20, To: 1 << 20}); !errors.Is(err, cgroup.ErrLimit) {
		t.Fatalf("a limit below what is in use: %v", err)
	}
	n.stretch(h)
	n.awaitOutput(c, "0040\n")
	if err := h.Kill(); err != nil {
		t.Fatal(err)
	}
	n.ended(h)
	if err := h.Resize(context.Background(), room(1<<20), shim.Bound{From: 4 << 20, To: 1 << 20}); !errors.Is(err, shim.ErrEnded) {
		t.Errorf("after the end: %v", err)
	}
}
