package shim_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/limpet-cri/limpet/shim/confine"
	"github.com/limpet-cri/limpet/shim/spec"
)

// mountOptions reads how the mounts of a host are mounted, by their places.
func (n *node) mountOptions(pid int) map[string]string {
	n.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		n.Fatal(err)
	}
	m := map[string]string{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		m[f[4]], _, _ = strings.Cut(f[5], ",")
	}
	return m
}

// What is to be read-only is so by the kernel: the guest's root, and volumes,
// one inside another in whatever order they are listed.
func TestReadOnlyByTheKernel(t *testing.T) {
	n := newNode(t)
	for root, want := range map[bool]string{false: "rw", true: "ro"} {
		dir := t.TempDir()
		for _, d := range []string{"in/deep", "ro", "rw/in"} {
			if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		image, err := confine.Clone(dir, confine.Volume)
		if err != nil {
			t.Fatal(err)
		}
		defer image.Close()
		h, err := n.sup.Create(context.Background(), n.container(guestSleep, func(c *spec.Container) {
			c.OCI.Root.Readonly = root
			c.OCI.Mounts = []specs.Mount{
				{Destination: "/rw/in", Source: t.TempDir(), Options: []string{"ro"}},
				{Destination: "/rw", Source: filepath.Join(dir, "rw"), Options: []string{"rw"}},
				{Destination: "/ro", Source: t.TempDir(), Options: []string{"rw", "ro"}},
			}
		}), image)
		if err != nil {
			t.Fatal(err)
		}
		got := n.mountOptions(h.PID())
		for place, want := range map[string]string{
			"/": "ro", "/code": "ro", "/guest": want, "/guest/rw": "rw", "/guest/rw/in": "ro", "/guest/ro": "ro",
		} {
			if got[place] != want {
				t.Errorf("read-only root %v: %s is %q, want %q", root, place, got[place], want)
			}
		}
		if err := h.Kill(); err != nil {
			t.Fatal(err)
		}
		n.ended(h)
	}
}

// A guest whose user may not list the root of its image reaches what is below,
// and listing it is what is refused (errno 2, acces).
func TestRootThatCannotBeListed(t *testing.T) {
	n := newNode(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	root, err := confine.Clone(dir, confine.Volume)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	c := n.container(wat(`
	  (if (i32.ne (call $fd_readdir (i32.const 4) (i32.const 8192) (i32.const 100) (i64.const 0) (i32.const 16)) (i32.const 2)) (then (call $proc_exit (i32.const 255))))
	  (if (i32.ne (call $fd_readdir (i32.const 3) (i32.const 8192) (i32.const 100) (i64.const 0) (i32.const 16)) (i32.const 2)) (then (call $proc_exit (i32.const 254))))
	  (call $proc_exit (call $path_open (i32.const 4) (i32.const 1) (i32.const 4096) (i32.const 4)
	  (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 16)))`, text("file")), func(c *spec.Container) {
		c.OCI.Process.Cwd = "/"
	})
	h, err := n.sup.Create(context.Background(), c, root)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	if x := n.ended(h); x.Code != 0 {
		t.Errorf("ended with %+v", x)
	}
}
