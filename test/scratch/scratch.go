// Package scratch gives tests folders that are swept when a test could not do
// so itself: killed, out of time, its machine reset in the middle.
//
// A folder belongs to the process that holds a lock on it; the first call of a
// process removes what belongs to nobody, mounts in it first. It never looks at
// folders of other names or other users. Names are short, for sockets. A cgroup
// at the top that is named as a folder goes with it, processes first. Mounts is
// the node's mount table without such folders of others.
package scratch

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/cgroup"
)

const prefix = "limpet-t-"

// sweepOnce is done once per process: it looks at every mount of the machine.
var sweepOnce = sync.OnceFunc(func() { sweep(os.TempDir()) })

// Dir makes a folder for one test, which other users may enter; what is left in
// it when the test ends is an error of that test.
func Dir(t testing.TB) string {
	t.Helper()
	dir, done, err := Shared()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := done(); err != nil {
			t.Errorf("something is left: %v", err)
		}
	})
	return dir
}

// Shared makes a folder for all tests of a process. TestMain calls done.
func Shared() (dir string, done func() error, err error) {
	sweepOnce()
	for {
		if dir, err = os.MkdirTemp("", prefix); err != nil {
			return "", nil, err
		}
		lock, err := hold(dir, unix.LOCK_SH)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EWOULDBLOCK) {
			continue // another process swept it before it was locked
		}
		if err == nil {
			err = os.Chmod(dir, 0o755)
		}
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", nil, err
		}
		return dir, func() error { return errors.Join(os.RemoveAll(dir), lock.Close()) }, nil
	}
}

func hold(dir string, how int) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sweep removes the folders in place that nobody holds. What resists stays for
// the next process.
func sweep(place string) {
	dirs, err := filepath.Glob(filepath.Join(place, prefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		var st unix.Stat_t
		if unix.Lstat(dir, &st) != nil || int(st.Uid) != os.Geteuid() {
			continue
		}
		lock, err := hold(dir, unix.LOCK_EX)
		if err != nil {
			continue
		}
		// With a mount in it, removing would remove what is mounted.
		if end(filepath.Base(dir)) == nil && unmount(dir) == nil {
			_ = os.RemoveAll(dir)
		}
		_ = lock.Close()
	}
}

// end ends the processes of a cgroup and removes it.
func end(name string) error {
	h, err := cgroup.Detect(cgroup.Root)
	if err != nil || os.Geteuid() != 0 {
		return nil // none was made
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// Of both versions, and of a container's groups below the pod's.
	for _, top := range []string{filepath.Join(cgroup.Root, name), filepath.Join(cgroup.Root, "memory", name)} {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil // gone meanwhile, or never there
			}
			if rel, _ := filepath.Rel(cgroup.Root, path); h.Version() == 1 {
				_, path, _ = strings.Cut(rel, "/")
			} else {
				path = rel
			}
			return h.Open("/" + path).Kill()
		})
		if err != nil {
			return err
		}
	}
	return h.Open("/" + name).Remove(ctx)
}

// unmount takes away all mounts below dir, the youngest first.
func unmount(dir string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lines := slices.Collect(strings.Lines(string(b)))
	slices.Reverse(lines)
	for _, line := range lines {
		f := strings.Fields(line)
		if len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			if err := unix.Unmount(f[4], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				return err
			}
		}
	}
	return nil
}
