package precompile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSpoilt: whatever stands in the place of code or of its checksum, under a
// running cache or before a start, is never handed out, never followed and
// never waited for; it costs one compilation.
func TestSpoilt(t *testing.T) {
	root := t.TempDir()
	n := opened(t, root, &fake{engine: "44"})
	owner, m := n.owner("manifest"), n.module("module")
	path := n.code(owner, m)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("victim"), 0o600); err != nil {
		t.Fatal(err)
	}
	full := func(p string) error {
		return errors.Join(os.RemoveAll(p), os.Mkdir(p, 0o755), os.WriteFile(filepath.Join(p, "f"), nil, 0o644))
	}
	link := func(p, to string) error { return errors.Join(os.Remove(p), os.Symlink(to, p)) }
	for what, change := range map[string]func() error{
		"a pipe":              func() error { return errors.Join(os.Remove(path), unix.Mkfifo(path, codeMode)) },
		"a folder with files": func() error { return full(path) },
		"a link to a victim":  func() error { return link(path, victim) },
		"a link to nothing":   func() error { return link(path, filepath.Join(root, "none")) },
		"a link to itself":    func() error { return link(path, path) },
		"longer": func() error {
			return errors.Join(os.Chmod(path, 0o644), os.WriteFile(path, append(bytes.Clone(good), 0), 0o644), os.Chmod(path, codeMode))
		},
		"cut":                          func() error { return errors.Join(os.Truncate(path, 3), os.Chmod(path, codeMode)) },
		"checksum: a folder":           func() error { return errors.Join(full(path+sumSuffix), os.Chmod(path, 0o644)) },
		"checksum: a link to a victim": func() error { return errors.Join(link(path+sumSuffix, victim), os.Chmod(path, 0o644)) },
		"checksum: a pipe": func() error {
			return errors.Join(os.Remove(path+sumSuffix), unix.Mkfifo(path+sumSuffix, 0o600), os.Chmod(path, 0o644))
		},
	} {
		for _, restart := range []bool{false, true} {
			if err := errors.Join(change(), full(filepath.Join(n.dir, tmpPrefix+"1")), full(filepath.Join(n.dir, "odd"+sumSuffix))); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if restart {
				if err := n.store.Close(); err != nil {
					t.Fatal(err)
				}
				n = opened(t, root, &fake{engine: "44"})
			}
			runs := n.comp.runs.Load()
			done := make(chan error, 1)
			go func() {
				p, err := n.Code(t.Context(), owner, m, nil)
				if err == nil && p != path {
					err = errors.New("another path: " + p)
				}
				done <- err
			}()
			select {
			case err = <-done:
			case <-time.After(time.Minute):
				t.Fatalf("%s: nobody answers", what)
			}
			if b, rerr := os.ReadFile(path); err != nil || rerr != nil || !bytes.Equal(b, good) || n.comp.runs.Load() != runs+1 {
				t.Fatalf("%s (restart: %v): %v, %v, code %q, compiled %d times", what, restart, err, rerr, b, n.comp.runs.Load()-runs)
			}
			if b, err := os.ReadFile(victim); err != nil || string(b) != "victim" {
				t.Errorf("%s: the file behind the link has %q, %v", what, b, err)
			}
		}
	}
}
