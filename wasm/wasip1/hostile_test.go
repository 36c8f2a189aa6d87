package wasip1

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm/wasi"
)

// world is a folder that a guest may see ("box") beside things that it may
// not.
type world struct {
	top, box, outside string
	clean             string // what all of it looked like when it was made
}

func newWorld(t testing.TB) *world {
	t.Helper()
	top := t.TempDir()
	w := &world{top: top, box: filepath.Join(top, "box"), outside: filepath.Join(top, "outside")}
	return w
}

// fresh makes the world anew if something in it has changed.
func (w *world) fresh(t testing.TB) {
	t.Helper()
	if w.clean == "" || w.look(t, w.top) != w.clean {
		w.fill(t)
		w.clean = w.look(t, w.top)
	}
}

func (w *world) fill(t testing.TB) {
	t.Helper()
	for _, p := range []string{w.box, w.outside} {
		if err := os.RemoveAll(p); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{"box/in", "box/in/deep", "outside/folder", "outside/empty"} {
		w.must(t, os.MkdirAll(filepath.Join(w.top, p), 0o755))
	}
	for _, p := range []string{"box/mine", "box/in/file", "outside/secret", "outside/folder/secret"} {
		w.must(t, os.WriteFile(filepath.Join(w.top, p), []byte("content of "+p), 0o644))
	}
	for name, target := range map[string]string{
		"outside/link":   "told",
		"box/file":       "../outside/secret",
		"box/absfile":    filepath.Join(w.outside, "secret"),
		"box/dir":        "../outside",
		"box/absdir":     w.outside,
		"box/chain":      "in/hop",
		"box/in/hop":     "../../outside/secret",
		"box/dirchain":   "in/dirhop",
		"box/in/dirhop":  "../../outside",
		"box/dangling":   "../outside/made",
		"box/danglingab": filepath.Join(w.outside, "made"),
		"box/in/up":      "..",
		"box/viaup":      "in/up/../outside/secret",
	} {
		w.must(t, os.Symlink(target, filepath.Join(w.top, name)))
	}
}

func (w *world) must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// look describes all that is below a folder: names, inodes, times, sizes.
func (w *world) look(t testing.TB, folder string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(folder, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		w.must(t, unix.Lstat(p, &st))
		b.WriteString(p + " " + strconv.FormatUint(st.Ino, 10) + " " + strconv.FormatInt(st.Mtim.Nano(), 10) +
			" " + strconv.FormatUint(uint64(st.Nlink), 10) + " " + strconv.FormatInt(st.Size, 10) + "\n")
		return nil
	})
	w.must(t, err)
	return b.String()
}

// inodes are those of everything outside, the folder above the box included.
func (w *world) inodes(t testing.TB) map[uint64]bool {
	var st unix.Stat_t
	w.must(t, unix.Stat(w.top, &st))
	found := map[uint64]bool{st.Ino: true}
	for _, line := range strings.Split(strings.TrimSpace(w.look(t, w.outside)), "\n") {
		n, err := strconv.ParseUint(strings.Fields(line)[1], 10, 64)
		w.must(t, err)
		found[n] = true
	}
	return found
}

// hostilePaths are the ways out of the box.
func hostilePaths(w *world) map[string]string {
	return map[string]string{
		"dotdot":                 "../outside/secret",
		"dotdot to a folder":     "../outside/empty",
		"dotdot to a new name":   "../outside/made",
		"dotdot behind a folder": "in/../../outside/secret",
		"dotdot with slashes":    "in//..///..//outside/./secret",
		"dotdot alone":           "..",
		"dotdot twice":           "in/../..",
		"dotdot slash":           "../",
		"absolute":               filepath.Join(w.outside, "secret"),
		"absolute new":           filepath.Join(w.outside, "made"),
		"link to a file":         "file",
		"absolute link":          "absfile",
		"link to a folder":       "dir",
		"link, slash":            "dir/", // GHSA-vqjp: a slash behind a link follows it, whatever was asked
		"link, slashes":          "dir//",
		"link, dot":              "dir/.",
		"absolute link, slash":   "absdir/",
		"below a link":           "dir/secret",
		"new below a link":       "dir/made",
		"folder below a link":    "dir/empty",
		"folder, slash":          "dir/empty/",
		"link below a link":      "dir/link",
		"below an absolute link": "absdir/secret",
		"new below absolute":     "absdir/made",
		"chain":                  "chain",
		"below a chain":          "dirchain/secret",
		"new below a chain":      "dirchain/made",
		"chain, slash":           "dirchain/",
		"dangling link":          "dangling",
		"dangling absolute":      "danglingab",
		"link upwards":           "in/up/../outside/secret",
		"link over a link":       "viaup",
		"link and dotdot":        "dir/../outside/secret",
	}
}

