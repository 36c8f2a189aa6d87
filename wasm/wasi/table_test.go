package wasi

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// in returns a System whose one folder is dir: as its root, or as a folder
// that nothing leads out of.
func in(t *testing.T, dir string, root bool) *System {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Stdin: -1, Preopens: []Preopen{{Name: "/", FD: fd, Root: root}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

const everything = RightSockAccept<<1 - 1

func open(t *testing.T, s *System, path string, flags OpenFlags, base Rights) uint32 {
	t.Helper()
	fd, err := s.Open(FirstPreopen, true, path, flags, base, everything, 0)
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	return fd
}

// TestTable: a number is the lowest that is free, and names nothing once it is
// closed or moved.
func TestTable(t *testing.T) {
	s := in(t, t.TempDir(), true)
	a, b := open(t, s, "a", OpenCreate, everything), open(t, s, "b", OpenCreate, everything)
	if a != FirstPreopen+1 || b != a+1 {
		t.Fatalf("descriptors %d and %d", a, b)
	}
	if err := s.CloseFD(a); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseFD(a); err != unix.EBADF {
		t.Errorf("closed twice: %v", err)
	}
	if again := open(t, s, "a", 0, everything); again != a {
		t.Errorf("the next descriptor is %d, want %d", again, a)
	}
	if err := s.Renumber(b, a); err != nil {
		t.Fatal(err)
	}
	for fd, want := range map[uint32]error{a: nil, b: unix.EBADF, 1 << 31: unix.EBADF, ^uint32(0): unix.EBADF} {
		if _, err := s.Fdstat(fd); err != want {
			t.Errorf("descriptor %d: %v, want %v", fd, err, want)
		}
	}
	if err := s.Renumber(b, a); err != unix.EBADF {
		t.Errorf("renumber what is closed: %v", err)
	}
	if err := s.Renumber(a, b); err != unix.EBADF {
		t.Errorf("renumber to what is closed: %v", err)
	}
}

// TestDescriptorsAreClosed: whatever way a descriptor goes, the kernel's goes
// with it.
func TestDescriptorsAreClosed(t *testing.T) {
	count := func() int {
		l, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(l)
	}
	before := count()
	fd, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Stdin: -1, WorkingDir: "/", Listeners: []int{listener(t)}, Preopens: []Preopen{{Name: "/", FD: fd, Root: true}}})
	if err != nil {
		t.Fatal(err)
	}
	root := uint32(FirstPreopen + 1)
	for _, name := range []string{"a", "b", "c"} {
		if _, err := s.Open(root, true, name, OpenCreate, everything, everything, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Renumber(7, 6); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	// One that New refuses is closed as well.
	fd, err = unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = New(Config{Stdin: -1, WorkingDir: "/none", Listeners: []int{listener(t)}, Preopens: []Preopen{{Name: "/", FD: fd, Root: true}}})
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("a working directory that is not there: %v", err)
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before a refusal, %d after", before, after)
	}
}

// TestRights: a descriptor can do what its rights say, rights are only ever
// lost, and what is opened below has no more than was passed on.
func TestRights(t *testing.T) {
	s := in(t, t.TempDir(), true)
	fd := open(t, s, "f", OpenCreate, everything)
	if st, _ := s.Fdstat(fd); st.Base != rightsFile || st.Inheriting != 0 {
		t.Errorf("a file has %b and passes on %b", st.Base, st.Inheriting)
	}
	for _, c := range []struct {
		name string
		lose Rights
		call func() error
		want error
	}{
		{"write", RightFDWrite, func() error { _, err := s.Write(fd, one(s, 1)); return err }, unix.EBADF},
		{"write at", 0, func() error { _, err := s.WriteAt(fd, one(s, 1), 0); return err }, unix.EBADF},
		{"read", RightFDRead, func() error { _, err := s.Read(fd, one(s, 1)); return err }, unix.EBADF},
		{"read at", 0, func() error { _, err := s.ReadAt(fd, one(s, 1), 0); return err }, unix.EBADF},
		{"set size", RightFDFilestatSetSize, func() error { return s.SetSize(fd, 1) }, ErrNotCapable},
		{"allocate", RightFDAllocate, func() error { return s.Allocate(fd, 0, 1) }, ErrNotCapable},
		{"seek", RightFDSeek, func() error { _, err := s.Seek(fd, 0, unix.SEEK_SET); return err }, ErrNotCapable},
		{"advise", RightFDAdvise, func() error { return s.Advise(fd, 0, 0, unix.FADV_NORMAL) }, ErrNotCapable},
		{"sync", RightFDSync, func() error { return s.Sync(fd, false) }, ErrNotCapable},
		{"sync data", RightFDDatasync, func() error { return s.Sync(fd, true) }, ErrNotCapable},
		{"stat", RightFDFilestatGet, func() error { _, err := s.Stat(fd); return err }, ErrNotCapable},
		{"set times", RightFDFilestatSetTimes, func() error { return s.SetTimes(fd, 1, 1, SetAtim) }, ErrNotCapable},
		{"set flags", RightFDFdstatSetFlags, func() error { return s.SetFlags(fd, 0) }, ErrNotCapable},
	} {
		if c.lose != 0 {
			if err := c.call(); err != nil {
				t.Errorf("control: %s: %v", c.name, err)
			}
		}
		st, _ := s.Fdstat(fd)
		if err := s.SetRights(fd, st.Base&^c.lose, 0); err != nil {
			t.Fatal(err)
		}
		if err := c.call(); !errors.Is(err, c.want) {
			t.Errorf("%s without its right: %v, want %v", c.name, err, c.want)
		}
		if c.lose != 0 {
			if err := s.SetRights(fd, st.Base, 0); err != ErrNotCapable {
				t.Errorf("%s got its right back: %v", c.name, err)
			}
		}
	}
	dir := FirstPreopen
	if err := s.SetRights(uint32(dir), RightPathOpen, RightFDRead); err != nil {
		t.Fatal(err)
	}
	below := open(t, s, "f", 0, everything)
	if st, _ := s.Fdstat(below); st.Base != RightFDRead {
		t.Errorf("opened with all rights below a folder that passes on to read: %b", st.Base)
	}
	if _, err := s.Open(FirstPreopen, true, "g", OpenCreate, everything, everything, 0); err != ErrNotCapable {
		t.Errorf("create without the right: %v", err)
	}
	if err := s.CreateDirectory(FirstPreopen, "d"); err != ErrNotCapable {
		t.Errorf("make a folder without the right: %v", err)
	}
}

// TestResolution has one path of each kind, from a root and from a folder that
// is none.
func TestResolution(t *testing.T) {
	top := t.TempDir()
	box := filepath.Join(top, "box")
	if err := os.MkdirAll(filepath.Join(box, "d/e"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"secret", "box/f", "box/d/f"} {
		if err := os.WriteFile(filepath.Join(top, p), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"link": "d/f", "up": "d/../f", "out": "../secret", "abs": "/d/f", "loop": "loop", "dangling": "none", "dir": "d",
	} {
		if err := os.Symlink(target, filepath.Join(box, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		path         string
		root, folder error
	}{
		{"f", nil, nil}, {"./f", nil, nil}, {"d//f", nil, nil}, {"d/./f", nil, nil}, {"d/../f", nil, nil},
		{"d/e/../../f", nil, nil}, {"link", nil, nil}, {"up", nil, nil}, {"dir/f", nil, nil},
		{"..", nil, ErrNotCapable}, {"../f", nil, ErrNotCapable}, {"d/../../f", nil, ErrNotCapable},
		{"../secret", unix.ENOENT, ErrNotCapable}, {"out", unix.ENOENT, ErrNotCapable},
		{"abs", nil, ErrNotCapable}, {"/f", ErrNotCapable, ErrNotCapable},
		{"", unix.ENOENT, unix.ENOENT}, {"none", unix.ENOENT, unix.ENOENT}, {"dangling", unix.ENOENT, unix.ENOENT},
		{"f/", unix.ENOTDIR, unix.ENOTDIR}, {"link/", unix.ENOTDIR, unix.ENOTDIR}, {"f/.", unix.ENOTDIR, unix.ENOTDIR}, // GHSA-vqjp
		{"loop", unix.ELOOP, unix.ELOOP}, {"f\x00x", unix.EINVAL, unix.EINVAL},
		{string(make([]byte, MaxPath+1)), unix.ENAMETOOLONG, unix.ENAMETOOLONG},
	} {
		for _, root := range []bool{true, false} {
			want := c.folder
			if root {
				want = c.root
			}
			if _, err := in(t, box, root).StatPath(FirstPreopen, true, c.path); !errors.Is(err, want) || (want == nil) != (err == nil) {
				t.Errorf("%.40q, root %v: %v, want %v", c.path, root, err, want)
			}
		}
	}
}

// TestSpecialNames: "." and ".." are no names to make, remove or move, and
// where they lead out of a folder that is no root, not even that is told.
func TestSpecialNames(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, root := range []bool{true, false} {
		s := in(t, dir, root)
		for _, c := range []struct {
			name string
			call func(path string) error
			want error
		}{
			{"make", func(p string) error { return s.CreateDirectory(FirstPreopen, p) }, unix.EEXIST},
			{"remove", func(p string) error { return s.RemoveDirectory(FirstPreopen, p) }, unix.EINVAL},
			{"unlink", func(p string) error { return s.UnlinkFile(FirstPreopen, p) }, unix.EISDIR},
			{"move", func(p string) error { return s.Rename(FirstPreopen, p, FirstPreopen, "x") }, unix.EBUSY},
			{"move onto", func(p string) error { return s.Rename(FirstPreopen, "d", FirstPreopen, p) }, unix.EBUSY},
			{"link", func(p string) error { return s.Link(FirstPreopen, false, p, FirstPreopen, "x") }, unix.EPERM},
			{"link to", func(p string) error { return s.Symlink("d", FirstPreopen, p) }, unix.EEXIST},
		} {
			for _, path := range []string{".", "d/.", "d/..", "d/../", ".."} {
				want := c.want
				if path == ".." && !root {
					want = ErrNotCapable
				}
				if err := c.call(path); err != want {
					t.Errorf("%s %q, root %v: %v, want %v", c.name, path, root, err, want)
				}
			}
		}
	}
}

// TestNotFollowed: a link that is not to be followed is not opened.
func TestNotFollowed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	s := in(t, dir, true)
	for _, flags := range []OpenFlags{0, OpenCreate, OpenTruncate} {
		if _, err := s.Open(FirstPreopen, false, "link", flags, everything, 0, 0); err != unix.ELOOP {
			t.Errorf("flags %x: %v, want %v", flags, err, unix.ELOOP)
		}
		if _, err := s.Open(FirstPreopen, true, "link", flags, everything, 0, 0); err != nil {
			t.Errorf("control: flags %x: %v", flags, err)
		}
	}
}
