package wasi

import "golang.org/x/sys/unix"

// pathBuf holds a NUL-terminated path on its way to the kernel.
type pathBuf struct {
	b [MaxPath + 1]byte
	n int
}

// empty is the path for calls that name a descriptor itself.
var empty [1]byte

// set joins prefix, if any, and path.
func (b *pathBuf) set(prefix, path string) error {
	n := 0
	if prefix != "" {
		n = copy(b.b[:], prefix)
		b.b[n] = '/'
		n++
	}
	if n+len(path) > MaxPath {
		return unix.ENAMETOOLONG
	}
	n += copy(b.b[n:], path)
	b.b[n] = 0
	b.n = n
	return nil
}

// checkPath refuses what no path of a guest may be.
func checkPath(path string) error {
	if path == "" {
		return unix.ENOENT
	}
	if path[0] == '/' {
		return ErrNotCapable
	}
	if len(path) > MaxPath {
		return unix.ENAMETOOLONG
	}
	for i := range len(path) {
		if path[i] == 0 {
			return unix.EINVAL
		}
	}
	return nil
}

// openAt opens path below d, however many links and ".." are in it, and never
// anything else.
func (s *System) openAt(b *pathBuf, d *Descriptor, path string, flags int, mode uint32) (int, error) {
	if err := checkPath(path); err != nil {
		return -1, err
	}
	if err := b.set(d.prefix, path); err != nil {
		return -1, err
	}
	return s.open2(d, &b.b[0], flags, mode)
}

// open2 is openat2 with the resolution of d. The kernel answers EAGAIN when
// something was renamed while it walked a "..": tried again, some times.
func (s *System) open2(d *Descriptor, path *byte, flags int, mode uint32) (int, error) {
	dir, resolve := d.fd, uint64(unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS)
	if d.root {
		resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	}
	if d.prefix != "" {
		dir = d.from
	}
	s.how = unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: resolve}
	for range maxRetries {
		fd, err := sysOpenat2(dir, path, &s.how)
		switch err {
		case nil:
			return fd, nil
		case unix.EAGAIN, unix.EINTR:
			continue
		case unix.EXDEV:
			return -1, ErrNotCapable
		}
		return -1, err
	}
	return -1, unix.EAGAIN
}

// last is the last component of a path, with the folder that it is in.
type last struct {
	dir    int   // descriptor of the folder
	owned  bool  // dir is to be closed
	name   *byte // one component, without slashes; nil if special
	folder bool  // there were slashes behind it: it must be a folder
	// special is "." or "..", whose folder is not told: dir is the folder
	// that the whole path names.
	special  bool
	readonly bool // the folder is in a place that the guest may not write to
}

func (l *last) close() {
	if l.owned {
		unix.Close(l.dir)
	}
}

// parent opens the folder in which path's last component is, so that the
// component can be made, removed or renamed without being followed.
func (s *System) parent(b *pathBuf, d *Descriptor, path string) (last, error) {
	if err := checkPath(path); err != nil {
		return last{}, err
	}
	end := len(path)
	for end > 0 && path[end-1] == '/' {
		end--
	}
	l := last{folder: end < len(path)}
	start := end
	for start > 0 && path[start-1] != '/' {
		start--
	}
	name := path[start:end]
	if name == "." || name == ".." {
		return s.parentSpecial(b, d, path, l)
	}
	if len(name) > unix.NAME_MAX {
		return last{}, unix.ENAMETOOLONG
	}
	if start == 0 {
		if err := b.set("", name); err != nil {
			return last{}, err
		}
		l.dir, l.name, l.readonly = d.fd, &b.b[0], d.readonly
		return l, nil
	}
	if err := b.set(d.prefix, path[:end]); err != nil {
		return last{}, err
	}
	at := b.n - len(name)
	b.b[at-1] = 0 // the slash in front of the name
	dir, err := s.open2(d, &b.b[0], unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return last{}, err
	}
	l.dir, l.owned, l.name = dir, true, &b.b[at]
	l.readonly = s.places.readonly(dir, d.readonly)
	return l, nil
}

func (s *System) parentSpecial(b *pathBuf, d *Descriptor, path string, l last) (last, error) {
	dir, err := s.openAt(b, d, path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return last{}, err
	}
	l.dir, l.owned, l.special = dir, true, true
	l.readonly = s.places.readonly(dir, d.readonly)
	return l, nil
}

// stat tells what the component is, without following it.
func (l *last) stat(st *unix.Stat_t) error {
	return fstatat(l.dir, l.name, st)
}
