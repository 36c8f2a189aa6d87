package confine

import (
	"encoding/binary"
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// seals are those that the constructor demands of the memory file.
const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// File returns a sealed memory file with the order and the payload, to be
// inherited as spec.FDOrder. It is closed on exec here.
func (o *Order) File(payload []byte) (*os.File, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if len(payload) > MaxPayload {
		return nil, o.fault("the payload (arguments and environment) is too large")
	}
	content := o.Encode(payload)
	if len(content)-len(payload) > MaxOrder {
		return nil, o.fault("the order is too large")
	}
	fd, err := unix.MemfdCreate("limpet-order", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before 6.3
		fd, err = unix.MemfdCreate("limpet-order", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "order")
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, os.NewSyscallError("F_ADD_SEALS", err)
	}
	return f, nil
}

// Payload returns the payload of the memory file fd.
func Payload(fd int) ([]byte, error) { return section(fd, 24, MaxPayload) }

// Seal forbids executable mappings, on all threads and for good. The host
// calls it once the guest's code is mapped, before the guest runs.
func Seal() error { return seal(fdOrder) }

// fdOrder is spec.FDOrder; a test holds them equal.
const fdOrder = 3

func seal(fd int) error {
	prog, err := section(fd, 16, MaxFilter*8)
	if err != nil {
		return err
	}
	if len(prog) == 0 || len(prog)%8 != 0 {
		return &orderError{"the seal filter is missing"}
	}
	p := unix.SockFprog{Len: uint16(len(prog) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&prog[0]))}
	r, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&p)))
	if e != 0 {
		return os.NewSyscallError("seccomp", e)
	}
	if r != 0 {
		return errors.New("seccomp: a thread has another filter")
	}
	return nil
}

// section reads the part of the memory file whose offset and length stand at
// field of the header.
func section(fd int, field, limit uint32) ([]byte, error) {
	var h [headerSize]byte
	if err := preadFull(fd, h[:], 0); err != nil {
		return nil, err
	}
	if string(h[:len(orderMagic)]) != orderMagic || binary.LittleEndian.Uint32(h[8:]) != orderVersion {
		return nil, &orderError{"descriptor holds no order of this version"}
	}
	off, n := binary.LittleEndian.Uint32(h[field:]), binary.LittleEndian.Uint32(h[field+4:])
	if n > limit || off > MaxOrder+MaxFilter*8 {
		return nil, &orderError{"a part is too large"}
	}
	b := make([]byte, n)
	return b, preadFull(fd, b, int64(off))
}

func preadFull(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pread(fd, b, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("pread", err)
		}
		if n == 0 {
			return &orderError{"it ends early"}
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}
