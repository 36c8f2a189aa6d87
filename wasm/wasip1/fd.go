package wasip1

import (
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm"
	"github.com/limpet-cri/limpet/wasm/wasi"
)

func fdAdvise(g *guest, mem []byte, a []wasm.Raw) error {
	advice := [...]int{
		unix.FADV_NORMAL, unix.FADV_SEQUENTIAL, unix.FADV_RANDOM,
		unix.FADV_WILLNEED, unix.FADV_DONTNEED, unix.FADV_NOREUSE,
	}
	n := a[3].I32()
	if n >= uint32(len(advice)) {
		return unix.EINVAL
	}
	return g.sys.Advise(a[0].I32(), a[1].I64(), a[2].I64(), advice[n])
}

func fdAllocate(g *guest, mem []byte, a []wasm.Raw) error {
	return g.sys.Allocate(a[0].I32(), a[1].I64(), a[2].I64())
}

func fdClose(g *guest, mem []byte, a []wasm.Raw) error    { return g.sys.CloseFD(a[0].I32()) }
func fdDatasync(g *guest, mem []byte, a []wasm.Raw) error { return g.sys.Sync(a[0].I32(), true) }
func fdSync(g *guest, mem []byte, a []wasm.Raw) error     { return g.sys.Sync(a[0].I32(), false) }

func fdRenumber(g *guest, mem []byte, a []wasm.Raw) error {
	return g.sys.Renumber(a[0].I32(), a[1].I32())
}

func fdFdstatGet(g *guest, mem []byte, a []wasm.Raw) error {
	p, err := out(mem, a[1].I32(), 24)
	if err != nil {
		return err
	}
	st, err := g.sys.Fdstat(a[0].I32())
	if err != nil {
		return err
	}
	clear(p)
	p[0] = uint8(st.Type)
	le.PutUint16(p[2:], uint16(st.Flags))
	le.PutUint64(p[8:], uint64(st.Base))
	le.PutUint64(p[16:], uint64(st.Inheriting))
	return nil
}

func fdFdstatSetFlags(g *guest, mem []byte, a []wasm.Raw) error {
	flags := a[1].I32()
	if flags > 0xffff {
		return unix.EINVAL
	}
	return g.sys.SetFlags(a[0].I32(), wasi.FDFlags(flags))
}

func fdFdstatSetRights(g *guest, mem []byte, a []wasm.Raw) error {
	return g.sys.SetRights(a[0].I32(), wasi.Rights(a[1].I64()), wasi.Rights(a[2].I64()))
}

func fdFilestatGet(g *guest, mem []byte, a []wasm.Raw) error {
	p, err := g.filestatOut(mem, a[1].I32())
	if err != nil {
		return err
	}
	st, err := g.sys.Stat(a[0].I32())
	if err != nil {
		return err
	}
	g.putFilestat(p, &st)
	return nil
}

func (g *guest) filestatOut(mem []byte, ptr uint32) ([]byte, error) {
	if g.unstable {
		return out(mem, ptr, 56)
	}
	return out(mem, ptr, 64)
}

// putFilestat writes a filestat; wasi_unstable's has a 32-bit link count.
func (g *guest) putFilestat(p []byte, st *wasi.Filestat) {
	clear(p)
	le.PutUint64(p, st.Dev)
	le.PutUint64(p[8:], st.Ino)
	p[16] = uint8(st.Type)
	rest := p[32:]
	if g.unstable {
		le.PutUint32(p[20:], uint32(min(st.Nlink, 1<<32-1)))
		rest = p[24:]
	} else {
		le.PutUint64(p[24:], st.Nlink)
	}
	le.PutUint64(rest, st.Size)
	le.PutUint64(rest[8:], st.Atim)
	le.PutUint64(rest[16:], st.Mtim)
	le.PutUint64(rest[24:], st.Ctim)
}

func fdFilestatSetSize(g *guest, mem []byte, a []wasm.Raw) error {
	return g.sys.SetSize(a[0].I32(), a[1].I64())
}

func fdFilestatSetTimes(g *guest, mem []byte, a []wasm.Raw) error {
	flags := a[3].I32()
	if flags > 0xffff {
		return unix.EINVAL
	}
	return g.sys.SetTimes(a[0].I32(), a[1].I64(), a[2].I64(), wasi.TimeFlags(flags))
}

