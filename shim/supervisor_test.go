package shim_test

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim"
	"github.com/limpet-cri/limpet/shim/logs"
	"github.com/limpet-cri/limpet/shim/spec"
)

func memoryLimit(bytes int64) func(*spec.Container) {
	return func(c *spec.Container) {
		c.OCI.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &bytes}}
		c.Limpet.MemoryLimit = 0
	}
}

func TestEnds(t *testing.T) {
	for _, c := range []struct {
		name, guest    string
		change         func(*spec.Container)
		code           int32
		reason         spec.Reason
		message        string // part of it
		stdout, stderr string // stderr: part of it
	}{
		{"returns", guestHello, nil, 0, spec.ReasonCompleted, "", "Hello\n", ""},
		{"exits with 3", guestExit3, nil, 3, spec.ReasonError, "", "", "bad\n"},
		{"exits with 255", wat("(call $proc_exit (i32.const 255))"), nil, 255, spec.ReasonError, "", "", ""},
		{"exits with 256", wat("(call $proc_exit (i32.const 256))"), nil, 0, spec.ReasonCompleted, "", "", ""},
		{"exits with -1", wat("(call $proc_exit (i32.const -1))"), nil, 255, spec.ReasonError, "", "", ""},
		{"traps", guestTrap, nil, 134, spec.ReasonTrap, "unreachable executed", "half\n", "guest.wasm!deep"},
		{"overflows its stack", wat("(call $r)", "(func $r (call $r))"), nil, 134, spec.ReasonTrap, "call stack exhausted", "", "guest.wasm!r"},
		{"traps in its start function", wat("", "(func $s unreachable) (start $s)"), nil, 134, spec.ReasonTrap, "unreachable", "", "guest.wasm!s"},
		{"exits in its start function", wat("", "(func $s (call $proc_exit (i32.const 5))) (start $s)"), nil, 5, spec.ReasonError, "", "", ""},
		{"grows to its limit", guestGrow, nil, 0, spec.ReasonCompleted, "", "grow refused\n", ""},
		{"grows its table to the limit", wat(`
		  (if (i32.ne (table.grow (ref.null func) (i32.const 999999)) (i32.const 1)) (then (call $proc_exit (i32.const 2))))
		  (if (i32.ne (table.grow (ref.null func) (i32.const 1)) (i32.const -1)) (then (call $proc_exit (i32.const 1))))`,
			"(table 1 funcref)"), nil, 0, spec.ReasonCompleted, "", "", ""},
		{"outgrows its cgroup", guestEat, memoryLimit(24 << 20), 137, spec.ReasonOOMKilled, "memory limit", "", ""},
		{"reads from no input", guestRead, nil, 40, spec.ReasonError, "", "read\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			k := n.container(c.guest)
			if c.change != nil {
				c.change(k)
			}
			x := n.ended(n.start(k))
			if x.Code != c.code || x.Reason != c.reason || !strings.Contains(x.Message, c.message) || (c.message == "") != (x.Message == "") {
				t.Errorf("ended with %+v, want %d %s %q", x, c.code, c.reason, c.message)
			}
			if c.reason == spec.ReasonTrap { // the trap's name and where, in the message as in the log
				head := "wasm trap: " + c.message
				if log, err := os.ReadFile(k.Limpet.LogPath); err != nil || c.stdout != "" &&
					strings.Index(string(log), strings.TrimSpace(c.stdout)) > strings.Index(string(log), head) {
					t.Errorf("what it wrote does not come before its trap: %q, %v", log, err)
				}
				if !strings.HasPrefix(x.Message, head) || !strings.Contains(x.Message, c.stderr) || !strings.Contains(n.output(k, logs.Stderr), head) {
					t.Errorf("message %q, log %q", x.Message, n.output(k, logs.Stderr))
				}
			}
			got := n.output(k, logs.Stdout)
			if c.name == "traps" && got == "half" { // it did not end its line
				got = "half\n"
			}
			if got != c.stdout {
				t.Errorf("stdout is %q, want %q", got, c.stdout)
			}
			if got := n.output(k, logs.Stderr); !strings.Contains(got, c.stderr) || (c.stderr == "") != (got == "") {
				t.Errorf("stderr is %q, want %q in it", got, c.stderr)
			}
			if b, err := os.ReadFile(filepath.Join(k.Dir, spec.FileDiagnostics)); err != nil || len(b) > 0 {
				t.Errorf("the runtime had something to say: %q, %v", b, err)
			}
		})
	}
}

