package confine_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/confine"
	"github.com/limpet-cri/limpet/test/scratch"
)

// rootfs returns a clone of an image's root file system, as package image
// gives it, with hostile and honest links.
func rootfs(t *testing.T, attr uint64) (*os.File, string) {
	needRoot(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "run/pid"), "1")
	writeFile(t, filepath.Join(dir, "etc/hostname"), "image")
	writeFile(t, filepath.Join(dir, "file"), "file")
	if err := os.MkdirAll(filepath.Join(dir, "var"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{
		"var/run": "/run", "up": "../../../../../../../..", "escape": "/../../../tmp",
		"dangling": "/nowhere/at/all", "loop": "loop", "proc": "/proc/self/root",
		"etc/resolv.conf": "../run/resolv.conf",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	return must(confine.Clone(dir, attr))(t), dir
}

func volumes(t *testing.T) (folder, file string) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "folder/inside"), "volume")
	writeFile(t, filepath.Join(dir, "file"), "single")
	return filepath.Join(dir, "folder"), filepath.Join(dir, "file")
}

// Places are found as the guest would find them: links lead on, but never out
// of the root.
func TestPlacesInAnImage(t *testing.T) {
	for _, c := range []struct {
		place string
		file  bool
		look  string // where the volume must be seen
		fails string // what is said instead
	}{
		{place: "/data", look: "/guest/data/inside"},
		{place: "/a/b/c", look: "/guest/a/b/c/inside"},
		{place: "/var/run/secrets", look: "/guest/run/secrets/inside"},
		{place: "/var/run", look: "/guest/run/inside"},
		{place: "/up/x", look: "/guest/x/inside"},
		{place: "/escape/x", fails: "place /escape: No such file"},
		{place: "/proc/x", fails: "place /proc/x: Too many levels"},
		{place: "/dangling", fails: "place /dangling: No such file"},
		{place: "/loop/x", fails: "place /loop/x: Too many levels"},
		{place: "/file/x", fails: "place /file/x: Not a directory"},
		{place: "/file", fails: "place /file: is a file in the image"},
		{place: "/etc/hostname", file: true, look: "/guest/etc/hostname"},
		{place: "/etc/hosts", file: true, look: "/guest/etc/hosts"},
		{place: "/etc", file: true, fails: "place /etc: is a folder in the image"},
		{place: "/etc/resolv.conf", file: true, fails: "place /etc/resolv.conf: No such file"},
	} {
		t.Run(strings.ReplaceAll(c.place[1:], "/", "_"), func(t *testing.T) {
			root, dir := rootfs(t, confine.Volume)
			folder, file := volumes(t)
			v, want := volume{folder, c.place, confine.Volume, false}, `"volume"`
			if c.file {
				v, want = volume{file, c.place, confine.ReadOnlyVolume, true}, `"single"`
			}
			p := run(t, setup{root: root, mounts: []volume{v}, payload: "read " + c.look + "\n"})
			state, said := p.end()
			if c.fails != "" {
				if state.ExitCode() != 71 || !strings.Contains(said, "confine: mounts: "+c.fails) {
					t.Errorf("exit %d, %q, want %q", state.ExitCode(), said, c.fails)
				}
			} else if got := p.answers["read "+c.look]; got != want {
				t.Errorf("%s = %s, want %s; %s", c.look, got, want, said)
			}
			if _, err := os.Lstat("/tmp/x"); err == nil {
				t.Error("a place was made outside the root")
			}
			if mounts := must(os.ReadFile("/proc/self/mountinfo"))(t); strings.Contains(string(mounts), dir) {
				t.Error("a mount shows on the node")
			}
		})
	}
}

// A read-only image without the place is refused with the place's name; with
// it, it works.
func TestReadOnlyImage(t *testing.T) {
	folder, _ := volumes(t)
	readOnly := func(o *confine.Order) { o.Root.ReadOnly = true }
	root, _ := rootfs(t, confine.ReadOnlyVolume)
	p := run(t, setup{root: root, order: readOnly, payload: "pid\n",
		mounts: []volume{{folder, "/missing/deep", confine.Volume, false}}})
	if state, said := p.end(); state.ExitCode() != 71 || said != "confine: mounts: make place /missing: Read-only file system\n" {
		t.Errorf("exit %d, %q", state.ExitCode(), said)
	}
	root, _ = rootfs(t, confine.ReadOnlyVolume)
	p = run(t, setup{root: root, order: readOnly, payload: "read /guest/run/inside\nread /guest/etc/hostname\ncreate /guest/run/x\ncreate /guest/x\n",
		mounts: []volume{{folder, "/run", confine.Volume, false}}})
	if wrong := answers(map[string]string{
		"read /guest/run/inside": `"volume"`, "read /guest/etc/hostname": `"image"`,
		"create /guest/run/x": "EACCES", // the folder is root's
		"create /guest/x":     "EROFS",
	})(t, p); wrong != "" {
		t.Error(wrong)
	}
}

