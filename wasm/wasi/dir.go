package wasi

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// fstatat tells what name in dir is, without following it.
func fstatat(dir int, name *byte, st *unix.Stat_t) error {
	_, _, e := unix.Syscall6(sysFstatat, uintptr(dir), uintptr(unsafe.Pointer(name)),
		uintptr(unsafe.Pointer(st)), unix.AT_SYMLINK_NOFOLLOW, 0, 0)
	return failure(e)
}

// lastAt is parent below a folder that grants what is needed.
func (s *System) lastAt(at uint32, need Rights, path string) (last, error) {
	d, err := s.folder(at, need)
	if err != nil {
		return last{}, err
	}
	return s.parent(&s.path[0], d, path)
}

// CreateDirectory makes a folder.
func (s *System) CreateDirectory(at uint32, path string) error {
	l, err := s.lastAt(at, RightPathCreateDirectory, path)
	if err != nil {
		return err
	}
	defer l.close()
	if l.special {
		return unix.EEXIST
	}
	if l.readonly {
		return l.existsOr(unix.EROFS)
	}
	return sysMkdirat(l.dir, l.name, newFolderMode)
}

// existsOr returns EEXIST if the component exists, otherwise err.
func (l *last) existsOr(err error) error {
	var st unix.Stat_t
	if l.stat(&st) == nil {
		return unix.EEXIST
	}
	return err
}

// RemoveDirectory removes an empty folder.
func (s *System) RemoveDirectory(at uint32, path string) error {
	l, err := s.lastAt(at, RightPathRemoveDirectory, path)
	if err != nil {
		return err
	}
	defer l.close()
	if l.special {
		return unix.EINVAL
	}
	if l.readonly {
		return l.missingOr(unix.EROFS)
	}
	return sysUnlinkat(l.dir, l.name, unix.AT_REMOVEDIR)
}

// missingOr returns why the component cannot be found, or err if it can.
func (l *last) missingOr(err error) error {
	var st unix.Stat_t
	if e := l.stat(&st); e != nil {
		return e
	}
	return err
}

// UnlinkFile removes a name that is not a folder's.
func (s *System) UnlinkFile(at uint32, path string) error {
	l, err := s.lastAt(at, RightPathUnlinkFile, path)
	if err != nil {
		return err
	}
	defer l.close()
	if l.special {
		return unix.EISDIR
	}
	if l.readonly {
		return l.missingOr(unix.EROFS)
	}
	if l.folder {
		if err := l.wantFolder(); err != nil {
			return err
		}
		return unix.EISDIR
	}
	return sysUnlinkat(l.dir, l.name, 0)
}