// Exit codes come through from a real host, those that mean something to
// others among them: the guest ends with the number of its arguments, of which
// the lowest byte counts. (All 256 are tried in shim/host.)
func TestExitCodes(t *testing.T) {
	n := newNode(t)
	guest := `(module
	  (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
	  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
	  (memory (export "memory") 1)
	  (func (export "_start")
	    (drop (call $sizes (i32.const 0) (i32.const 4)))
	    (call $exit (i32.load (i32.const 0)))))`
	for _, code := range []int{0, 1, 2, 64, 126, 127, 128, 129, 134, 137, 139, 143, 254, 255} {
		c := n.container(guest, func(c *spec.Container) {
			c.OCI.Process.Args = slices.Repeat([]string{"x"}, cmp.Or(code, 256))
		})
		h, want := n.start(c), spec.ReasonError
		if code == 0 {
			want = spec.ReasonCompleted
		}
		if x := n.ended(h); x.Code != int32(code) || x.Reason != want || x.Message != "" {
			t.Errorf("code %d: ended with %+v", code, x)
		}
		if err := n.sup.Remove(context.Background(), c); err != nil {
			t.Fatal(err)
		}
	}
}

// A host that cannot be made ready is an error that says why, and leaves
// nothing behind.
func TestCreateFails(t *testing.T) {
	noStart := `(module (func (export "_initialize")))`
	foreign := `(module (import "env" "magic" (func (param i32))) (func (export "_start")))`
	big := `(module (memory (export "memory") 2000) (func (export "_start")))`
	for _, c := range []struct {
		name, guest string
		change      func(n *node, c *spec.Container)
		want        string
		start       bool // fails at Start only
	}{
		{"no command", noStart, nil, "exports no function _start", false},
		{"unknown import", foreign, nil, "env.magic", false},
		{"memory larger than the limit", big, nil, "memory", true},
		{"code of something else", guestHello, func(n *node, c *spec.Container) {
			c.Limpet.Code = filepath.Join(n.dir, "junk")
			if err := os.WriteFile(c.Limpet.Code, []byte("junk"), 0o644); err != nil {
				n.Fatal(err)
			}
		}, "map the compiled code", false},
		{"no code", guestHello, func(_ *node, c *spec.Container) { c.Limpet.Code += "-no" }, "compiled code", false},
		{"no working directory", guestHello, func(_ *node, c *spec.Container) { c.OCI.Process.Cwd = "/not/there" }, `"/not/there"`, false},
		{"unknown proposal", guestHello, func(_ *node, c *spec.Container) { c.Limpet.Proposals = []string{"magic"} }, "unknown WebAssembly proposal", false},
		{"no source of a mount", guestHello, func(_ *node, c *spec.Container) {
			c.OCI.Mounts = []specs.Mount{{Destination: "/data", Source: "/not/there"}}
		}, "mount /data", false},
		{"no network", guestHello, func(_ *node, c *spec.Container) {
			c.OCI.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.NetworkNamespace, Path: "/not/there"}}
		}, "network of the pod", false},
		{"no arguments", guestHello, func(_ *node, c *spec.Container) { c.OCI.Process.Args = nil }, "no arguments", false},
		{"long socket", guestHello, func(_ *node, c *spec.Container) { c.Socket = "/" + strings.Repeat("x", 120) }, "at most 107 bytes", false},
		{"log in no folder", guestHello, func(_ *node, c *spec.Container) { c.Limpet.LogPath = "/not/there/0.log" }, "log", false},
		{"address of nobody", guestHello, func(_ *node, c *spec.Container) {
			c.Limpet.Listen = []spec.Listen{{Address: "203.0.113.1:8080"}}
		}, "listen on 203.0.113.1:8080", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			k := n.container(c.guest)
			if c.change != nil {
				c.change(n, k)
			}
			before := n.census()
			h, err := n.sup.Create(context.Background(), k, nil)
			if c.start && err == nil {
				err = h.Start(context.Background())
				if x := n.ended(h); x.Code != spec.CodeHostFailed || x.Reason != spec.ReasonHostFailed {
					t.Errorf("ended with %+v", x)
				}
				if got := n.output(k, logs.Stderr); !strings.Contains(got, c.want) {
					t.Errorf("the log says %q, want %q in it", got, c.want)
				}
				if err := n.sup.Remove(context.Background(), k); err != nil {
					t.Fatal(err)
				}
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q in it", err, c.want)
			}
			t.Log(err)
			n.compare(before, n.census())
		})
	}
}