// act is what a path call did: the inode it told of or opened, text it read.
type act struct {
	ino  uint64
	text string
}

// pathCall is one way to hand a path to a call, and what a runtime would do
// that hands the path to the kernel as it came.
type pathCall struct {
	name  string
	guest func(c *tester, path string) act
	naive func(dir int, path string) act
}

func openCall(name string, follow, oflags, rights uint64, flags int) pathCall {
	return pathCall{name, func(c *tester, path string) act {
		fd, e := c.open(3, path, follow, oflags, rights)
		if e != 0 {
			return act{}
		}
		defer c.ok("fd_close", fd)
		c.ok("fd_filestat_get", fd, atOut)
		return act{ino: c.u64(atOut + 8)}
	}, func(dir int, path string) act {
		fd, err := unix.Openat(dir, path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o644)
		if err != nil {
			return act{}
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			return act{}
		}
		return act{ino: st.Ino}
	}}
}

func statCall(name string, follow uint64, flags int) pathCall {
	return pathCall{name, func(c *tester, path string) act {
		p, n := c.put(atPath, path)
		if c.call("path_filestat_get", 3, follow, p, n, atOut) != 0 {
			return act{}
		}
		return act{ino: c.u64(atOut + 8)}
	}, func(dir int, path string) act {
		var st unix.Stat_t
		if unix.Fstatat(dir, path, &st, flags) != nil {
			return act{}
		}
		return act{ino: st.Ino}
	}}
}

// one is a call with a single path whose effect is seen outside.
func one(name string, guest func(c *tester, p, n uint64) Errno, naive func(dir int, path string) error) pathCall {
	return pathCall{name, func(c *tester, path string) act {
		p, n := c.put(atPath, path)
		guest(c, p, n)
		return act{}
	}, func(dir int, path string) act {
		_ = naive(dir, path)
		return act{}
	}}
}

// two is a call with a second path inside of the box.
func two(name, other string, guest func(c *tester, p, n, q, m uint64) Errno, naive func(dir int, path, other string) error) pathCall {
	return pathCall{name, func(c *tester, path string) act {
		p, n := c.put(atPath, path)
		q, m := c.put(atPath2, other)
		guest(c, p, n, q, m)
		return act{}
	}, func(dir int, path string) act {
		_ = naive(dir, path, other)
		return act{}
	}}
}

