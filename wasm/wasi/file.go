package wasi

import (
	"math"

	"golang.org/x/sys/unix"
)

// passage returns a descriptor through which bytes can go, as POSIX has it:
// without the right it is no descriptor for that.
func (s *System) passage(fd uint32, need Rights) (*Descriptor, error) {
	d, err := s.table.get(fd)
	if err != nil {
		return nil, err
	}
	switch d.kind {
	case kindFolder:
		return nil, unix.EISDIR
	case kindListener:
		return nil, unix.ENOTCONN
	}
	if d.base&need == 0 {
		return nil, unix.EBADF
	}
	return d, nil
}

// Read reads into b from a descriptor's position.
func (s *System) Read(fd uint32, b *Buffers) (int, error) {
	d, err := s.passage(fd, RightFDRead)
	if err != nil {
		return 0, err
	}
	switch d.kind {
	case kindStdin:
		return s.readStdin(d, b)
	case kindFile:
		return readv(d.fd, b.v[:b.n])
	}
	return s.readPatient(d, b)
}

// readPatient reads from a non-blocking descriptor as one that blocks, unless
// the guest wants none of it.
func (s *System) readPatient(d *Descriptor, b *Buffers) (int, error) {
	for {
		n, err := readv(d.fd, b.v[:b.n])
		if err != unix.EAGAIN || d.flags&FlagNonblock != 0 {
			return n, err
		}
		if err := s.waitFor(d.fd, unix.POLLIN); err != nil {
			return 0, err
		}
	}
}

// Write writes b at a descriptor's position.
func (s *System) Write(fd uint32, b *Buffers) (int, error) {
	d, err := s.passage(fd, RightFDWrite)
	if err != nil {
		return 0, err
	}
	switch d.kind {
	case kindOutput:
		return d.out.write(b)
	case kindFile:
		return writev(d.fd, b.v[:b.n])
	case kindStream:
		return s.send(d, b)
	}
	for {
		n, err := writev(d.fd, b.v[:b.n])
		if err != unix.EAGAIN || d.flags&FlagNonblock != 0 {
			return n, err
		}
		if err := s.waitFor(d.fd, unix.POLLOUT); err != nil {
			return 0, err
		}
	}
}

// seekable returns a regular file that has all rights of need. One that was
// opened without the right to read or write is EBADF, as programs know it.
func (s *System) seekable(fd uint32, need Rights) (*Descriptor, error) {
	d, err := s.table.get(fd)
	if err != nil {
		return nil, err
	}
	switch d.kind {
	case kindFile:
	case kindFolder:
		return nil, unix.EISDIR
	default:
		return nil, unix.ESPIPE
	}
	if missing := need &^ d.base; missing != 0 {
		if missing&(RightFDRead|RightFDWrite) != 0 {
			return nil, unix.EBADF
		}
		return nil, ErrNotCapable
	}
	return d, nil
}

// ReadAt reads into b from offset.
func (s *System) ReadAt(fd uint32, b *Buffers, offset uint64) (int, error) {
	d, err := s.seekable(fd, RightFDRead)
	if err != nil {
		return 0, err
	}
	if offset > math.MaxInt64 {
		return 0, unix.EINVAL
	}
	return preadv(d.fd, b.v[:b.n], int64(offset))
}

// WriteAt writes b at offset; to a file open for appending, at its end.
func (s *System) WriteAt(fd uint32, b *Buffers, offset uint64) (int, error) {
	d, err := s.seekable(fd, RightFDWrite)
	if err != nil {
		return 0, err
	}
	if offset > math.MaxInt64 {
		return 0, unix.EINVAL
	}
	return pwritev(d.fd, b.v[:b.n], int64(offset))
}

// Seek moves a file's position; whence is the kernel's.
func (s *System) Seek(fd uint32, offset int64, whence int) (uint64, error) {
	need := RightFDSeek
	if offset == 0 && whence == unix.SEEK_CUR {
		need = RightFDTell
	}
	d, err := s.table.get(fd)
	if err != nil {
		return 0, err
	}
	if need == RightFDTell && d.base&RightFDSeek != 0 {
		need = RightFDSeek // it includes telling
	}
	if d, err = s.seekable(fd, need); err != nil {
		return 0, err
	}
	n, err := unix.Seek(d.fd, offset, whence)
	return uint64(n), err
}

// Advise tells the kernel how a file will be used; advice is the kernel's.
func (s *System) Advise(fd uint32, offset, length uint64, advice int) error {
	d, err := s.seekable(fd, RightFDAdvise)
	if err == unix.EISDIR {
		return unix.EBADF
	}
	if err != nil {
		return err
	}
	if offset > math.MaxInt64 || length > math.MaxInt64 {
		return unix.EINVAL
	}
	return unix.Fadvise(d.fd, int64(offset), int64(length), advice)
}

// Allocate makes sure that a file has space for a range.
func (s *System) Allocate(fd uint32, offset, length uint64) error {
	d, err := s.seekable(fd, RightFDAllocate)
	if err == unix.EISDIR {
		return unix.EBADF
	}
	if err != nil {
		return err
	}
	if d.readonly {
		return unix.EROFS
	}
	if offset > math.MaxInt64 || length > math.MaxInt64 {
		return unix.EFBIG
	}
	for {
		err := unix.Fallocate(d.fd, 0, int64(offset), int64(length))
		if err != unix.EINTR {
			return err
		}
		if s.stop.Load() != nil {
			return ErrInterrupted
		}
	}
}

// SetSize sets a file's size.
func (s *System) SetSize(fd uint32, size uint64) error {
	d, err := s.seekable(fd, RightFDFilestatSetSize)
	if err != nil {
		return err
	}
	if d.readonly {
		return unix.EROFS
	}
	if size > math.MaxInt64 {
		return unix.EFBIG
	}
	return unix.Ftruncate(d.fd, int64(size))
}

// Sync writes a file or folder to its storage; dataOnly leaves out what is
// not needed to read it back.
func (s *System) Sync(fd uint32, dataOnly bool) error {
	need := RightFDSync
	if dataOnly {
		need = RightFDDatasync
	}
	d, err := s.get(fd, need)
	if err != nil {
		return err
	}
	switch {
	case d.kind == kindOutput:
		return d.out.flush()
	case d.kind != kindFile && d.kind != kindFolder:
		return unix.EINVAL
	case dataOnly:
		return unix.Fdatasync(d.fd)
	}
	return unix.Fsync(d.fd)
}
