package content

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/leases"
)

// A database that is damaged while it is in use, as on a disk that fails, is an
// error of those who use it: at once, every time, and whichever lock the first
// fault left taken. The next start looks at all of it.
func TestDamagedInUse(t *testing.T) {
	for name, size := range map[string]int64{"nothing left": 0, "a header": 4096, "the headers": 2 * 4096} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			var j journal
			s := opened(t, root, j.logger())
			addNames(t, s, put(t, s, "blob"), 400)
			if err := os.Truncate(filepath.Join(root, "meta.db"), size); err != nil {
				t.Fatal(err)
			}
			ctx := Context(context.Background())
			for range 2 {
				if _, err := s.Names().List(ctx); !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), "restart limpetd") {
					t.Errorf("list: %v", err)
				}
				if _, err := s.Leases().Create(ctx, leases.WithID("new")); !errors.Is(err, errDamaged) {
					t.Errorf("create: %v", err)
				}
			}
			for range 2 { // as it stands, and as a store that ends says it
				boot, err := os.ReadFile(filepath.Join(root, bootFile))
				if err != nil {
					t.Fatal(err)
				}
				id, err := bootID()
				if err != nil || !mustVerify(string(boot), id) {
					t.Errorf("the next start would look at nothing: %q, %v", boot, err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			if n := strings.Count(j.String(), "level=ERROR"); n != 1 || !strings.Contains(j.String(), "stack=") {
				t.Errorf("told %d times:\n%s", n, j.String())
			}
		})
	}
}

// The same of the snapshotter's own database, whoever is the first to use it.
func TestDamagedSnapshotsInUse(t *testing.T) {
	for _, name := range []string{Native, Overlay} {
		t.Run(name+", a call", func(t *testing.T) {
			damageSnapshots(t, name, func(ctx context.Context, s *Store) {
				_, err := s.Snapshots().Prepare(ctx, "new", "")
				if !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), "metadata.db") {
					t.Errorf("prepare: %v", err)
				}
			})
		})
		// The collector works on a goroutine of its own, and keeps errors of
		// snapshotters to itself.
		t.Run(name+", the collector", func(t *testing.T) {
			damageSnapshots(t, name, func(ctx context.Context, s *Store) {
				if err := errors.Join(s.Snapshots().Remove(ctx, "made-1"), s.Collect(ctx)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func damageSnapshots(t *testing.T, name string, use func(context.Context, *Store)) {
	if name == Overlay && os.Getuid() != 0 {
		t.Skip("needs root")
	}
	root := t.TempDir()
	var j journal
	s, err := Open(Config{Root: root, Snapshotter: name}, j.logger())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	ctx := Context(context.Background())
	for i := range 3 {
		if _, err := s.Snapshots().Prepare(ctx, fmt.Sprint("made-", i), ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(root, snapshotFolders[name], "metadata.db"), 2*4096); err != nil {
		t.Fatal(err)
	}
	use(ctx, s)
	// Each database tells of the other, so that both are refused.
	if _, err := s.Names().List(ctx); !errors.Is(err, errDamaged) {
		t.Errorf("list: %v", err)
	}
	if err := s.Collect(ctx); !errors.Is(err, errDamaged) {
		t.Errorf("collect: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(j.String(), "level=ERROR"); n != 1 {
		t.Errorf("told %d times:\n%s", n, j.String())
	}
	// What is open stays open until this process ends: the next start sees a copy.
	next := filepath.Join(t.TempDir(), "next")
	if err := os.CopyFS(next, os.DirFS(root)); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(Config{Root: next, Snapshotter: name}, j.logger()); err != nil || !strings.Contains(j.String(), "set aside") {
		t.Fatalf("the next start: %v\n%s", err, j.String())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
