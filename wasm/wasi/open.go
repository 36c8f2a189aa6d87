package wasi

import "golang.org/x/sys/unix"

// OpenFlags say how to open, in the bits of preview 1.
type OpenFlags uint16

// The flags of an open.
const (
	OpenCreate OpenFlags = 1 << iota
	OpenDirectory
	OpenExclusive
	OpenTruncate

	openFlagsAll = OpenTruncate<<1 - 1
)

// newFileMode is the mode of files and newFolderMode that of folders that a
// guest makes, less the process's umask: WASI has no modes.
const (
	newFileMode   = 0o666
	newFolderMode = 0o777
)

// Open opens path below the folder at and returns the new descriptor's number.
// What is asked for in rights beyond what the folder passes on is left out.
func (s *System) Open(at uint32, follow bool, path string, oflags OpenFlags, base, inherit Rights, flags FDFlags) (uint32, error) {
	d, err := s.folder(at, openRights(oflags))
	if err != nil {
		return 0, err
	}
	if oflags&^openFlagsAll != 0 || flags&^flagsAll != 0 ||
		oflags&OpenDirectory != 0 && oflags&(OpenCreate|OpenTruncate) != 0 {
		return 0, unix.EINVAL
	}
	if !s.table.room() {
		return 0, unix.EMFILE
	}
	base &= d.inherit
	fl := openFlags(flags) | unix.O_NONBLOCK | unix.O_NOCTTY | accessMode(base, oflags)
	if !follow {
		fl |= unix.O_NOFOLLOW
	}
	if oflags&OpenDirectory != 0 {
		fl |= unix.O_DIRECTORY
	}
	changes := oflags&(OpenCreate|OpenTruncate) != 0 || base&RightFDWrite != 0
	if changes {
		if oflags, err = s.mayChange(d, path, fl, oflags, base); err != nil {
			return 0, err
		}
	}
	mode := uint32(0)
	if oflags&OpenCreate != 0 {
		fl, mode = fl|unix.O_CREAT, newFileMode
		if oflags&OpenExclusive != 0 {
			fl |= unix.O_EXCL
		}
	}
	fd, err := s.openAt(&s.path[0], d, path, fl, mode)
	if err != nil {
		return 0, err
	}
	n, err := s.install(fd, d, oflags, base, inherit, flags)
	if err != nil {
		unix.Close(fd)
	}
	return n, err
}

func openRights(oflags OpenFlags) Rights {
	need := RightPathOpen
	if oflags&OpenCreate != 0 {
		need |= RightPathCreateFile
	}
	if oflags&OpenTruncate != 0 {
		need |= RightPathFilestatSetSize
	}
	return need
}

// accessMode chooses the kernel's access mode. Truncation is done by
// ftruncate, once it is known what was opened.
func accessMode(base Rights, oflags OpenFlags) int {
	write := base&RightFDWrite != 0
	if write && base&RightFDRead == 0 {
		return unix.O_WRONLY
	}
	if write || oflags&OpenTruncate != 0 {
		return unix.O_RDWR
	}
	return unix.O_RDONLY
}

// mayChange refuses to write to, truncate or create what is in a read-only
// place, before anything happened, and returns what is left to do: to open
// what exists there for reading is no change, whatever was asked for in case
// that it did not exist. What races with it meets the kernel, which refuses
// the same.
func (s *System) mayChange(d *Descriptor, path string, fl int, oflags OpenFlags, base Rights) (OpenFlags, error) {
	if s.places.mounts == nil && !d.readonly {
		return oflags, nil
	}
	fd, err := s.openAt(&s.path[0], d, path, unix.O_PATH|fl&(unix.O_NOFOLLOW|unix.O_DIRECTORY), 0)
	if err == unix.ENOENT && oflags&OpenCreate != 0 {
		l, err := s.parent(&s.path[0], d, path)
		if err != nil {
			return 0, err
		}
		defer l.close()
		if l.readonly {
			return 0, unix.EROFS
		}
		return oflags, nil
	}
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	switch {
	case !s.places.readonly(fd, d.readonly):
		return oflags, nil
	case oflags&(OpenCreate|OpenExclusive) == OpenCreate|OpenExclusive:
		return 0, unix.EEXIST
	case oflags&OpenTruncate != 0 || base&RightFDWrite != 0:
		return 0, unix.EROFS
	}
	return oflags &^ OpenCreate, nil
}

// install makes a descriptor of what was opened.
func (s *System) install(fd int, at *Descriptor, oflags OpenFlags, base, inherit Rights, flags FDFlags) (uint32, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	d := &Descriptor{fd: fd, from: -1, filetype: typeOfMode(st.Mode), flags: flags}
	d.readonly = s.places.readonly(fd, at.readonly)
	wrote := base & RightFDWrite
	switch d.filetype {
	case TypeDirectory:
		d.kind = kindFolder
		d.base, d.inherit = base&rightsFolder, inherit&at.inherit&rightsFolderInherit
	case TypeRegularFile:
		d.kind = kindFile
		d.base = base & rightsFile
		if wrote == 0 {
			d.base &^= rightsFileWrite
		}
		if d.readonly && (wrote != 0 || oflags&OpenTruncate != 0) {
			return 0, unix.EROFS
		}
		if oflags&OpenTruncate != 0 {
			if err := unix.Ftruncate(fd, 0); err != nil {
				return 0, err
			}
		}
	default:
		d.kind = kindPipe
		d.base = base & rightsPipe
	}
	return s.table.add(d)
}
