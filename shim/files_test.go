package shim

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/cgroup"
	"github.com/limpet-cri/limpet/shim/confine"
	"github.com/limpet-cri/limpet/shim/spec"
)

func TestParseLock(t *testing.T) {
	for _, c := range []struct {
		in   string
		want process
		ok   bool
	}{
		{"12 345\n", process{12, 345}, true},
		{"12 345", process{}, false}, // still being written
		{"12\n", process{}, false},
		{"0 345\n", process{}, false},
		{"-1 345\n", process{}, false},
		{"99999999999 1\n", process{}, false},
		{"12 345 6\n", process{}, false},
		{" 12 345\n", process{}, false},
		{"", process{}, false},
	} {
		got, err := parseLock([]byte(c.in))
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%q: %+v, %v", c.in, got, err)
		}
	}
}

func FuzzLock(f *testing.F) {
	f.Add([]byte("12 345\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parseLock(b); err == nil && p.pid <= 0 {
			t.Fatalf("%q gave %+v", b, p)
		}
	})
}

func TestStartTime(t *testing.T) {
	a, err := startTime(os.Getpid())
	if err != nil || a == 0 {
		t.Fatalf("%d, %v", a, err)
	}
	if b, err := startTime(os.Getpid()); err != nil || a != b {
		t.Errorf("it changes: %d, %d, %v", a, b, err)
	}
	if _, err := startTime(1 << 30); err == nil {
		t.Error("a process that cannot be has a start time")
	}
}

// A process's wait status comes whole through its pidfd.
func TestReap(t *testing.T) {
	for _, c := range []struct {
		script string
		code   int
		signal unix.Signal
	}{{"exit 7", 7, 0}, {"exit 0", 0, 0}, {"kill -9 $$", 0, unix.SIGKILL}, {"kill -31 $$", 0, unix.SIGSYS}} {
		cmd := exec.Command("/bin/sh", "-c", c.script)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
		if err != nil {
			t.Skip("needs pidfd_open: ", err)
		}
		f, err := pidfdFile(fd)
		if err != nil {
			t.Fatal(err)
		}
		if err := awaitEnd(f); err != nil {
			t.Fatal(err)
		}
		ws, ok := reap(f)
		if !ok || ws.Exited() != (c.signal == 0) || c.signal == 0 && ws.ExitStatus() != c.code || c.signal != 0 && ws.Signal() != c.signal {
			t.Errorf("%s: %x, %v", c.script, ws, ok)
		}
		if _, ok := reap(f); ok {
			t.Errorf("%s: reaped twice", c.script)
		}
		f.Close()
	}
}

func TestPorts(t *testing.T) {
	for address, want := range map[string]uint16{
		":80": 80, "127.0.0.1:8080": 8080, "[::1]:9": 9,
		":0": 0, ":65536": 0, "localhost:80": 0, "80": 0, "": 0, "127.0.0.1:0": 0, "127.0.0.1": 0,
	} {
		got, err := port(address)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v", address, got, err)
		}
	}
}

func TestInFull(t *testing.T) {
	got := inFull([]spec.Listen{{Address: ":80"}, {Address: "1.2.3.4:80"}, {Address: "[fe80::1%eth0]:80"}})
	want := []spec.Listen{{Address: ":80"}, {Address: "1.2.3.4:80"}, {Address: "[fe80:0000:0000:0000:0000:0000:0000:0001]:80"}}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got[i], want[i])
		}
	}
}

func TestDiagnosticsAreBounded(t *testing.T) {
	dir := t.TempDir()
	text := "panic: \xff\n\n" + strings.Repeat("line\n", 1000)
	if err := os.WriteFile(dir+"/"+spec.FileDiagnostics, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := diagnostics(dir), "panic: ? | line | line | line | line"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := diagnostics(dir + "/not"); got != "" {
		t.Errorf("got %q from nothing", got)
	}
}

// What the kernel's Landlock lacks is told, each part of it, and what it has
// is not.
func TestMissingLandlock(t *testing.T) {
	for abi, want := range map[int]int{0: 1, 1: 1, 2: 4, 3: 3, 4: 2, 5: 1, 6: 0, 7: 0} {
		var told bytes.Buffer
		s := &Supervisor{log: slog.New(slog.NewTextHandler(&told, nil)), cfg: Config{Cgroups: &cgroup.Hierarchy{}}}
		s.logMissing(abi)
		if got := strings.Count(told.String(), "the kernel lacks something"); got != want {
			t.Errorf("version %d: %d lines, want %d:\n%s", abi, got, want, told.String())
		}
	}
}

// What the kernel is told to keep read-only, the host is told too.
func TestPayloadTellsOfReadOnly(t *testing.T) {
	c := &spec.Container{OCI: &specs.Spec{Process: &specs.Process{}}}
	order := &confine.Order{Root: confine.Root{ReadOnly: true}, Mounts: []confine.Mount{{Path: "/ro"}, {Path: "/rw", Writable: true}}}
	p := payloadOf(c, order)
	if !p.ReadonlyRoot || !slices.Equal(p.Readonly, []string{"/ro"}) || !slices.Equal(p.Writable, []string{"/rw"}) {
		t.Errorf("%+v", p)
	}
	order.Root.ReadOnly = false
	if payloadOf(c, order).ReadonlyRoot {
		t.Error("a writable root is told as read-only")
	}
}