func fdPrestatGet(g *guest, mem []byte, a []wasm.Raw) error {
	p, err := out(mem, a[1].I32(), 8)
	if err != nil {
		return err
	}
	name, err := g.sys.Prestat(a[0].I32())
	if err != nil {
		return err
	}
	le.PutUint32(p, 0) // a folder; there is no other kind
	le.PutUint32(p[4:], uint32(len(name)))
	return nil
}

func fdPrestatDirName(g *guest, mem []byte, a []wasm.Raw) error {
	p, err := out(mem, a[1].I32(), a[2].I32())
	if err != nil {
		return err
	}
	name, err := g.sys.Prestat(a[0].I32())
	if err != nil {
		return err
	}
	if len(p) < len(name) {
		return unix.ENAMETOOLONG
	}
	copy(p, name)
	return nil
}

// transfer runs one vectored call on the iovecs at a[1], a[2] and writes the
// number of bytes to ptr.
func (g *guest) transfer(mem []byte, a []wasm.Raw, ptr uint32, do func(*wasi.System, uint32, *wasi.Buffers, uint64) (int, error), offset uint64) error {
	p, err := out(mem, ptr, 4)
	if err != nil {
		return err
	}
	b, err := g.buffers(mem, a[1].I32(), a[2].I32())
	if err != nil {
		return err
	}
	n, err := do(g.sys, a[0].I32(), b, offset)
	b.Release()
	if err != nil {
		return err
	}
	le.PutUint32(p, uint32(n))
	return nil
}

func fdRead(g *guest, mem []byte, a []wasm.Raw) error {
	return g.transfer(mem, a, a[3].I32(), read, 0)
}

func fdWrite(g *guest, mem []byte, a []wasm.Raw) error {
	return g.transfer(mem, a, a[3].I32(), write, 0)
}

func fdPread(g *guest, mem []byte, a []wasm.Raw) error {
	return g.transfer(mem, a, a[4].I32(), (*wasi.System).ReadAt, a[3].I64())
}

func fdPwrite(g *guest, mem []byte, a []wasm.Raw) error {
	return g.transfer(mem, a, a[4].I32(), (*wasi.System).WriteAt, a[3].I64())
}

func read(s *wasi.System, fd uint32, b *wasi.Buffers, _ uint64) (int, error) { return s.Read(fd, b) }

func write(s *wasi.System, fd uint32, b *wasi.Buffers, _ uint64) (int, error) { return s.Write(fd, b) }

func fdSeek(g *guest, mem []byte, a []wasm.Raw) error {
	whence := [...]int{unix.SEEK_SET, unix.SEEK_CUR, unix.SEEK_END}
	if g.unstable {
		whence = [...]int{unix.SEEK_CUR, unix.SEEK_END, unix.SEEK_SET}
	}
	n := a[2].I32()
	if n >= uint32(len(whence)) {
		return unix.EINVAL
	}
	return g.seek(mem, a[0].I32(), int64(a[1].I64()), whence[n], a[3].I32())
}

func fdTell(g *guest, mem []byte, a []wasm.Raw) error {
	return g.seek(mem, a[0].I32(), 0, unix.SEEK_CUR, a[1].I32())
}

func (g *guest) seek(mem []byte, fd uint32, offset int64, whence int, ptr uint32) error {
	p, err := out(mem, ptr, 8)
	if err != nil {
		return err
	}
	n, err := g.sys.Seek(fd, offset, whence)
	if err != nil {
		return err
	}
	le.PutUint64(p, n)
	return nil
}

// fdReaddir fills the buffer to its last byte unless the folder ends before:
// a guest takes a full buffer as a sign that there is more, and a cut entry as
// one to ask for again.
func fdReaddir(g *guest, mem []byte, a []wasm.Raw) error {
	size, err := out(mem, a[4].I32(), 4)
	if err != nil {
		return err
	}
	p, err := out(mem, a[1].I32(), a[2].I32())
	if err != nil {
		return err
	}
	n := 0
	err = g.sys.ReadDir(a[0].I32(), a[3].I64(), len(p), func(e *wasi.Dirent) bool {
		var head [24]byte
		le.PutUint64(head[0:], e.Next)
		le.PutUint64(head[8:], e.Ino)
		le.PutUint32(head[16:], uint32(len(e.Name)))
		head[20] = uint8(e.Type)
		n += copy(p[n:], head[:])
		n += copy(p[n:], e.Name)
		return n < len(p)
	})
	if err != nil {
		return err
	}
	le.PutUint32(size, uint32(n))
	return nil
}