// wantFolder returns ENOTDIR unless the component is a folder; a link to one
// is none.
func (l *last) wantFolder() error {
	var st unix.Stat_t
	if err := l.stat(&st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	return nil
}

// Rename moves a file or folder. Between mounts it is EXDEV, as everywhere.
func (s *System) Rename(oldAt uint32, oldPath string, newAt uint32, newPath string) error {
	from, to, err := s.twoParents(oldAt, oldPath, RightPathRenameSource, newAt, newPath, RightPathRenameTarget)
	if err != nil {
		return err
	}
	defer from.close()
	defer to.close()
	if from.special || to.special {
		return unix.EBUSY
	}
	if from.readonly || to.readonly {
		return from.missingOr(unix.EROFS)
	}
	if from.folder || to.folder {
		if err := from.wantFolder(); err != nil {
			return err
		}
	}
	return sysRenameat2(from.dir, from.name, to.dir, to.name)
}

// Link gives a file a second name. Links are never followed, and neither name
// may be in a read-only place: a file there would become writable.
func (s *System) Link(oldAt uint32, follow bool, oldPath string, newAt uint32, newPath string) error {
	if follow {
		return unix.EINVAL
	}
	from, to, err := s.twoParents(oldAt, oldPath, RightPathLinkSource, newAt, newPath, RightPathLinkTarget)
	if err != nil {
		return err
	}
	defer from.close()
	defer to.close()
	switch {
	case from.special:
		return unix.EPERM
	case to.special:
		return unix.EEXIST
	case from.readonly || to.readonly:
		return from.missingOr(unix.EROFS)
	case from.folder:
		if err := from.wantFolder(); err != nil {
			return err
		}
		return unix.EPERM
	case to.folder:
		return to.existsOr(unix.ENOENT)
	}
	return sysLinkat(from.dir, from.name, to.dir, to.name)
}

func (s *System) twoParents(oldAt uint32, oldPath string, oldNeed Rights, newAt uint32, newPath string, newNeed Rights) (from, to last, err error) {
	old, err := s.folder(oldAt, oldNeed)
	if err != nil {
		return
	}
	target, err := s.folder(newAt, newNeed)
	if err != nil {
		return
	}
	if from, err = s.parent(&s.path[0], old, oldPath); err != nil {
		return
	}
	if to, err = s.parent(&s.path[1], target, newPath); err != nil {
		from.close()
	}
	return
}

// Symlink makes a link. An absolute target is refused, as every runtime does:
// whoever follows it outside of the guest would end elsewhere.
func (s *System) Symlink(target string, at uint32, path string) error {
	d, err := s.folder(at, RightPathSymlink)
	if err != nil {
		return err
	}
	if err := checkPath(target); err != nil {
		return err
	}
	l, err := s.parent(&s.path[0], d, path)
	if err != nil {
		return err
	}
	defer l.close()
	if l.special {
		return unix.EEXIST
	}
	if l.readonly {
		return l.existsOr(unix.EROFS)
	}
	if l.folder {
		return l.existsOr(unix.ENOENT)
	}
	if err := s.path[1].set("", target); err != nil {
		return err
	}
	return sysSymlinkat(&s.path[1].b[0], l.dir, l.name)
}

// Readlink reads a link's target into p and returns its length, at most
// len(p).
func (s *System) Readlink(at uint32, path string, p []byte) (int, error) {
	d, err := s.folder(at, RightPathReadlink)
	if err != nil {
		return 0, err
	}
	fd, err := s.openPath(d, false, path)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return 0, unix.EINVAL
	}
	if len(p) == 0 {
		return 0, nil
	}
	return sysReadlinkat(fd, &empty[0], p)
}

// Dirent is one entry of a folder. Name is valid until the next call.
type Dirent struct {
	Next uint64 // cookie of the entry behind this one
	Ino  uint64
	Type Filetype
	Name []byte
}

// ReadDir calls yield for the entries of a folder from cookie on until it
// returns false or there are no more. want is about how many bytes of entries
// the caller has room for.
func (s *System) ReadDir(fd uint32, cookie uint64, want int, yield func(*Dirent) bool) error {
	d, err := s.folder(fd, RightFDReaddir)
	if err != nil {
		return err
	}
	if _, err := unix.Seek(d.fd, int64(cookie), unix.SEEK_SET); err != nil {
		if err == unix.EBADF { // it is there, but the user may not list it
			err = unix.EACCES
		}
		return err
	}
	if s.dir == nil {
		s.dir = make([]byte, MaxDirBuffer)
	}
	buf := s.dir[:min(max(want, 1024), MaxDirBuffer)]
	for {
		n, err := unix.Getdents(d.fd, buf)
		if err != nil || n == 0 {
			return err
		}
		if !entries(buf[:n], yield) {
			return nil
		}
	}
}

func entries(p []byte, yield func(*Dirent) bool) bool {
	const head = int(unsafe.Offsetof(unix.Dirent{}.Name))
	for len(p) >= head {
		e := (*unix.Dirent)(unsafe.Pointer(&p[0]))
		n := int(e.Reclen)
		if n < head || n > len(p) {
			return false
		}
		name := p[head:n]
		for i, c := range name {
			if c == 0 {
				name = name[:i]
				break
			}
		}
		ent := Dirent{Next: uint64(e.Off), Ino: e.Ino, Type: typeOfMode(uint32(e.Type) << 12), Name: name}
		if !yield(&ent) {
			return false
		}
		p = p[n:]
	}
	return true
}