// Whatever the attributes of the root that the daemon hands over, those of a
// guest's root are the constructor's.
func TestAttributesOfTheRoot(t *testing.T) {
	root, _ := rootfs(t, 0)
	p := run(t, setup{root: root, order: func(o *confine.Order) { o.Root.ReadOnly = true }})
	if wrong := mountOptions(t, p); wrong != "" {
		t.Error(wrong)
	}
}

// A volume's own content, which a guest may have written, leads nowhere else.
func TestPlacesInAVolume(t *testing.T) {
	needRoot(t)
	folder, _ := volumes(t)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Mkdir(outside, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(folder, "link")); err != nil {
		t.Fatal(err)
	}
	p := run(t, setup{payload: "pid\n", mounts: []volume{
		{folder, "/data", confine.Volume, false},
		{folder, "/data/link/made", confine.Volume, false},
	}})
	if state, said := p.end(); state.ExitCode() != 71 || !strings.Contains(said, "place /data/link: No such file") {
		t.Errorf("exit %d, %q", state.ExitCode(), said)
	}
	if l := must(os.ReadDir(outside))(t); len(l) != 0 {
		t.Errorf("made outside: %v", l)
	}
}

// A rename between folders of a writable volume, and a truncation, pass
// Landlock; what lies in a read-only one does not move.
func TestWritableVolume(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a/f"), "text")
	if err := os.Mkdir(filepath.Join(dir, "b"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "a/f"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	p := run(t, setup{
		payload: "write /guest/rw/a/f\nrename /guest/ro/a/f /guest/ro/b/f\nrename /guest/rw/a/f /guest/rw/b/f\nread /guest/ro/b/f\n",
		mounts: []volume{
			{dir, "/rw", confine.Volume, false}, {dir, "/ro", confine.ReadOnlyVolume, false},
		}})
	if wrong := answers(map[string]string{
		"write /guest/rw/a/f": "ok", "rename /guest/ro/a/f /guest/ro/b/f": "EROFS",
		"rename /guest/rw/a/f /guest/rw/b/f": "ok", "read /guest/ro/b/f": `"probe"`,
	})(t, p); wrong != "" {
		t.Error(wrong)
	}
}

// The memory-backed root holds as much as it was given, and no more names than
// are of use in it: they are memory too.
func TestRootSize(t *testing.T) {
	p := run(t, setup{payload: "fill /guest/tmp/x\nnames /guest/tmp/\n", order: func(o *confine.Order) { o.Root.Size = 64 << 10 }})
	if wrong := answers(map[string]string{"fill /guest/tmp/x": "65536 ENOSPC", "names /guest/tmp/": "269 ENOSPC"})(t, p); wrong != "" {
		t.Error(wrong)
	}
}

// What a folder's mount is given as a file, and the other way round.
func TestWrongKinds(t *testing.T) {
	needRoot(t)
	folder, file := volumes(t)
	for _, v := range []volume{{folder, "/f", confine.Volume, true}, {file, "/f", confine.Volume, false}} {
		p := run(t, setup{payload: "pid\n", mounts: []volume{v}})
		if state, said := p.end(); state.ExitCode() != 71 || !strings.Contains(said, "confine: mounts: mount /f: is") {
			t.Errorf("exit %d, %q", state.ExitCode(), said)
		}
	}
}

// Nothing of a probe is left on the node.
func TestNothingIsLeft(t *testing.T) {
	needRoot(t)
	one := func() {
		p := run(t, prepareVolumes(t))
		p.end()
		p.close()
	}
	one() // the Go runtime opens descriptors of its own for the first
	before := scratch.Mounts(t)
	fds := len(must(os.ReadDir("/proc/self/fd"))(t))
	for range 5 {
		one()
	}
	if after := scratch.Mounts(t); after != before {
		t.Errorf("mounts differ:\n%s\n%s", before, after)
	}
	// Fewer is no leak: what earlier tests left to the collector may go meanwhile.
	if n := len(must(os.ReadDir("/proc/self/fd"))(t)); n > fds {
		t.Errorf("%d descriptors, before %d", n, fds)
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/guest", &st); err == nil {
		t.Error("there is a /guest on the node")
	}
}
