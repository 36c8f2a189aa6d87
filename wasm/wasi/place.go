package wasi

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// places knows which mounts a guest may write to, by the kernel's numbers of
// them. A mount that nobody named (one that came along inside a volume) is
// left to the kernel alone, which enforces the rest as well.
type places struct {
	mounts map[uint64]bool // mount → read-only; nil: the descriptor's own word holds
}

func (p *places) init(s *System, list []Place, root int) error {
	if len(list) == 0 {
		return nil
	}
	if root < 0 {
		return configError("places without a root")
	}
	p.mounts = make(map[uint64]bool, len(list)+1)
	at := &Descriptor{kind: kindFolder, fd: root, root: true}
	if id, ok := mountOf(root); ok {
		p.mounts[id] = s.rootReadOnly(root)
	}
	for _, pl := range list {
		rel := strings.Trim(pl.Path, "/")
		if rel == "" {
			rel = "."
		}
		fd, err := s.openAt(&s.path[0], at, rel, unix.O_PATH, 0)
		if err != nil {
			return sysError("open the mount "+strconv.Quote(pl.Path), err)
		}
		id, ok := mountOf(fd)
		unix.Close(fd)
		if !ok {
			p.mounts = nil // a kernel that cannot tell: it enforces alone
			return nil
		}
		if ro, known := p.mounts[id]; known && ro != pl.ReadOnly {
			return configError(strconv.Quote(pl.Path) + " is no mount of its own: want one for each place")
		}
		p.mounts[id] = pl.ReadOnly
	}
	for _, d := range s.table.slots {
		if d != nil && d.kind == kindFolder {
			d.readonly = p.readonly(d.fd, d.readonly)
		}
	}
	return nil
}

// readonly says whether what fd names may not be written to. inherited is the
// word of the descriptor that it was reached from.
func (p *places) readonly(fd int, inherited bool) bool {
	if p.mounts == nil {
		return inherited
	}
	id, ok := mountOf(fd)
	if !ok {
		return inherited
	}
	return p.mounts[id]
}

// mountOf returns the number of the mount that fd is in.
func mountOf(fd int) (uint64, bool) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	return st.Mnt_id, err == nil && st.Mask&unix.STATX_MNT_ID != 0
}
