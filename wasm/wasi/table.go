package wasi

import "golang.org/x/sys/unix"

// kind says what stands behind a descriptor.
type kind uint8

const (
	kindEmpty kind = iota // a reserved slot, as good as closed
	kindFolder
	kindFile     // seekable, never blocks for long
	kindPipe     // fifo or device: may block
	kindStdin    // may block; ends by CloseStdin too
	kindOutput   // a standard stream of the host
	kindListener // listening socket
	kindStream   // connected socket
)

// Descriptor is an entry of the guest's table.
type Descriptor struct {
	kind          kind
	filetype      Filetype
	flags         FDFlags
	base, inherit Rights
	fd            int // of the kernel, or -1

	// Folders and files.
	readonly bool
	// Folders.
	root    bool   // paths resolve in it as in a process's root
	preopen bool   // name is told to the guest
	name    string // as the guest sees it
	prefix  string // goes in front of paths, which then start at from
	from    int

	out *stream // kindOutput
}

func newFolder(fd int) *Descriptor {
	return &Descriptor{
		kind: kindFolder, filetype: TypeDirectory, fd: fd, from: -1,
		base: rightsFolder, inherit: rightsFolderInherit,
	}
}

// newListener makes a listening socket's descriptor. It is non-blocking from
// the start, as other runtimes give it: Go's net package asks for the flag when
// it takes the socket over, and would block all of the guest in accept.
func newListener(fd int) *Descriptor {
	return &Descriptor{
		flags: FlagNonblock,
		kind:  kindListener, filetype: TypeSocketStream, fd: fd, from: -1,
		base: rightsListener, inherit: rightsListenInherit,
	}
}

func newStream(fd int, rights Rights) *Descriptor {
	return &Descriptor{kind: kindStream, filetype: TypeSocketStream, fd: fd, from: -1, base: rights}
}

func (d *Descriptor) close() error {
	var err error
	if d.out != nil {
		err = d.out.flush()
	}
	if d.prefix != "" && d.from >= 0 {
		unix.Close(d.from)
	}
	if d.fd >= 0 {
		if e := unix.Close(d.fd); e != nil && e != unix.EINTR {
			err = e
		}
	}
	d.fd, d.from = -1, -1
	return err
}

// table holds descriptors by number. low is at most the lowest free number.
type table struct {
	slots []*Descriptor
	low   int
}

// add puts d at the lowest free number.
func (t *table) add(d *Descriptor) (uint32, error) {
	for t.low < len(t.slots) && t.slots[t.low] != nil {
		t.low++
	}
	if t.low >= MaxDescriptors {
		return 0, unix.EMFILE
	}
	if t.low == len(t.slots) {
		t.slots = append(t.slots, nil)
	}
	n := t.low
	t.slots[n] = d
	t.low++
	return uint32(n), nil
}

// room says whether add would succeed, asked before something is made that
// would have to be undone.
func (t *table) room() bool {
	for t.low < len(t.slots) && t.slots[t.low] != nil {
		t.low++
	}
	return t.low < MaxDescriptors
}

func (t *table) get(fd uint32) (*Descriptor, error) {
	if uint64(fd) >= uint64(len(t.slots)) {
		return nil, unix.EBADF
	}
	d := t.slots[fd]
	if d == nil || d.kind == kindEmpty {
		return nil, unix.EBADF
	}
	return d, nil
}

func (t *table) remove(fd uint32) {
	t.slots[fd] = nil
	t.low = min(t.low, int(fd))
}

// get returns a descriptor that has all rights of need.
func (s *System) get(fd uint32, need Rights) (*Descriptor, error) {
	d, err := s.table.get(fd)
	if err != nil {
		return nil, err
	}
	if d.base&need != need {
		return nil, ErrNotCapable
	}
	return d, nil
}

// folder returns a folder that has all rights of need.
func (s *System) folder(fd uint32, need Rights) (*Descriptor, error) {
	d, err := s.table.get(fd)
	if err != nil {
		return nil, err
	}
	if d.kind != kindFolder {
		return nil, unix.ENOTDIR
	}
	if d.base&need != need {
		return nil, ErrNotCapable
	}
	return d, nil
}

// CloseFD closes a descriptor.
func (s *System) CloseFD(fd uint32) error {
	d, err := s.table.get(fd)
	if err != nil {
		return err
	}
	s.table.remove(fd)
	return d.close()
}

// Renumber moves a descriptor to the number of another open one, which is
// closed.
func (s *System) Renumber(from, to uint32) error {
	d, err := s.table.get(from)
	if err != nil {
		return err
	}
	old, err := s.table.get(to)
	if err != nil {
		return err
	}
	if from == to {
		return nil
	}
	s.table.slots[to] = d
	s.table.remove(from)
	old.close() // what the guest no longer names has nobody to report to
	return nil
}

// Prestat returns the name of a preopened folder.
func (s *System) Prestat(fd uint32) (string, error) {
	d, err := s.table.get(fd)
	if err != nil {
		return "", err
	}
	if !d.preopen {
		if d.kind == kindFolder || fd < FirstPreopen {
			return "", unix.EBADF
		}
		return "", unix.ENOTDIR
	}
	return d.name, nil
}

// Fdstat is the state of a descriptor.
type Fdstat struct {
	Type             Filetype
	Flags            FDFlags
	Base, Inheriting Rights
}

// Fdstat returns the state of a descriptor.
func (s *System) Fdstat(fd uint32) (Fdstat, error) {
	d, err := s.table.get(fd)
	if err != nil {
		return Fdstat{}, err
	}
	return Fdstat{d.filetype, d.flags, d.base, d.inherit}, nil
}

// SetRights takes rights from a descriptor. It can add none.
func (s *System) SetRights(fd uint32, base, inheriting Rights) error {
	d, err := s.table.get(fd)
	if err != nil {
		return err
	}
	if base&^d.base != 0 || inheriting&^d.inherit != 0 {
		return ErrNotCapable
	}
	d.base, d.inherit = base, inheriting
	return nil
}

// SetFlags changes a descriptor's flags. Of an open file only append and
// nonblock can change; the kernel keeps the rest.
func (s *System) SetFlags(fd uint32, flags FDFlags) error {
	d, err := s.get(fd, RightFDFdstatSetFlags)
	if err != nil {
		return err
	}
	if flags&^flagsAll != 0 {
		return unix.EINVAL
	}
	const syncs = FlagDSync | FlagRSync | FlagSync
	if flags&syncs != d.flags&syncs && d.kind != kindFolder {
		if flags&syncs != 0 {
			return unix.EOPNOTSUPP
		}
		flags |= d.flags & syncs
	}
	if d.kind == kindFile && (flags^d.flags)&FlagAppend != 0 {
		fl := openFlags(flags)
		if _, err := unix.FcntlInt(uintptr(d.fd), unix.F_SETFL, fl|unix.O_NONBLOCK); err != nil {
			return err
		}
	}
	d.flags = flags
	return nil
}

// openFlags turns a descriptor's flags into those of open. Non-blocking is
// ours alone: every descriptor of the kernel's that could block is
// non-blocking, and a guest that wants to block waits in wait.
func openFlags(f FDFlags) int {
	fl := 0
	if f&FlagAppend != 0 {
		fl |= unix.O_APPEND
	}
	if f&FlagDSync != 0 {
		fl |= unix.O_DSYNC
	}
	if f&(FlagSync|FlagRSync) != 0 {
		fl |= unix.O_SYNC
	}
	return fl
}
