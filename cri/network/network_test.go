package network

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/thread"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// inside runs f on a thread in the namespace at path.
func inside(t *testing.T, path string, f func() error) error {
	t.Helper()
	return thread.Own(func() error {
		ns, err := os.Open(path)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

func TestNamespace(t *testing.T) {
	needRoot(t)
	ctx, n := context.Background(), New(filepath.Join(t.TempDir(), "netns"))
	if ids, err := n.List(); err != nil || len(ids) != 0 {
		t.Fatalf("List before the first = %v, %v", ids, err)
	}
	path, err := n.Create(ctx, "pod")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Remove(ctx, "pod") })
	err = inside(t, path, func() error {
		links, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, l := range links {
			if l.Name == "lo" && l.Flags&net.FlagUp == 0 {
				t.Error("lo is down")
			}
			// The kernel may add tunnels of its own, all of them down.
			if l.Name != "lo" && l.Flags&net.FlagUp != 0 {
				t.Errorf("%s is up", l.Name)
			}
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		return l.Close()
	})
	if err != nil {
		t.Error(err)
	}
	again, err := n.Create(ctx, "pod")
	if err != nil || again != path {
		t.Errorf("Create again = %q, %v", again, err)
	}
	if ids, err := n.List(); err != nil || !slices.Equal(ids, []string{"pod"}) {
		t.Errorf("List = %v, %v", ids, err)
	}
	for range 2 {
		if err := n.Remove(ctx, "pod"); err != nil {
			t.Error(err)
		}
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), path) {
		t.Errorf("still mounted (%v)", err)
	}
}

// No goroutine finds itself in a namespace that was made, and /proc/self shows
// the node's. Threads on their way out may still be in theirs.
func TestCallersStay(t *testing.T) {
	needRoot(t)
	ctx, n := context.Background(), New(t.TempDir())
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b", "c"} {
		if _, err := n.Create(ctx, id); err != nil {
			t.Fatal(err)
		}
		defer n.Remove(ctx, id)
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			own := "/proc/self/task/" + strconv.Itoa(unix.Gettid()) + "/ns/net"
			if ns, err := os.Readlink(own); err != nil || ns != before {
				t.Errorf("a goroutine is in %s (%v), want %s", ns, err, before)
			}
		})
	}
	wg.Wait()
	if now, err := os.Readlink("/proc/self/ns/net"); err != nil || now != before {
		t.Errorf("the process is in %s (%v), was in %s", now, err, before)
	}
}

// What a crash leaves is completed by Create and removed by Remove.
func TestLeftOver(t *testing.T) {
	needRoot(t)
	ctx, n := context.Background(), New(t.TempDir())
	if err := os.WriteFile(n.Path("half"), nil, 0o444); err != nil {
		t.Fatal(err)
	}
	strays, err := n.Strays(func(id string) bool { return id == "known" })
	if err != nil || !slices.Equal(strays, []string{"half"}) {
		t.Errorf("Strays = %v, %v", strays, err)
	}
	if _, err := n.Create(ctx, "half"); err != nil {
		t.Error(err)
	}
	if !pinned(n.Path("half")) {
		t.Error("not pinned")
	}
	if err := n.Remove(ctx, "half"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(n.Path("file"), nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := n.Remove(ctx, "file"); err != nil {
		t.Error(err)
	}
}

func TestBadIDs(t *testing.T) {
	n := New(t.TempDir())
	for _, id := range []string{"", ".", "..", "a/b", "a\x00", strings.Repeat("a", 256)} {
		if _, err := n.Create(context.Background(), id); !errors.Is(err, ErrBadID) {
			t.Errorf("Create(%q) = %v", id, err)
		}
		if err := n.Remove(context.Background(), id); !errors.Is(err, ErrBadID) {
			t.Errorf("Remove(%q) = %v", id, err)
		}
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n := New(t.TempDir())
	if _, err := n.Create(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("Create = %v", err)
	}
	if ids, err := n.List(); err != nil || len(ids) != 0 {
		t.Errorf("List = %v, %v", ids, err)
	}
}

func BenchmarkCreateRemove(b *testing.B) {
	needRoot(b)
	ctx, n := context.Background(), New(b.TempDir())
	for b.Loop() {
		if _, err := n.Create(ctx, "pod"); err != nil {
			b.Fatal(err)
		}
		if err := n.Remove(ctx, "pod"); err != nil {
			b.Fatal(err)
		}
	}
}

// A bound of the kernel's is not taken for a full disk, which is its word for it.
func TestTooManyNamespaces(t *testing.T) {
	err := refused(unix.ENOSPC)
	if errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "user.max_net_namespaces") {
		t.Error(err)
	}
	if err := refused(unix.EPERM); !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
}
