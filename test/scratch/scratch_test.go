package scratch

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// stray makes a folder of our kind with a file in it, held or not.
func stray(t *testing.T, place string, held bool) string {
	t.Helper()
	dir, err := os.MkdirTemp(place, prefix)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if held {
		lock, err := hold(dir, unix.LOCK_SH)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { lock.Close() })
	}
	return dir
}

func there(path string) bool { _, err := os.Lstat(path); return err == nil }

// What a process holds stays, what nobody holds goes, what is not ours is not
// looked at.
func TestSweep(t *testing.T) {
	place := t.TempDir()
	held, left, other := stray(t, place, true), stray(t, place, false), filepath.Join(place, "limpet-other")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(place, prefix+"link")
	if err := os.Symlink(other, link); err != nil {
		t.Fatal(err)
	}
	sweep(place)
	if !there(filepath.Join(held, "file")) || there(left) || !there(other) || !there(link) {
		t.Errorf("held %v, left %v, other %v, link %v", there(held), there(left), there(other), there(link))
	}
}

// What is mounted in a folder is unmounted, and not emptied.
func TestSweepMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	place, precious := t.TempDir(), t.TempDir()
	file := filepath.Join(precious, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	left := stray(t, place, false)
	at := filepath.Join(left, "volume")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(precious, at, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	sweep(place)
	if !there(file) || there(left) {
		t.Errorf("what was mounted is there: %v; the folder: %v", there(file), there(left))
	}
}

func TestShared(t *testing.T) {
	dir, done, err := Shared()
	if err != nil {
		t.Fatal(err)
	}
	sweep(filepath.Dir(dir))
	if !there(dir) {
		t.Error("swept while it is held")
	}
	if err := done(); err != nil || there(dir) {
		t.Errorf("%v, there: %v", err, there(dir))
	}
}
