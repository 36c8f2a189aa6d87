package wasip1

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm/wasi"
)

// change is a call that changes something at path, which exists (a file) or,
// for a folder's calls, is beside it.
var changes = []struct {
	name string
	do   func(c *tester, dir uint64, base string) Errno
}{
	{"open to write", func(c *tester, dir uint64, base string) Errno {
		_, e := c.open(dir, base+"/file", 1, 0, allRights)
		return e
	}},
	{"open to truncate with a right to read only", func(c *tester, dir uint64, base string) Errno {
		_, e := c.open(dir, base+"/file", 1, 8, roRights) // GHSA-2r75
		return e
	}},
	{"open to truncate without any right", func(c *tester, dir uint64, base string) Errno {
		_, e := c.open(dir, base+"/file", 1, 8, 0)
		return e
	}},
	{"create", func(c *tester, dir uint64, base string) Errno {
		_, e := c.open(dir, base+"/new", 1, 1, roRights)
		return e
	}},
	{"create exclusively", func(c *tester, dir uint64, base string) Errno {
		_, e := c.open(dir, base+"/new2", 1, 5, roRights)
		return e
	}},
	{"path_create_directory", func(c *tester, dir uint64, base string) Errno {
		p, n := c.put(atPath, base+"/newdir")
		return c.call("path_create_directory", dir, p, n)
	}},
	{"path_remove_directory", func(c *tester, dir uint64, base string) Errno {
		p, n := c.put(atPath, base+"/dir")
		return c.call("path_remove_directory", dir, p, n)
	}},
	{"path_filestat_set_times", func(c *tester, dir uint64, base string) Errno {
		p, n := c.put(atPath, base+"/file")
		return c.call("path_filestat_set_times", dir, 1, p, n, 1, 1, 5)
	}},
	{"path_symlink", func(c *tester, dir uint64, base string) Errno {
		p, n := c.put(atPath, base+"/newlink")
		q, m := c.put(atPath2, "file")
		return c.call("path_symlink", q, m, dir, p, n)
	}},
	{"path_link within", func(c *tester, dir uint64, base string) Errno {
		p, n := c.put(atPath, base+"/file")
		q, m := c.put(atPath2, base+"/hard")
		return c.call("path_link", dir, 0, p, n, dir, q, m)
	}},
	{"fd_filestat_set_times", func(c *tester, dir uint64, base string) Errno {
		fd, e := c.open(dir, base+"/file", 1, 0, roRights)
		if e != 0 {
			c.t.Fatal(e)
		}
		return c.call("fd_filestat_set_times", fd, 1, 1, 5)
	}},
	{"path_rename within", func(c *tester, dir uint64, base string) Errno {
		p, n := c.put(atPath, base+"/file")
		q, m := c.put(atPath2, base+"/moved")
		return c.call("path_rename", dir, p, n, dir, q, m)
	}},
	{"path_unlink_file", func(c *tester, dir uint64, base string) Errno {
		p, n := c.put(atPath, base+"/other")
		return c.call("path_unlink_file", dir, p, n)
	}},
}

