package wasip1

import (
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm"
	"github.com/limpet-cri/limpet/wasm/wasi"
)

// lookup decodes lookupflags, whose only bit says to follow a link at the end.
func lookup(flags uint32) (follow bool, err error) {
	if flags > 1 {
		return false, unix.EINVAL
	}
	return flags == 1, nil
}

func pathCreateDirectory(g *guest, mem []byte, a []wasm.Raw) error {
	path, err := text(mem, a[1].I32(), a[2].I32())
	if err != nil {
		return err
	}
	return g.sys.CreateDirectory(a[0].I32(), path)
}

func pathRemoveDirectory(g *guest, mem []byte, a []wasm.Raw) error {
	path, err := text(mem, a[1].I32(), a[2].I32())
	if err != nil {
		return err
	}
	return g.sys.RemoveDirectory(a[0].I32(), path)
}

func pathUnlinkFile(g *guest, mem []byte, a []wasm.Raw) error {
	path, err := text(mem, a[1].I32(), a[2].I32())
	if err != nil {
		return err
	}
	return g.sys.UnlinkFile(a[0].I32(), path)
}

func pathFilestatGet(g *guest, mem []byte, a []wasm.Raw) error {
	follow, err := lookup(a[1].I32())
	if err != nil {
		return err
	}
	path, err := text(mem, a[2].I32(), a[3].I32())
	if err != nil {
		return err
	}
	p, err := g.filestatOut(mem, a[4].I32())
	if err != nil {
		return err
	}
	st, err := g.sys.StatPath(a[0].I32(), follow, path)
	if err != nil {
		return err
	}
	g.putFilestat(p, &st)
	return nil
}

func pathFilestatSetTimes(g *guest, mem []byte, a []wasm.Raw) error {
	follow, err := lookup(a[1].I32())
	if err != nil {
		return err
	}
	path, err := text(mem, a[2].I32(), a[3].I32())
	if err != nil {
		return err
	}
	flags := a[6].I32()
	if flags > 0xffff {
		return unix.EINVAL
	}
	return g.sys.SetTimesPath(a[0].I32(), follow, path, a[4].I64(), a[5].I64(), wasi.TimeFlags(flags))
}

func pathLink(g *guest, mem []byte, a []wasm.Raw) error {
	follow, err := lookup(a[1].I32())
	if err != nil {
		return err
	}
	old, err := text(mem, a[2].I32(), a[3].I32())
	if err != nil {
		return err
	}
	path, err := text(mem, a[5].I32(), a[6].I32())
	if err != nil {
		return err
	}
	return g.sys.Link(a[0].I32(), follow, old, a[4].I32(), path)
}

func pathOpen(g *guest, mem []byte, a []wasm.Raw) error {
	follow, err := lookup(a[1].I32())
	if err != nil {
		return err
	}
	path, err := text(mem, a[2].I32(), a[3].I32())
	if err != nil {
		return err
	}
	p, err := out(mem, a[8].I32(), 4)
	if err != nil {
		return err
	}
	oflags, flags := a[4].I32(), a[7].I32()
	if oflags > 0xffff || flags > 0xffff {
		return unix.EINVAL
	}
	fd, err := g.sys.Open(a[0].I32(), follow, path, wasi.OpenFlags(oflags),
		wasi.Rights(a[5].I64()), wasi.Rights(a[6].I64()), wasi.FDFlags(flags))
	if err != nil {
		return err
	}
	le.PutUint32(p, fd)
	return nil
}

func pathReadlink(g *guest, mem []byte, a []wasm.Raw) error {
	path, err := text(mem, a[1].I32(), a[2].I32())
	if err != nil {
		return err
	}
	buf, err := out(mem, a[3].I32(), a[4].I32())
	if err != nil {
		return err
	}
	size, err := out(mem, a[5].I32(), 4)
	if err != nil {
		return err
	}
	n, err := g.sys.Readlink(a[0].I32(), path, buf)
	if err != nil {
		return err
	}
	le.PutUint32(size, uint32(n))
	return nil
}

func pathRename(g *guest, mem []byte, a []wasm.Raw) error {
	old, err := text(mem, a[1].I32(), a[2].I32())
	if err != nil {
		return err
	}
	path, err := text(mem, a[4].I32(), a[5].I32())
	if err != nil {
		return err
	}
	return g.sys.Rename(a[0].I32(), old, a[3].I32(), path)
}

func pathSymlink(g *guest, mem []byte, a []wasm.Raw) error {
	target, err := text(mem, a[0].I32(), a[1].I32())
	if err != nil {
		return err
	}
	path, err := text(mem, a[3].I32(), a[4].I32())
	if err != nil {
		return err
	}
	return g.sys.Symlink(target, a[2].I32(), path)
}