// The constructor's refusal reaches the caller too.
func TestCreateFailsInConstructor(t *testing.T) {
	n := newNode(t)
	file := filepath.Join(n.dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c := n.container(guestHello, func(c *spec.Container) {
		// A folder cannot be mounted below a file.
		c.OCI.Mounts = []specs.Mount{{Destination: "/a", Source: file}, {Destination: "/a/b", Source: n.dir}}
	})
	before := n.census()
	_, err := n.sup.Create(context.Background(), c, nil)
	if !errors.Is(err, shim.ErrHostFailed) || !strings.Contains(err.Error(), "confine: ") {
		t.Fatalf("error %v", err)
	}
	t.Log(err)
	n.compare(before, n.census())
}

func TestCreateTwice(t *testing.T) {
	n := newNode(t)
	c := n.container(guestSleep)
	h := n.start(c)
	if _, err := n.sup.Create(context.Background(), c, nil); !errors.Is(err, shim.ErrExists) {
		t.Errorf("second host: %v", err)
	}
	if err := h.Stop(context.Background(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if x := n.ended(h); x.Code != 143 {
		t.Errorf("the first one ended with %+v", x)
	}
}

func TestStartTwice(t *testing.T) {
	n := newNode(t)
	h := n.start(n.container(guestSleep))
	if err := h.Start(context.Background()); !errors.Is(err, shim.ErrInvalid) {
		t.Errorf("second start: %v", err)
	}
}

func TestCancelledCreate(t *testing.T) {
	n := newNode(t)
	c := n.container(guestHello)
	before := n.census()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := n.sup.Create(ctx, c, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	n.compare(before, n.census())
}

// Killed by somebody else: nobody's code, and said so.
func TestKilledFromOutside(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGKILL, unix.SIGSYS} {
		n := newNode(t)
		h := n.start(n.container(guestSleep))
		if err := unix.Kill(h.PID(), sig); err != nil {
			t.Fatal(err)
		}
		x := n.ended(h)
		want := spec.ReasonKilled
		if sig != unix.SIGKILL {
			want = spec.ReasonHostFailed
		}
		if x.Reason != want || x.Code == 0 || x.Message == "" {
			t.Errorf("signal %d: ended with %+v", sig, x)
		}
		t.Log(x.Code, x.Message)
	}
}

func TestMountsAndEnvironment(t *testing.T) {
	n := newNode(t)
	in := filepath.Join(n.dir, "in")
	if err := os.WriteFile(in, []byte("content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// Opens /etc/x/in through the preopen "/" and copies it to stdout.
	guest := `(module
	  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
	  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
	  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
	  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
	  (memory (export "memory") 1)
	  (data (i32.const 100) "etc/x/in")
	  (func (export "_start") (local $e i32)
	    (local.set $e (call $open (i32.const 4) (i32.const 0) (i32.const 100) (i32.const 8) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 16)))
	    (if (local.get $e) (then (call $exit (local.get $e))))
	    (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 100))
	    (drop (call $read (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8)))
	    (i32.store (i32.const 4) (i32.load (i32.const 8)))
	    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))`
	c := n.container(guest, func(c *spec.Container) {
		c.OCI.Mounts = []specs.Mount{
			{Destination: "/etc/x/in", Source: in, Options: []string{"ro"}}, // before the one it lies in
			{Destination: "/etc/x", Source: t.TempDir()},
		}
	})
	x := n.ended(n.start(c))
	if got := n.output(c, logs.Stdout); x.Code != 0 || got != "content\n" {
		t.Errorf("ended with %+v, wrote %q", x, got)
	}
}