func fillVolume(t testing.TB, dir string) {
	t.Helper()
	for _, f := range []string{"file", "other"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("content"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// checkReadOnly runs every change on base, which is read-only by our word
// alone, and on control, which is the same but writable.
func checkReadOnly(t *testing.T, c *tester, dir uint64, base string, controlDir uint64, control, host string) {
	t.Helper()
	for _, ch := range changes {
		if e := ch.do(c, dir, base); e != errnoRofs {
			t.Errorf("%s: errno %d, want rofs", ch.name, e)
		}
	}
	if b, err := os.ReadFile(filepath.Join(host, "file")); string(b) != "content" || err != nil {
		t.Errorf("the file now holds %q (%v)", b, err)
	}
	for _, ch := range changes {
		if e := ch.do(c, controlDir, control); e != 0 {
			t.Errorf("control: %s: errno %d", ch.name, e)
		}
	}
}

func TestReadOnlyPreopen(t *testing.T) {
	ro, rw := t.TempDir(), t.TempDir()
	fillVolume(t, ro)
	fillVolume(t, rw)
	c := newTester(t, wasi.Config{Stdin: -1, Preopens: []wasi.Preopen{
		{Name: "/ro", FD: folder(t, ro), ReadOnly: true}, {Name: "/rw", FD: folder(t, rw)},
	}})
	checkReadOnly(t, c, 3, ".", 4, ".", ro)
	// What exists may be opened with a flag that would have created it.
	if _, e := c.open(3, "file", 1, 1, roRights); e != 0 {
		t.Errorf("open of what exists with the flag to create: errno %d", e)
	}
	if _, e := c.open(3, "file", 1, 5, roRights); e != errnoExist {
		t.Errorf("exclusive creation of what exists: errno %d", e)
	}
}

// TestAcrossPreopens is GHSA-4ch3: a file of a read-only preopen must not get
// a name in a writable one.
func TestAcrossPreopens(t *testing.T) {
	top := t.TempDir()
	for _, d := range []string{"ro", "rw", "rw2"} {
		if err := os.Mkdir(filepath.Join(top, d), 0o755); err != nil {
			t.Fatal(err)
		}
		fillVolume(t, filepath.Join(top, d))
	}
	c := newTester(t, wasi.Config{Stdin: -1, Preopens: []wasi.Preopen{
		{Name: "/ro", FD: folder(t, filepath.Join(top, "ro")), ReadOnly: true},
		{Name: "/rw", FD: folder(t, filepath.Join(top, "rw"))},
		{Name: "/rw2", FD: folder(t, filepath.Join(top, "rw2"))},
	}})
	p, n := c.put(atPath, "file")
	q, m := c.put(atPath2, "stolen")
	for _, call := range []struct {
		name     string
		from, to uint64
		want     Errno
	}{{"link", 3, 4, errnoRofs}, {"link", 4, 3, errnoRofs}, {"rename", 3, 4, errnoRofs}, {"rename", 4, 3, errnoRofs},
		{"link", 5, 4, 0}, {"rename", 5, 4, 0}} { // the last two are the control
		var e Errno
		if call.name == "link" {
			e = c.call("path_link", call.from, 0, p, n, call.to, q, m)
		} else {
			e = c.call("path_rename", call.from, p, n, call.to, q, m)
		}
		if e != call.want {
			t.Errorf("%s from %d to %d: errno %d, want %d", call.name, call.from, call.to, e, call.want)
		}
	}
}

// mountNamespace gives the test a mount namespace of its own; its goroutine
// keeps the thread, which ends with it.
func mountNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Skip("needs a mount namespace: " + err.Error())
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
}

func mountTmpfs(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
}

// TestPlaces has mounts in one another that the kernel would let the guest
// write to, so that every refusal is ours.
func TestPlaces(t *testing.T) {
	mountNamespace(t)
	top := t.TempDir()
	root := filepath.Join(top, "root")
	mountTmpfs(t, root)
	for _, d := range []string{"rw", "rw/ro", "rw/ro/rw", "ro"} {
		mountTmpfs(t, filepath.Join(root, d))
		fillVolume(t, filepath.Join(root, d))
	}
	single := filepath.Join(root, "rw", "single")
	for _, p := range []string{single, filepath.Join(top, "config")} {
		if err := os.WriteFile(p, []byte("content"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(filepath.Join(top, "config"), single, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(single, unix.MNT_DETACH) })
	for name, target := range map[string]string{"toro": "/ro", "torw": "/rw/ro/rw", "tosingle": "/rw/single"} {
		if err := os.Symlink(target, filepath.Join(root, "rw", name)); err != nil {
			t.Fatal(err)
		}
	}
	c := newTester(t, wasi.Config{
		Stdin:    -1,
		Preopens: []wasi.Preopen{{Name: "/", FD: folder(t, root), Root: true, ReadOnly: true}},
		Places: []wasi.Place{
			{Path: "/rw"}, {Path: "/rw/ro", ReadOnly: true}, {Path: "/rw/ro/rw"}, {Path: "/ro", ReadOnly: true},
			{Path: "/rw/single", ReadOnly: true},
		},
	})
	checkReadOnly(t, c, 3, "rw/ro", 3, "rw", filepath.Join(root, "rw/ro"))
	checkReadOnly(t, c, 3, "rw/toro", 3, "rw/ro/../ro/rw", filepath.Join(root, "ro"))
	for path, want := range map[string]Errno{"rw/single": errnoRofs, "rw/tosingle": errnoRofs, "rw/other2": 0} {
		if _, e := c.open(3, path, 1, 1, allRights); e != want {
			t.Errorf("open %s to write: errno %d, want %d", path, e, want)
		}
	}
	if _, e := c.open(3, "new", 1, 1, allRights); e != errnoRofs {
		t.Errorf("create in the read-only root: errno %d", e)
	}
	// A folder opened through a link keeps the word of its place.
	fd, e := c.open(3, "rw/torw", 1, 2, roRights)
	if e != 0 {
		t.Fatal(e)
	}
	if _, e := c.open(fd, "fresh", 1, 1, allRights); e != 0 {
		t.Errorf("create in a writable place through a link: errno %d", e)
	}
}

func TestPlaceThatIsNoMount(t *testing.T) {
	root := t.TempDir()
	fillVolume(t, root)
	_, err := wasi.New(wasi.Config{
		Stdin:    -1,
		Preopens: []wasi.Preopen{{Name: "/", FD: folder(t, root), Root: true}},
		Places:   []wasi.Place{{Path: "/dir", ReadOnly: true}},
	})
	if err == nil {
		t.Fatal("a place that is no mount was accepted")
	}
}