func pathCalls() []pathCall {
	now := []unix.Timespec{{Sec: 1}, {Sec: 1}}
	return []pathCall{
		openCall("path_open", 1, 0, roRights, unix.O_RDONLY),
		openCall("path_open nofollow", 0, 0, roRights, unix.O_RDONLY|unix.O_NOFOLLOW),
		openCall("path_open write", 1, 0, allRights, unix.O_RDWR),
		openCall("path_open create", 1, 1, allRights, unix.O_RDWR|unix.O_CREAT),
		openCall("path_open create nofollow", 0, 1, allRights, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW),
		openCall("path_open exclusive", 1, 5, allRights, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL),
		openCall("path_open truncate", 1, 8, roRights, unix.O_RDONLY|unix.O_TRUNC),
		openCall("path_open directory", 1, 2, roRights, unix.O_RDONLY|unix.O_DIRECTORY),
		statCall("path_filestat_get", 1, 0),
		statCall("path_filestat_get nofollow", 0, unix.AT_SYMLINK_NOFOLLOW),
		one("path_filestat_set_times", func(c *tester, p, n uint64) Errno {
			return c.call("path_filestat_set_times", 3, 1, p, n, 1e9, 1e9, 5)
		}, func(dir int, path string) error { return unix.UtimesNanoAt(dir, path, now, 0) }),
		one("path_filestat_set_times nofollow", func(c *tester, p, n uint64) Errno {
			return c.call("path_filestat_set_times", 3, 0, p, n, 1e9, 1e9, 5)
		}, func(dir int, path string) error { return unix.UtimesNanoAt(dir, path, now, unix.AT_SYMLINK_NOFOLLOW) }),
		one("path_create_directory", func(c *tester, p, n uint64) Errno {
			return c.call("path_create_directory", 3, p, n)
		}, func(dir int, path string) error { return unix.Mkdirat(dir, path, 0o755) }),
		one("path_remove_directory", func(c *tester, p, n uint64) Errno {
			return c.call("path_remove_directory", 3, p, n)
		}, func(dir int, path string) error { return unix.Unlinkat(dir, path, unix.AT_REMOVEDIR) }),
		one("path_unlink_file", func(c *tester, p, n uint64) Errno {
			return c.call("path_unlink_file", 3, p, n)
		}, func(dir int, path string) error { return unix.Unlinkat(dir, path, 0) }),
		{"path_readlink", func(c *tester, path string) act {
			p, n := c.put(atPath, path)
			if c.call("path_readlink", 3, p, n, atData, 100, atOut) != 0 {
				return act{}
			}
			return act{text: string(c.mem[atData : atData+int(c.u32(atOut))])}
		}, func(dir int, path string) act {
			b := make([]byte, 100)
			n, _ := unix.Readlinkat(dir, path, b)
			return act{text: string(b[:max(n, 0)])}
		}},
		two("path_rename from", "stolen", func(c *tester, p, n, q, m uint64) Errno {
			return c.call("path_rename", 3, p, n, 3, q, m)
		}, func(dir int, path, other string) error { return unix.Renameat(dir, path, dir, other) }),
		two("path_rename to", "mine", func(c *tester, p, n, q, m uint64) Errno {
			return c.call("path_rename", 3, q, m, 3, p, n)
		}, func(dir int, path, other string) error { return unix.Renameat(dir, other, dir, path) }),
		two("path_rename folder to", "in", func(c *tester, p, n, q, m uint64) Errno {
			return c.call("path_rename", 3, q, m, 3, p, n)
		}, func(dir int, path, other string) error { return unix.Renameat(dir, other, dir, path) }),
		two("path_link from", "stolen", func(c *tester, p, n, q, m uint64) Errno {
			return c.call("path_link", 3, 0, p, n, 3, q, m)
		}, func(dir int, path, other string) error { return unix.Linkat(dir, path, dir, other, 0) }),
		two("path_link from follow", "stolen", func(c *tester, p, n, q, m uint64) Errno {
			return c.call("path_link", 3, 1, p, n, 3, q, m)
		}, func(dir int, path, other string) error {
			return unix.Linkat(dir, path, dir, other, unix.AT_SYMLINK_FOLLOW)
		}),
		two("path_link to", "mine", func(c *tester, p, n, q, m uint64) Errno {
			return c.call("path_link", 3, 0, q, m, 3, p, n)
		}, func(dir int, path, other string) error { return unix.Linkat(dir, other, dir, path, 0) }),
		two("path_symlink", "mine", func(c *tester, p, n, q, m uint64) Errno {
			return c.call("path_symlink", q, m, 3, p, n)
		}, func(dir int, path, other string) error { return unix.Symlinkat(other, dir, path) }),
	}
}

// escaped says what of a call's effect lies outside of the box.
func (w *world) escaped(t testing.TB, a act, inodes map[uint64]bool, before string) string {
	switch {
	case inodes[a.ino]:
		return "it reached an inode outside"
	case a.text == "told":
		return "it read a link outside"
	case w.look(t, w.outside) != before:
		return "it changed something outside"
	}
	return ""
}

// TestHostilePaths hands every hostile path to every path call, with a folder
// as preopen and with a root, and the same to the bare kernel as the control:
// each path must lead out through some call there, and each call must be led
// out by some path.
func TestHostilePaths(t *testing.T) {
	w := newWorld(t)
	calls, paths := pathCalls(), hostilePaths(w)
	byCall, byPath := map[string]bool{}, map[string]bool{}
	for _, call := range calls {
		for name, path := range paths {
			if w.control(t, call, path) {
				byCall[call.name], byPath[name] = true, true
			}
			for _, root := range []bool{false, true} {
				w.fresh(t)
				inodes, before := w.inodes(t), w.look(t, w.outside)
				c := newTester(t, wasi.Config{Stdin: -1, Preopens: []wasi.Preopen{{Name: "/", FD: folder(t, w.box), Root: root}}})
				if how := w.escaped(t, call.guest(c, path), inodes, before); how != "" {
					t.Errorf("%s(%q), %s, root %v: %s", call.name, path, name, root, how)
				}
				c.sys.Close()
			}
		}
	}
	for _, call := range calls {
		if !byCall[call.name] {
			t.Errorf("control: no path leads out through %s", call.name)
		}
	}
	for name := range paths {
		if !byPath[name] {
			t.Errorf("control: %s leads out through no call", name)
		}
	}
}

func (w *world) control(t testing.TB, call pathCall, path string) bool {
	w.fresh(t)
	inodes, before := w.inodes(t), w.look(t, w.outside)
	dir := folder(t, w.box)
	defer unix.Close(dir)
	return w.escaped(t, call.naive(dir, path), inodes, before) != ""
}
