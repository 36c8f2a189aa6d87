package unpack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/test/scratch"
)

func layers(t *testing.T, n int, long bool) []string {
	t.Helper()
	dir := t.TempDir()
	if long {
		dir = filepath.Join(dir, strings.Repeat("l", 200), strings.Repeat("m", 100))
	}
	var ls []string
	for i := range n {
		l := filepath.Join(dir, fmt.Sprint(i))
		if err := os.MkdirAll(l, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(l, fmt.Sprint("f", i)), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		ls = append(ls, l)
	}
	return ls
}

func mountsOf(ls []string) []mount.Mount {
	if len(ls) == 1 {
		return []mount.Mount{{Type: "bind", Source: ls[0], Options: []string{"ro", "rbind"}}}
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"index=off", "lowerdir=" + strings.Join(ls, ":")}}}
}

// TestOpen: one layer, many, and paths too long for one string; read-only and
// with an upper folder; each by both ways of making it.
func TestOpen(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	before := scratch.Mounts(t)
	for _, n := range []int{1, 2, 50, 128} {
		for _, long := range []bool{false, true} {
			t.Run(fmt.Sprint(n, " long ", long), func(t *testing.T) {
				ls := layers(t, n, long)
				root, err := Open(mountsOf(ls), "", "")
				if err != nil {
					t.Fatal(err)
				}
				defer root.Close()
				checkRoot(t, root, n, unix.EROFS)
			})
		}
	}
	t.Run("upper", func(t *testing.T) {
		for _, n := range []int{1, 3} {
			ls, up := layers(t, n, false), layers(t, 2, false)
			for _, d := range up {
				os.RemoveAll(d)
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			root, err := Open(mountsOf(ls), up[0], up[1])
			if err != nil {
				t.Fatal(err)
			}
			checkRoot(t, root, n, nil)
			root.Close()
			if b, err := os.ReadFile(filepath.Join(up[0], "new")); err != nil || string(b) != "y" {
				t.Errorf("in upper: %q, %v", b, err)
			}
		}
	})
	t.Run("older kernels", func(t *testing.T) {
		ls := layers(t, 128, true)
		lower, rest := overlayParts(mountsOf(ls)[0])
		fd, err := mountedOverlay(lower, rest, "", "")
		if err != nil {
			t.Fatal(err)
		}
		root := os.NewFile(uintptr(fd), "root")
		defer root.Close()
		checkRoot(t, root, 128, unix.EROFS)
	})
	if after := scratch.Mounts(t); after != before {
		t.Errorf("mount table changed:\n%s\nwas\n%s", after, before)
	}
}

func checkRoot(t *testing.T, root *os.File, layers int, write error) {
	t.Helper()
	for i := range layers {
		fd, err := unix.Openat(int(root.Fd()), fmt.Sprint("f", i), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatalf("file of layer %d: %v", i, err)
		}
		unix.Close(fd)
	}
	fd, err := unix.Openat(int(root.Fd()), "new", unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if !errors.Is(err, write) {
		t.Errorf("write: %v, want %v", err, write)
	}
	if err == nil {
		if _, err := unix.Write(fd, []byte("y")); err != nil {
			t.Error(err)
		}
		unix.Close(fd)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	const want = unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC
	if st.Flags&want != want {
		t.Errorf("flags %x", st.Flags)
	}
}
