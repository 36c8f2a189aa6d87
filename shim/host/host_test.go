package host

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/logs"
	"github.com/limpet-cri/limpet/shim/spec"
	"github.com/limpet-cri/limpet/wasm"
	"github.com/limpet-cri/limpet/wasm/wasi"
	"github.com/limpet-cri/limpet/wasm/wasmtime"
)

func TestParseAddress(t *testing.T) {
	for _, c := range []struct {
		in   string
		port int
		sa   unix.Sockaddr // nil: all
	}{
		{":8080", 8080, nil},
		{"127.0.0.1:80", 80, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{127, 0, 0, 1}}},
		{"[0000:0000:0000:0000:0000:0000:0000:0001]:1", 1, &unix.SockaddrInet6{Port: 1, Addr: [16]byte{15: 1}}},
		{"[fe80:0:0:0:0:0:a:ffff]:1", 1, &unix.SockaddrInet6{Port: 1, Addr: [16]byte{0xfe, 0x80, 13: 0xa, 14: 0xff, 15: 0xff}}},
	} {
		sa, port, err := parseAddress(c.in)
		if err != nil || port != c.port {
			t.Errorf("%q: %d, %v", c.in, port, err)
			continue
		}
		switch want := c.sa.(type) {
		case nil:
			if sa != nil {
				t.Errorf("%q: %+v", c.in, sa)
			}
		case *unix.SockaddrInet4:
			if got, ok := sa.(*unix.SockaddrInet4); !ok || got.Addr != want.Addr || got.Port != want.Port {
				t.Errorf("%q: %+v", c.in, sa)
			}
		case *unix.SockaddrInet6:
			if got, ok := sa.(*unix.SockaddrInet6); !ok || got.Addr != want.Addr || got.Port != want.Port {
				t.Errorf("%q: %+v", c.in, sa)
			}
		}
	}
	for _, bad := range []string{"", ":", ":0", ":65536", "80", "1.2.3:80", "1.2.3.4.5:80", "1.2.3.256:80", "a.b.c.d:80",
		"[::1]:80", "[1:2:3:4:5:6:7:8:9]:80", "[1:2:3:4:5:6:7:8:80", "[10000:2:3:4:5:6:7:8]:80", "localhost:80", ":+1"} {
		if sa, port, err := parseAddress(bad); err == nil {
			t.Errorf("%q was taken as %+v, %d", bad, sa, port)
		}
	}
}

// What a profile may name is what the engine knows.
func TestProposals(t *testing.T) {
	if !slices.Equal(spec.Proposals(), wasmtime.Known()) {
		t.Errorf("spec has %q, the engine %q", spec.Proposals(), wasmtime.Known())
	}
}

func FuzzAddress(f *testing.F) {
	f.Add("[1:2:3:4:5:6:7:8]:80")
	f.Add(":80")
	f.Fuzz(func(t *testing.T, s string) {
		if _, port, err := parseAddress(s); err == nil && (port < 1 || port > 65535) {
			t.Fatalf("%q: port %d", s, port)
		}
	})
}

func TestListen(t *testing.T) {
	fd, err := listen("127.0.0.1:39124")
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := listen("127.0.0.1:39124"); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("twice: %v", err)
	}
	all, err := listen(":39125")
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(all)
}

func TestOutcome(t *testing.T) {
	fd, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{p: &spec.Payload{Module: "a.wasm"}, log: logs.New(fd)}
	long := &wasm.Trap{Code: wasm.TrapStackOverflow}
	for range 20 {
		long.Frames = append(long.Frames, wasm.Frame{Func: strings.Repeat("f", 300)})
	}
	foreign := &wasm.Trap{Code: wasm.TrapUnreachable} // names whose cuts fall inside of a character
	for i := range 4 {
		foreign.Frames = append(foreign.Frames, wasm.Frame{Func: strings.Repeat("f", i) + strings.Repeat("\u4e16", 100)})
	}
	for _, c := range []struct {
		err     error
		code    int32
		reason  spec.Reason
		message string
	}{
		{nil, 0, spec.ReasonCompleted, ""},
		{&wasm.Exit{Code: 0}, 0, spec.ReasonCompleted, ""},
		{&wasm.Exit{Code: 0x1ff}, 255, spec.ReasonError, ""},
		{&wasm.Exit{Code: 0x100}, 0, spec.ReasonCompleted, ""},
		{&wasm.Trap{Code: wasm.TrapUnreachable}, 134, spec.ReasonTrap, "wasm trap: unreachable executed"},
		{long, 134, spec.ReasonTrap, "all frames are in the log"},
		{foreign, 134, spec.ReasonTrap, "a.wasm!\u4e16"},
		{errors.New("no such thing"), 128, spec.ReasonHostFailed, "a.wasm cannot run: no such thing"},
	} {
		x := h.outcome(c.err)
		if x.Code != c.code || x.Reason != c.reason || !strings.Contains(x.Message, c.message) || len(x.Message) > spec.MaxMessage {
			t.Errorf("%v: %+v", c.err, x)
		}
		if !utf8.ValidString(x.Message) { // CRI's messages cannot carry it
			t.Errorf("%v: %q", c.err, x.Message)
		}
		if lines := strings.Count(x.Message, "\n"); lines > messageLines {
			t.Errorf("%v: %d lines", c.err, lines)
		}
	}
}

// Each of the 256 exit codes comes through, from the guest into the record and
// out of it.
func TestEveryExitCode(t *testing.T) {
	h := &host{}
	for code := range uint32(256) {
		x := h.outcome(&wasm.Exit{Code: code})
		x.At = time.Unix(1, 0)
		got, err := spec.DecodeExit(x.Encode())
		if err != nil || got.Code != int32(code) || (got.Reason == spec.ReasonCompleted) != (code == 0) || got.Message != "" {
			t.Errorf("code %d: %+v, %v", code, got, err)
		}
	}
}

// What limpetd says is read-only, the host holds to be so beside the kernel.
func TestReadOnlyByUs(t *testing.T) {
	h := &host{p: &spec.Payload{ReadonlyRoot: true, Readonly: []string{"/ro"}, Writable: []string{"/rw"}}, log: logs.New(-1)}
	c := h.config(7)
	if want := []wasi.Preopen{{Name: "/", FD: 7, Root: true, ReadOnly: true}}; !slices.Equal(c.Preopens, want) {
		t.Errorf("preopens %+v, want %+v", c.Preopens, want)
	}
	if want := []wasi.Place{{Path: "/ro", ReadOnly: true}, {Path: "/rw"}}; !slices.Equal(c.Places, want) {
		t.Errorf("places %+v, want %+v", c.Places, want)
	}
}
