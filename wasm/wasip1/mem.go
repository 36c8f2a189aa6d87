package wasip1

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm/wasi"
)

var le = binary.LittleEndian

// slice returns n bytes of guest memory at ptr.
func slice(mem []byte, ptr, n uint32) ([]byte, error) {
	end := uint64(ptr) + uint64(n)
	if end > uint64(len(mem)) {
		return nil, unix.EFAULT
	}
	return mem[ptr:end:end], nil
}

// array returns n elements of size bytes each at ptr.
func array(mem []byte, ptr, n, size uint32) ([]byte, error) {
	total := uint64(n) * uint64(size)
	if total > uint64(len(mem)) {
		return nil, unix.EFAULT
	}
	return slice(mem, ptr, uint32(total))
}

// text returns a string that lies in guest memory; it is valid for the call,
// during which nothing changes guest memory but the call itself.
func text(mem []byte, ptr, n uint32) (string, error) {
	if n > wasi.MaxPath {
		return "", unix.ENAMETOOLONG
	}
	p, err := slice(mem, ptr, n)
	if err != nil || n == 0 {
		return "", err
	}
	return unsafe.String(&p[0], len(p)), nil
}

// out returns the place of a result of size bytes. It is taken before a call
// does anything, so that nothing is done that cannot be reported.
func out(mem []byte, ptr, size uint32) ([]byte, error) { return slice(mem, ptr, size) }

// buffers gathers the parts that n iovecs at ptr describe.
func (g *guest) buffers(mem []byte, ptr, n uint32) (*wasi.Buffers, error) {
	if n > wasi.MaxVectors {
		return nil, unix.EINVAL
	}
	vec, err := array(mem, ptr, n, 8)
	if err != nil {
		return nil, err
	}
	b := g.sys.Buffers()
	for ; len(vec) >= 8; vec = vec[8:] {
		p, err := slice(mem, le.Uint32(vec), le.Uint32(vec[4:]))
		if err != nil {
			b.Release()
			return nil, err
		}
		if !b.Add(p) {
			b.Release()
			return nil, unix.EINVAL
		}
	}
	return b, nil
}
