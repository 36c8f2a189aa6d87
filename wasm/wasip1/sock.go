package wasip1

import (
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm"
	"github.com/limpet-cri/limpet/wasm/wasi"
)

// Bits of the flags of sock_recv and sock_shutdown.
const (
	recvPeek      = 1
	recvWaitall   = 2
	recvTruncated = 1
	shutRead      = 1
	shutWrite     = 2
)

func sockAccept(g *guest, mem []byte, a []wasm.Raw) error {
	p, err := out(mem, a[2].I32(), 4)
	if err != nil {
		return err
	}
	flags := a[1].I32()
	if flags > 0xffff {
		return unix.EINVAL
	}
	fd, err := g.sys.Accept(a[0].I32(), wasi.FDFlags(flags))
	if err != nil {
		return err
	}
	le.PutUint32(p, fd)
	return nil
}

func sockRecv(g *guest, mem []byte, a []wasm.Raw) error {
	flags := a[3].I32()
	if flags&^(recvPeek|recvWaitall) != 0 {
		return unix.EOPNOTSUPP
	}
	size, err := out(mem, a[4].I32(), 4)
	if err != nil {
		return err
	}
	ro, err := out(mem, a[5].I32(), 2)
	if err != nil {
		return err
	}
	b, err := g.buffers(mem, a[1].I32(), a[2].I32())
	if err != nil {
		return err
	}
	n, truncated, err := g.sys.Receive(a[0].I32(), b, flags&recvPeek != 0, flags&recvWaitall != 0)
	b.Release()
	if err != nil {
		return err
	}
	le.PutUint32(size, uint32(n))
	le.PutUint16(ro, 0)
	if truncated {
		le.PutUint16(ro, recvTruncated)
	}
	return nil
}

func sockSend(g *guest, mem []byte, a []wasm.Raw) error {
	if a[3].I32() != 0 {
		return unix.EOPNOTSUPP // there are no flags yet
	}
	return g.transfer(mem, a, a[4].I32(), send, 0)
}

func send(s *wasi.System, fd uint32, b *wasi.Buffers, _ uint64) (int, error) { return s.Send(fd, b) }

func sockShutdown(g *guest, mem []byte, a []wasm.Raw) error {
	how := a[1].I32()
	if how&^(shutRead|shutWrite) != 0 {
		return unix.EINVAL
	}
	return g.sys.Shutdown(a[0].I32(), how&shutRead != 0, how&shutWrite != 0)
}
