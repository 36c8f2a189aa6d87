package shim_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/logs"
	"github.com/limpet-cri/limpet/shim/spec"
)

// planted are what somebody may have put at a log's path. None of them may be
// written through, nor keep anybody waiting.
var planted = []struct {
	name string
	put  func(path, victim string) error
}{
	{"a link to a file", func(path, victim string) error { return os.Symlink(victim, path) }},
	{"a link to nothing", func(path, victim string) error { return os.Symlink(victim+"-not", path) }},
	{"a fifo", func(path, _ string) error { return unix.Mkfifo(path, 0o666) }},
	{"a device", func(path, _ string) error { return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) }},
	{"a folder", func(path, _ string) error { return os.Mkdir(path, 0o777) }},
}

func TestPlantedLogs(t *testing.T) {
	for _, p := range planted {
		t.Run(p.name, func(t *testing.T) {
			n := newNode(t)
			ctx := context.Background()
			victim := filepath.Join(n.dir, "victim")
			if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
				t.Fatal(err)
			}
			// Put there before the container is made.
			c := n.container(guestHello)
			if err := p.put(c.Limpet.LogPath, victim); err != nil {
				t.Fatal(err)
			}
			before := n.census()
			if _, err := n.sup.Create(ctx, c, nil); err == nil || !strings.Contains(err.Error(), "regular file") {
				t.Errorf("create: %v", err)
			}
			n.compare(before, n.census())
			// Put there while it runs, before the log is reopened.
			c = n.container(guestCount)
			h := n.start(c)
			n.awaitOutput(c, "tick")
			if err := os.Rename(c.Limpet.LogPath, c.Limpet.LogPath+".1"); err != nil {
				t.Fatal(err)
			}
			if err := p.put(c.Limpet.LogPath, victim); err != nil {
				t.Fatal(err)
			}
			if err := h.ReopenLog(ctx); err == nil || !strings.Contains(err.Error(), "regular file") {
				t.Errorf("reopen: %v", err)
			}
			if b, err := os.ReadFile(victim); err != nil || string(b) != "untouched" {
				t.Errorf("the link's target holds %q, %v", b, err)
			}
			if _, err := os.Lstat(victim + "-not"); err == nil {
				t.Error("a file was made through a link")
			}
			// The guest writes on where it did, and no line is lost.
			if err := os.Remove(c.Limpet.LogPath); err != nil {
				t.Fatal(err)
			}
			if err := h.ReopenLog(ctx); err != nil {
				t.Fatal(err)
			}
			n.awaitOutput(c, "tick")
		})
	}
}

// A log that is removed under the host takes nothing with it but its lines, and
// the next one begins with a whole line.
func TestRemovedLog(t *testing.T) {
	n := newNode(t)
	c := n.container(guestCount)
	h := n.start(c)
	n.awaitOutput(c, "tick")
	if err := os.RemoveAll(c.Limpet.LogPath); err != nil {
		t.Fatal(err)
	}
	if err := h.ReopenLog(context.Background()); err != nil {
		t.Fatal(err)
	}
	n.awaitOutput(c, "tick")
	if err := h.Stop(context.Background(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if x := n.ended(h); x.Code != 143 {
		t.Errorf("ended with %+v", x)
	}
	for line := range strings.Lines(n.output(c, logs.Stdout)) {
		if line != "tick\n" {
			t.Errorf("line %q", line)
		}
	}
}

// smallDisk mounts a file system that is soon full, and returns its folder.
func (n *node) smallDisk() string {
	n.Helper()
	disk := filepath.Join(n.dir, "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		n.Fatal(err)
	}
	if err := unix.Mount("limpet-test", disk, "tmpfs", 0, "size=128k"); err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			n.Error(err)
		}
	})
	return disk
}

// fill writes a file until the disk is full.
func (n *node) fill(disk string) (ballast string) {
	n.Helper()
	ballast = filepath.Join(disk, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		n.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		n.Fatal(err)
	}
	return ballast
}

// A container on a full disk cannot be made; one that was made before ends with
// its own code, for its exit record has its room. That it has a message is no
// hindrance.
func TestExitOnAFullDisk(t *testing.T) {
	for guest, code := range map[string]int32{guestExit3: 3, guestTrap: 134} {
		n := newNode(t)
		disk := n.smallDisk()
		on := func(c *spec.Container) { c.Dir = filepath.Join(disk, c.ID) }
		h := n.create(n.container(guest, on))
		n.fill(disk)
		if _, err := n.sup.Create(context.Background(), n.container(guest, on), nil); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("create: %v", err)
		}
		if err := h.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		if x := n.ended(h); x.Code != code {
			t.Errorf("ended with %+v, want %d", x, code)
		}
	}
}

// A full disk costs the guest lines of its log and nothing else: it runs on,
// ends with its own code, and once there is room the log says what is missing.
func TestLogOnAFullDisk(t *testing.T) {
	n := newNode(t)
	disk := n.smallDisk()
	c := n.container(guestCount, func(c *spec.Container) { c.Limpet.LogPath = filepath.Join(disk, "0.log") })
	h := n.start(c)
	n.awaitOutput(c, "tick")
	ballast := n.fill(disk)
	awaitFull(t, c.Limpet.LogPath)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	n.awaitOutput(c, "bytes of the log could not be written: no space left on device")
	if err := h.Stop(context.Background(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if x := n.ended(h); x.Code != 143 {
		t.Errorf("ended with %+v", x)
	}
}

// awaitFull waits until the last block of a growing file is used up.
func awaitFull(t *testing.T, path string) {
	t.Helper()
	eventually(t, "full", func() bool {
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return fi.Size()%4096 == 0
	})
}
