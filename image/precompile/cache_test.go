package precompile

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/leases"

	"github.com/limpet-cri/limpet/image/content"
)

// TestSealed: a finished file is read-only for everybody, and ours; one that
// is not, whatever its bytes, is compiled again and never handed out.
func TestSealed(t *testing.T) {
	n := opened(t, t.TempDir(), &fake{engine: "44"})
	owner, m := n.owner("manifest"), n.module("module")
	path := n.code(owner, m)
	check := func() {
		t.Helper()
		fi, err := os.Lstat(path)
		if err != nil || fi.Mode() != 0o444 {
			t.Errorf("mode %v, %v; want 0444", fi.Mode(), err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if id, err := identify(f); err != nil || int(id.uid) != os.Geteuid() {
			t.Errorf("owner %d, %v", id.uid, err)
		}
	}
	check()
	changes := map[string]func() error{
		"writable": func() error { return os.Chmod(path, 0o644) },
		"a link":   func() error { return errors.Join(os.Rename(path, path+"x"), os.Symlink(path+"x", path)) },
		"a folder": func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o755)) },
	}
	if os.Geteuid() == 0 {
		changes["somebody's"] = func() error { return os.Chown(path, 65532, 65532) }
	}
	for what, change := range changes {
		runs := n.comp.runs.Load()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if n.code(owner, m) != path || n.comp.runs.Load() != runs+1 {
			t.Errorf("%s: compiled %d times, want once", what, n.comp.runs.Load()-runs)
		}
		check()
	}
}

// TestLabelFirst: the manifest keeps the code before there is any, so that no
// collection takes what has just got its name; and a kill at any point leaves
// nothing that is handed out.
func TestLabelFirst(t *testing.T) {
	root := t.TempDir()
	comp := &fake{engine: "44"}
	n := opened(t, root, comp)
	owner, m := n.owner("manifest"), n.module("module")
	labelled := func() int {
		i, err := n.store.Blobs().Info(content.Context(context.Background()), owner)
		if err != nil {
			t.Error(err)
		}
		k := 0
		for l := range i.Labels {
			if strings.HasPrefix(l, labelCode+".") {
				k++
			}
		}
		return k
	}
	comp.during = func(context.Context) error {
		if labelled() != 1 {
			t.Error("it is compiled before the manifest keeps it")
		}
		for _, f := range n.files() {
			if !strings.HasPrefix(f, tmpPrefix) {
				t.Errorf("%s has its name already", f)
			}
		}
		// A collection in the middle waits for nothing, and takes nothing.
		return n.store.Collect(context.Background())
	}
	path := n.code(owner, m)
	n.collect()
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(path + sumSuffix)
	if err != nil {
		t.Fatal(err)
	}
	// What a kill leaves after each step.
	for what, left := range map[string]map[string][]byte{
		"after the label":          {},
		"while it is compiled":     {tmpPrefix + "1": good[:3]},
		"before the checksum":      {tmpPrefix + "1": good},
		"in the checksum":          {tmpPrefix + "1": good, tmpPrefix + "2": sum[:5]},
		"after the checksum":       {tmpPrefix + "1": good, filepath.Base(path) + sumSuffix: sum},
		"before the folder's sync": {filepath.Base(path): good, filepath.Base(path) + sumSuffix: nil},
	} {
		t.Run(what, func(t *testing.T) {
			n.t = t
			if err := n.store.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(n.dir); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(n.dir, 0o711); err != nil {
				t.Fatal(err)
			}
			for name, b := range left {
				if err := os.WriteFile(filepath.Join(n.dir, name), b, 0o444); err != nil {
					t.Fatal(err)
				}
			}
			n = opened(t, root, &fake{engine: "44"})
			for _, f := range n.files() {
				if strings.HasPrefix(f, tmpPrefix) {
					t.Errorf("%s is left", f)
				}
			}
			if n.code(owner, m) != path || n.comp.runs.Load() != 1 {
				t.Errorf("compiled %d times, want once", n.comp.runs.Load())
			}
			if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, good) {
				t.Errorf("code %q, %v", b, err)
			}
			if f := n.files(); len(f) != 2 {
				t.Errorf("files %v, want the code and its checksum", f)
			}
		})
	}
}

// TestOneCompilation: requests for one module share a compilation; one whose
// caller is gone is taken over by the next.
func TestOneCompilation(t *testing.T) {
	comp := &fake{engine: "44"}
	n := opened(t, t.TempDir(), comp)
	owner, m := n.owner("manifest"), n.module("module")
	compiling, goOn := make(chan struct{}, 8), make(chan struct{})
	comp.during = func(ctx context.Context) error {
		compiling <- struct{}{}
		select {
		case <-goOn:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	first, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() {
		_, err := n.Code(first, owner, m, nil)
		failed <- err
	}()
	<-compiling
	var others sync.WaitGroup
	for range 20 {
		others.Go(func() {
			if _, err := n.Code(context.Background(), owner, m, nil); err != nil {
				t.Error(err)
			}
		})
	}
	impatient, giveUp := context.WithCancel(context.Background())
	giveUp()
	if _, err := n.Code(impatient, owner, m, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that is gone waits: %v", err)
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("the first caller: %v", err)
	}
	<-compiling // one of the others
	close(goOn)
	others.Wait()
	if got := comp.runs.Load(); got != 2 {
		t.Errorf("compiled %d times, want the first and one of the others", got)
	}
}

// TestRemovedCache: without its files, the cache costs time.
func TestRemovedCache(t *testing.T) {
	root := t.TempDir()
	n := opened(t, root, &fake{engine: "44"})
	owner, m := n.owner("manifest"), n.module("module")
	path := n.code(owner, m)
	if err := errors.Join(os.Remove(path), os.Remove(path+sumSuffix)); err != nil {
		t.Fatal(err)
	}
	if n.code(owner, m) != path || n.comp.runs.Load() != 2 {
		t.Errorf("files removed under a running cache: compiled %d times", n.comp.runs.Load())
	}
	if err := n.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(n.dir), os.Remove(filepath.Join(root, "code.key"))); err != nil {
		t.Fatal(err)
	}
	n = opened(t, root, &fake{engine: "44"})
	if n.code(owner, m) != path || n.comp.runs.Load() != 1 {
		t.Errorf("folder and key removed: compiled %d times", n.comp.runs.Load())
	}
}

// TestCollected: code lives as long as any manifest that has the module.
func TestCollected(t *testing.T) {
	n := opened(t, t.TempDir(), &fake{engine: "44"})
	ctx := content.Context(context.Background())
	m := n.module("module")
	path := n.code(n.owner("one"), m)
	n.code(n.owner("two"), m)
	if n.comp.runs.Load() != 1 {
		t.Error("compiled once for each image")
	}
	for _, c := range []struct {
		lease string
		files int
	}{{"one", 2}, {"two", 0}} {
		if err := n.store.Leases().Delete(ctx, leases.Lease{ID: c.lease}); err != nil {
			t.Fatal(err)
		}
		n.collect()
		if f := n.files(); len(f) != c.files {
			t.Errorf("without %s: %v, want %d files", c.lease, f, c.files)
		}
	}
	// What was collected and compiled again is checked as new.
	if again := n.code(n.owner("three"), m); again != path || n.comp.runs.Load() != 2 {
		t.Errorf("compiled %d times", n.comp.runs.Load())
	}
}
