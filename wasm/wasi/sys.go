package wasi

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// System calls that golang.org/x/sys/unix has only in a form that allocates:
// paths come as NUL-terminated buffers, vectors as they are for the kernel.
// Each pointer stays valid for the call: it is into a buffer of the System or
// into guest memory, which the caller holds.

func sysOpenat2(dir int, path *byte, how *unix.OpenHow) (int, error) {
	n, _, e := unix.Syscall6(unix.SYS_OPENAT2, uintptr(dir), uintptr(unsafe.Pointer(path)),
		uintptr(unsafe.Pointer(how)), unsafe.Sizeof(*how), 0, 0)
	return result(n, e)
}

func sysMkdirat(dir int, path *byte, mode uint32) error {
	_, _, e := unix.Syscall(unix.SYS_MKDIRAT, uintptr(dir), uintptr(unsafe.Pointer(path)), uintptr(mode))
	return failure(e)
}

func sysUnlinkat(dir int, path *byte, flags int) error {
	_, _, e := unix.Syscall(unix.SYS_UNLINKAT, uintptr(dir), uintptr(unsafe.Pointer(path)), uintptr(flags))
	return failure(e)
}

func sysRenameat2(oldDir int, old *byte, newDir int, to *byte) error {
	_, _, e := unix.Syscall6(unix.SYS_RENAMEAT2, uintptr(oldDir), uintptr(unsafe.Pointer(old)),
		uintptr(newDir), uintptr(unsafe.Pointer(to)), 0, 0)
	return failure(e)
}

func sysLinkat(oldDir int, old *byte, newDir int, to *byte) error {
	_, _, e := unix.Syscall6(unix.SYS_LINKAT, uintptr(oldDir), uintptr(unsafe.Pointer(old)),
		uintptr(newDir), uintptr(unsafe.Pointer(to)), 0, 0)
	return failure(e)
}

func sysSymlinkat(target *byte, dir int, path *byte) error {
	_, _, e := unix.Syscall(unix.SYS_SYMLINKAT, uintptr(unsafe.Pointer(target)), uintptr(dir), uintptr(unsafe.Pointer(path)))
	return failure(e)
}

func sysReadlinkat(dir int, path *byte, p []byte) (int, error) {
	n, _, e := unix.Syscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(path)),
		uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0)
	return result(n, e)
}

// sysUtimensat sets the times of path, or of fd itself if path is nil.
func sysUtimensat(fd int, path *byte, ts *[2]unix.Timespec, flags int) error {
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), uintptr(unsafe.Pointer(path)),
		uintptr(unsafe.Pointer(ts)), uintptr(flags), 0, 0)
	return failure(e)
}

func readv(fd int, v []unix.Iovec) (int, error)  { return vectored(unix.SYS_READV, fd, v, 0) }
func writev(fd int, v []unix.Iovec) (int, error) { return vectored(unix.SYS_WRITEV, fd, v, 0) }

func preadv(fd int, v []unix.Iovec, offset int64) (int, error) {
	return vectored(unix.SYS_PREADV, fd, v, offset)
}

func pwritev(fd int, v []unix.Iovec, offset int64) (int, error) {
	return vectored(unix.SYS_PWRITEV, fd, v, offset)
}

func vectored(call uintptr, fd int, v []unix.Iovec, offset int64) (int, error) {
	for {
		n, _, e := unix.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(v))), uintptr(len(v)), uintptr(offset), 0, 0)
		if e != unix.EINTR {
			return result(n, e)
		}
	}
}

func message(call uintptr, fd int, h *unix.Msghdr, flags int) (int, error) {
	for {
		n, _, e := unix.Syscall(call, uintptr(fd), uintptr(unsafe.Pointer(h)), uintptr(flags))
		if e != unix.EINTR {
			return result(n, e)
		}
	}
}

func result(n uintptr, e unix.Errno) (int, error) {
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func failure(e unix.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

// Buffers are the parts of guest memory that a vectored call reads or writes,
// in the form that the kernel takes. They are valid for one call.
type Buffers struct {
	n int
	v [MaxVectors]unix.Iovec
}

// Buffers returns the System's buffers, empty.
func (s *System) Buffers() *Buffers {
	s.vec.n = 0
	return &s.vec
}

// Add appends one part; false means that there are too many.
func (b *Buffers) Add(p []byte) bool {
	if b.n == MaxVectors {
		return false
	}
	b.v[b.n].Base = unsafe.SliceData(p)
	b.v[b.n].SetLen(len(p))
	b.n++
	return true
}

// Release forgets the parts, so that no pointer into guest memory is left.
func (b *Buffers) Release() {
	clear(b.v[:b.n])
	b.n = 0
}

func (b *Buffers) bytes(i int) []byte {
	return unsafe.Slice(b.v[i].Base, int(b.v[i].Len))
}

func (b *Buffers) total() uint64 {
	n := uint64(0)
	for i := range b.n {
		n += uint64(b.v[i].Len)
	}
	return n
}

// at returns the pointer n bytes behind p, which is inside the same buffer.
func at(p *byte, n int) *byte { return (*byte)(unsafe.Add(unsafe.Pointer(p), n)) }
