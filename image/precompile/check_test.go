package precompile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestChecksum: code that is not what was written, or was written under
// another key or name, is compiled again and never handed out.
func TestChecksum(t *testing.T) {
	root := t.TempDir()
	n := opened(t, root, &fake{engine: "44"})
	owner, m, m2 := n.owner("manifest"), n.module("module 1"), n.module("module 2")
	path, path2 := n.code(owner, m), n.code(owner, m2)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copyOver := func(from, to string) {
		t.Helper()
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Remove(to), os.WriteFile(to, b, 0o444)); err != nil {
			t.Fatal(err)
		}
	}
	for what, change := range map[string]func(){
		"a bit":              func() { spoil(t, path) },
		"cut":                func() { copyOver(path, path+"y"); copyOver("/dev/null", path) },
		"checksum":           func() { spoil(t, path+sumSuffix) },
		"no checksum":        func() { os.Remove(path + sumSuffix) },
		"an empty checksum":  func() { copyOver("/dev/null", path+sumSuffix) },
		"another's code":     func() { copyOver(path2, path); copyOver(path2+sumSuffix, path+sumSuffix) },
		"another node's key": func() { os.Remove(filepath.Join(root, "code.key")) },
		"a torn key":         func() { copyOver("/dev/null", filepath.Join(root, "code.key")) },
	} {
		t.Run(what, func(t *testing.T) {
			os.WriteFile(path+"y", nil, 0o444)
			n.t = t
			if err := n.store.Close(); err != nil {
				t.Fatal(err)
			}
			change()
			os.Remove(path + "y")
			n = opened(t, root, &fake{engine: "44"})
			if n.code(owner, m) != path || n.comp.runs.Load() != 1 {
				t.Errorf("compiled %d times, want once", n.comp.runs.Load())
			}
			if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, good) {
				t.Errorf("code %q, %v", b, err)
			}
			if !strings.Contains(n.said.String(), path) {
				t.Errorf("the log does not name the file:\n%s", &n.said)
			}
		})
	}
	if fi, err := os.Stat(filepath.Join(root, "code.key")); err != nil || fi.Mode() != 0o600 || fi.Size() != keySize {
		t.Errorf("key: %v, %v", fi, err)
	}
}

// TestCheckedOnce: the checksum of a file is computed once per start, whoever
// asks how often, and not at all of what was just compiled; another file under
// its name, or the same written to, is read again.
func TestCheckedOnce(t *testing.T) {
	root := t.TempDir()
	n := opened(t, root, &fake{engine: "44"})
	owner, m := n.owner("manifest"), n.module("module")
	path := n.code(owner, m)
	// With the checksum gone, whoever computes one finds that it differs.
	aside := func(n *node, times int64) {
		t.Helper()
		sum, err := os.ReadFile(path + sumSuffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path + sumSuffix); err != nil {
			t.Fatal(err)
		}
		runs := n.comp.runs.Load()
		for range 3 {
			n.code(owner, m)
		}
		if got := n.comp.runs.Load() - runs; got != times {
			t.Errorf("checked again %d times, want %d", got, times)
		}
		if err := os.WriteFile(path+sumSuffix, sum, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	aside(n, 0)
	if err := n.store.Close(); err != nil {
		t.Fatal(err)
	}
	n = opened(t, root, &fake{engine: "44"})
	n.code(owner, m)
	aside(n, 0)
	spoil(t, path)
	aside(n, 1)
}
