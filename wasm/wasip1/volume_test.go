package wasip1

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm/wasi"
)

// publish writes one version of a ConfigMap as the kubelet does: a new folder,
// a link to it beside the old one, and that renamed over the old one.
func publish(dir string, version int) error {
	text := strconv.Itoa(version)
	to := filepath.Join(dir, "..v"+text)
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	for _, key := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(to, key), []byte(text), 0o644); err != nil {
			return err
		}
	}
	tmp := filepath.Join(dir, "..data_tmp")
	if err := os.Symlink("..v"+text, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, "..data"))
}

func farm(t *testing.T) (root, volume string) {
	root = t.TempDir()
	volume = filepath.Join(root, "etc", "config")
	if err := os.MkdirAll(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := publish(volume, 0); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b"} {
		if err := os.Symlink("..data/"+key, filepath.Join(volume, key)); err != nil {
			t.Fatal(err)
		}
	}
	return root, volume
}

func (c *tester) contents(dir uint64, path string) string {
	c.t.Helper()
	fd, e := c.open(dir, path, 1, 0, roRights)
	if e != 0 {
		c.t.Fatalf("open %s: errno %d", path, e)
	}
	s, e := c.read(fd, 100)
	if e != 0 {
		c.t.Fatalf("read %s: errno %d", path, e)
	}
	c.ok("fd_close", fd)
	return s
}

// TestLinkFarm reads a ConfigMap while it is updated: from the root, from a
// link of another volume, and from an opened folder.
func TestLinkFarm(t *testing.T) {
	root, volume := farm(t)
	if err := os.Symlink("/etc/config/a", filepath.Join(root, "abs")); err != nil {
		t.Fatal(err)
	}
	c := rooted(t, root)
	dir, e := c.open(3, "etc/config", 1, 2, roRights)
	if e != 0 {
		t.Fatal(e)
	}
	const versions = 300
	done := make(chan error, 1)
	go func() {
		for v := 1; v <= versions; v++ {
			if err := publish(volume, v); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	last, reads := 0, 0
	read := func() {
		for _, s := range []string{c.contents(3, "etc/config/a"), c.contents(3, "abs"), c.contents(dir, "b"), c.contents(3, "etc/config/../config/b")} {
			v, err := strconv.Atoi(s)
			if err != nil || v < last {
				t.Fatalf("read %q after version %d", s, last)
			}
			last, reads = v, reads+1
		}
	}
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			read()
			if last != versions {
				t.Fatalf("version %d at the end, want %d", last, versions)
			}
			return
		default:
			read()
		}
	}
}

// TestAbsoluteLinks shows which preopens follow one, and where it leads.
func TestAbsoluteLinks(t *testing.T) {
	root, _ := farm(t)
	if err := os.Symlink("/etc/config/a", filepath.Join(root, "abs")); err != nil {
		t.Fatal(err)
	}
	rootedTester := rooted(t, root)
	if s := rootedTester.contents(3, "abs"); s != "0" {
		t.Fatal(s)
	}
	c := newTester(t, wasi.Config{Stdin: -1, Preopens: []wasi.Preopen{{Name: "/box", FD: folder(t, root)}}})
	if _, e := c.open(3, "abs", 1, 0, roRights); e != errnoNotcapable {
		t.Fatalf("errno %d", e)
	}
}

// TestRace swaps a folder with a link to one outside, while the guest opens,
// creates and removes below it.
func TestRace(t *testing.T) {
	w := newWorld(t)
	w.fresh(t)
	flip, link := filepath.Join(w.box, "flip"), filepath.Join(w.box, "other")
	w.must(t, os.Mkdir(flip, 0o755))
	w.must(t, os.WriteFile(filepath.Join(flip, "secret"), []byte("inside"), 0o644))
	w.must(t, os.Symlink("../outside", link))
	inodes, before := w.inodes(t), w.look(t, w.outside)

	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
				if err := unix.Renameat2(unix.AT_FDCWD, flip, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	for _, root := range []bool{false, true} {
		c := newTester(t, wasi.Config{Stdin: -1, Preopens: []wasi.Preopen{{Name: "/", FD: folder(t, w.box), Root: root}}})
		for range 3000 {
			if fd, e := c.open(3, "flip/secret", 1, 0, roRights); e == 0 {
				c.ok("fd_filestat_get", fd, atOut)
				if inodes[c.u64(atOut+8)] {
					t.Fatal("opened a file outside")
				}
				c.ok("fd_close", fd)
			}
			p, n := c.put(atPath, "flip/made")
			c.call("path_create_directory", 3, p, n)
			c.call("path_remove_directory", 3, p, n)
		}
	}
	control := false
	dir := folder(t, w.box)
	defer unix.Close(dir)
	for i := 0; i < 1_000_000 && !control; i++ {
		var st unix.Stat_t
		control = unix.Fstatat(dir, "flip/secret", &st, 0) == nil && inodes[st.Ino]
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !control {
		t.Error("control: the race leads nowhere")
	}
	if w.look(t, w.outside) != before {
		t.Error("something outside has changed")
	}
}
