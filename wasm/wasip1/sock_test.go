package wasip1

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm"
	"github.com/limpet-cri/limpet/wasm/wasi"
)

func TestSockets(t *testing.T) {
	b := newBlocker(t)
	b.ok("fd_fdstat_set_flags", b.listener, uint64(wasi.FlagNonblock))
	if e := b.call("sock_accept", b.listener, 0, atOut); e != errnoAgain {
		t.Fatal(e)
	}
	client := b.connect()
	b.ok("sock_accept", b.listener, uint64(wasi.FlagNonblock), atOut)
	fd := uint64(b.u32(atOut))
	b.ok("fd_fdstat_get", fd, atOut)
	if b.mem[atOut] != byte(wasi.TypeSocketStream) || le.Uint16(b.mem[atOut+2:]) != uint16(wasi.FlagNonblock) {
		t.Fatal(b.mem[atOut : atOut+24])
	}
	p, n := b.vec("0123456789")
	if e := b.call("sock_recv", fd, p, n, 0, atOut, atOut+8); e != errnoAgain {
		t.Fatal(e)
	}
	unix.Write(client, []byte("hello"))
	b.subscribe(0, 1, 1, fd, 0)
	b.poll(1)
	for _, flags := range []uint64{1, 1, 0} { // peek, peek, take
		p, n = b.vec("0123456789")
		b.ok("sock_recv", fd, p, n, flags, atOut, atOut+8)
		if s := string(b.mem[atData : atData+int(b.u32(atOut))]); s != "hello" {
			t.Fatal(s)
		}
	}
	p, n = b.vec("answer")
	b.ok("sock_send", fd, p, n, 0, atOut)
	buf := make([]byte, 10)
	if m, err := unix.Read(client, buf); string(buf[:max(m, 0)]) != "answer" {
		t.Fatal(m, err)
	}
	b.ok("sock_shutdown", fd, 2)
	if m, err := unix.Read(client, buf); m != 0 || err != nil {
		t.Fatal(m, err)
	}
	if e := b.call("sock_send", fd, p, n, 0, atOut); e != errnoPipe {
		t.Fatal(e)
	}
	for name, want := range map[string]Errno{"not a socket": errnoNotsock, "a listener": errnoNotconn, "closed": errnoBadf} {
		fd := map[string]uint64{"not a socket": 3, "a listener": b.listener, "closed": 99}[name]
		if e := b.call("sock_send", fd, p, n, 0, atOut); e != want {
			t.Errorf("sock_send to %s: errno %d, want %d", name, e, want)
		}
		if e := b.call("sock_shutdown", fd, 3); e != want {
			t.Errorf("sock_shutdown of %s: errno %d, want %d", name, e, want)
		}
	}
}

func TestExit(t *testing.T) {
	c := rooted(t, t.TempDir())
	for _, code := range []uint64{0, 3, 255, 1 << 31} {
		_, err := c.raw("proc_exit", code)
		var exit *wasm.Exit
		if !errors.As(err, &exit) || uint64(exit.Code) != code {
			t.Fatal(err)
		}
	}
	for sig, want := range map[uint64]uint32{2: 130, 6: 134, 15: 143, 30: 159} {
		_, err := c.raw("proc_raise", sig)
		var exit *wasm.Exit
		if !errors.As(err, &exit) || exit.Code != want {
			t.Fatalf("signal %d: %v", sig, err)
		}
	}
	for sig, want := range map[uint64]Errno{0: 0, 16: 0, 17: 0, 18: errnoNotsup, 22: 0, 27: 0, 31: errnoInval} {
		if e := c.call("proc_raise", sig); e != want {
			t.Errorf("signal %d: errno %d", sig, e)
		}
	}
}
