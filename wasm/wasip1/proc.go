package wasip1

import (
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm"
	"github.com/limpet-cri/limpet/wasm/wasi"
)

func argsGet(g *guest, mem []byte, a []wasm.Raw) error {
	return putStrings(mem, g.sys.Args(), a[0].I32(), a[1].I32())
}

func argsSizesGet(g *guest, mem []byte, a []wasm.Raw) error {
	return sizes(mem, g.sys.Args(), a[0].I32(), a[1].I32())
}

func environGet(g *guest, mem []byte, a []wasm.Raw) error {
	return putStrings(mem, g.sys.Env(), a[0].I32(), a[1].I32())
}

func environSizesGet(g *guest, mem []byte, a []wasm.Raw) error {
	return sizes(mem, g.sys.Env(), a[0].I32(), a[1].I32())
}

// total is the size of the strings, each with its NUL. wasi.MaxStrings bounds
// it.
func total(list []string) uint32 {
	n := 0
	for _, s := range list {
		n += len(s) + 1
	}
	return uint32(n)
}

func sizes(mem []byte, list []string, count, size uint32) error {
	c, err := out(mem, count, 4)
	if err != nil {
		return err
	}
	n, err := out(mem, size, 4)
	if err != nil {
		return err
	}
	le.PutUint32(c, uint32(len(list)))
	le.PutUint32(n, total(list))
	return nil
}

// putStrings writes the strings to buf and the pointers to them to ptrs.
func putStrings(mem []byte, list []string, ptrs, buf uint32) error {
	table, err := array(mem, ptrs, uint32(len(list)), 4)
	if err != nil {
		return err
	}
	p, err := out(mem, buf, total(list))
	if err != nil {
		return err
	}
	for i, s := range list {
		le.PutUint32(table[4*i:], buf)
		n := copy(p, s)
		p[n] = 0
		p = p[n+1:]
		buf += uint32(n + 1)
	}
	return nil
}

func clockResGet(g *guest, mem []byte, a []wasm.Raw) error {
	p, err := out(mem, a[1].I32(), 8)
	if err != nil {
		return err
	}
	t, err := g.sys.Resolution(wasi.ClockID(a[0].I32()))
	if err != nil {
		return err
	}
	le.PutUint64(p, t)
	return nil
}

func clockTimeGet(g *guest, mem []byte, a []wasm.Raw) error {
	p, err := out(mem, a[2].I32(), 8)
	if err != nil {
		return err
	}
	t, err := g.sys.Now(wasi.ClockID(a[0].I32()))
	if err != nil {
		return err
	}
	le.PutUint64(p, t)
	return nil
}

func randomGet(g *guest, mem []byte, a []wasm.Raw) error {
	p, err := out(mem, a[0].I32(), a[1].I32())
	if err != nil {
		return err
	}
	return g.sys.Random(p)
}

func schedYield(g *guest, mem []byte, a []wasm.Raw) error {
	g.sys.Yield()
	return nil
}

func procExit(g *guest, mem []byte, a []wasm.Raw) error {
	if err := g.sys.Err(); err != nil {
		return err
	}
	return &wasm.Exit{Code: a[0].I32()}
}

// Signals of preview 1 that are not deadly without a handler, which a guest
// cannot have.
const (
	sigNone = 0
	sigChld = 16
	sigCont = 17
	sigStop = 18
	sigTtou = 21
	sigUrg  = 22
	sigWnch = 27
	sigSys  = 30
)

// procRaise does what the signal does to a program without a handler: it
// ends with 128 + signal, the signal's number being Linux's.
func procRaise(g *guest, mem []byte, a []wasm.Raw) error {
	linux := [sigSys + 1]uint8{
		0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, // none to term
		17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, // chld to sys
	}
	switch n := a[0].I32(); {
	case n > sigSys:
		return unix.EINVAL
	case n == sigNone || n == sigChld || n == sigCont || n == sigUrg || n == sigWnch:
		return nil
	case n >= sigStop && n <= sigTtou:
		return unix.EOPNOTSUPP
	default:
		return &wasm.Exit{Code: 128 + uint32(linux[n])}
	}
}
