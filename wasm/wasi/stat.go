package wasi

import "golang.org/x/sys/unix"

// Filestat is what is known of a file.
type Filestat struct {
	Dev, Ino         uint64
	Type             Filetype
	Nlink, Size      uint64
	Atim, Mtim, Ctim uint64 // nanoseconds since 1970
}

// TimeFlags say which times to set, in the bits of preview 1.
type TimeFlags uint16

// Which times to set, and whether to the present.
const (
	SetAtim TimeFlags = 1 << iota
	SetAtimNow
	SetMtim
	SetMtimNow

	timeFlagsAll = SetMtimNow<<1 - 1
)

func typeOfMode(mode uint32) Filetype {
	switch mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return TypeBlockDevice
	case unix.S_IFCHR:
		return TypeCharacterDevice
	case unix.S_IFDIR:
		return TypeDirectory
	case unix.S_IFREG:
		return TypeRegularFile
	case unix.S_IFLNK:
		return TypeSymbolicLink
	case unix.S_IFSOCK:
		return TypeSocketStream
	}
	return TypeUnknown
}

func filestat(st *unix.Stat_t) Filestat {
	return Filestat{
		Dev: uint64(st.Dev), Ino: st.Ino, Type: typeOfMode(st.Mode),
		Nlink: uint64(st.Nlink), Size: uint64(st.Size),
		Atim: uint64(st.Atim.Nano()), Mtim: uint64(st.Mtim.Nano()), Ctim: uint64(st.Ctim.Nano()),
	}
}

// Stat returns what is known of an open file.
func (s *System) Stat(fd uint32) (Filestat, error) {
	d, err := s.get(fd, RightFDFilestatGet)
	if err != nil {
		return Filestat{}, err
	}
	if d.fd < 0 || d.kind == kindStdin {
		return Filestat{Type: d.filetype, Nlink: 1}, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return Filestat{}, err
	}
	return filestat(&st), nil
}

// StatPath returns what is known of the file at path.
func (s *System) StatPath(at uint32, follow bool, path string) (Filestat, error) {
	d, err := s.folder(at, RightPathFilestatGet)
	if err != nil {
		return Filestat{}, err
	}
	fd, err := s.openPath(d, follow, path)
	if err != nil {
		return Filestat{}, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Filestat{}, err
	}
	return filestat(&st), nil
}

// openPath opens path for nothing but to name it.
func (s *System) openPath(d *Descriptor, follow bool, path string) (int, error) {
	fl := unix.O_PATH
	if !follow {
		fl |= unix.O_NOFOLLOW
	}
	return s.openAt(&s.path[0], d, path, fl, 0)
}

// SetTimes sets the times of an open file.
func (s *System) SetTimes(fd uint32, atim, mtim uint64, flags TimeFlags) error {
	d, err := s.get(fd, RightFDFilestatSetTimes)
	if err != nil {
		return err
	}
	ts, err := times(atim, mtim, flags)
	if err != nil {
		return err
	}
	if d.readonly {
		return unix.EROFS
	}
	return sysUtimensat(d.fd, nil, &ts, 0)
}

// SetTimesPath sets the times of the file at path.
func (s *System) SetTimesPath(at uint32, follow bool, path string, atim, mtim uint64, flags TimeFlags) error {
	d, err := s.folder(at, RightPathFilestatSetTimes)
	if err != nil {
		return err
	}
	ts, err := times(atim, mtim, flags)
	if err != nil {
		return err
	}
	fd, err := s.openPath(d, follow, path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if s.places.readonly(fd, d.readonly) {
		return unix.EROFS
	}
	return sysUtimensat(fd, &empty[0], &ts, unix.AT_EMPTY_PATH)
}

func times(atim, mtim uint64, flags TimeFlags) ([2]unix.Timespec, error) {
	var ts [2]unix.Timespec
	const bothA, bothM = SetAtim | SetAtimNow, SetMtim | SetMtimNow
	if flags&^timeFlagsAll != 0 || flags&bothA == bothA || flags&bothM == bothM {
		return ts, unix.EINVAL
	}
	ts[0] = timespec(atim, flags&SetAtim != 0, flags&SetAtimNow != 0)
	ts[1] = timespec(mtim, flags&SetMtim != 0, flags&SetMtimNow != 0)
	return ts, nil
}

func timespec(t uint64, set, now bool) unix.Timespec {
	switch {
	case now:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case set:
		return unix.Timespec{Sec: int64(t / 1e9), Nsec: int64(t % 1e9)}
	}
	return unix.Timespec{Nsec: unix.UTIME_OMIT}
}
