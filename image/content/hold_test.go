package content

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/leases"
	bolt "go.etcd.io/bbolt"
)

// commits is how many transactions wrote to the database so far.
func commits(t *testing.T, s *Store) (n int) {
	t.Helper()
	if err := s.bolt.View(func(tx *bolt.Tx) error { n = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// burst runs fn for n containers at once; those that come while a commit is
// under way are all there when it ends.
func burst(t *testing.T, s *Store, n int, fn func(lease string) error) {
	t.Helper()
	s.holds.committing.Lock()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if err := fn(fmt.Sprint("ctr-", i)); err != nil {
				t.Error(err)
			}
		})
	}
	for waiting := 0; waiting < n; runtime.Gosched() {
		s.holds.mu.Lock()
		if s.holds.next != nil {
			waiting = len(s.holds.next.ops)
		}
		s.holds.mu.Unlock()
	}
	s.holds.committing.Unlock()
	all.Wait()
}

// TestHoldsShareCommits: fifty containers that are made, and removed, at once
// cost a commit each time and not fifty, and each has its lease.
func TestHoldsShareCommits(t *testing.T) {
	s := opened(t, t.TempDir(), slog.New(slog.DiscardHandler))
	ctx := Context(context.Background())
	d := put(t, s, "held")
	const n = 50
	before := commits(t, s)
	burst(t, s, n, func(lease string) error { return s.Hold(ctx, lease, d) })
	if got := commits(t, s) - before; got != 1 {
		t.Errorf("%d leases took %d commits, want 1", n, got)
	}
	ls, err := s.Leases().List(ctx)
	if err != nil || len(ls) != n {
		t.Fatalf("%d leases, %v", len(ls), err)
	}
	for _, l := range ls {
		if rs, err := s.Leases().ListResources(ctx, l); err != nil || len(rs) != 1 || rs[0].ID != d.String() {
			t.Errorf("%s keeps %v, %v", l.ID, rs, err)
		}
	}
	before = commits(t, s)
	burst(t, s, n, func(lease string) error { return s.LetGo(ctx, lease) })
	if got := commits(t, s) - before; got != 1 {
		t.Errorf("%d leases were given back in %d commits, want 1", n, got)
	}
	if ls, err := s.Leases().List(ctx); err != nil || len(ls) != 0 {
		t.Errorf("leases left: %v, %v", ls, err)
	}
}

// TestHoldTwice: a hold of a lease that is there and the end of one that is
// not are no errors, and one that fails takes no other of its commit with it.
func TestHoldTwice(t *testing.T) {
	s := opened(t, t.TempDir(), slog.New(slog.DiscardHandler))
	ctx := Context(context.Background())
	d := put(t, s, "held")
	for range 2 {
		if err := s.Hold(ctx, "ctr", d); err != nil {
			t.Errorf("hold: %v", err)
		}
	}
	for range 2 {
		if err := s.LetGo(ctx, "ctr"); err != nil {
			t.Errorf("let go: %v", err)
		}
	}
	wrong := errors.New("wrong")
	s.holds.committing.Lock()
	errs := make(chan error, 2)
	go func() {
		errs <- s.holds.commit(s.db, func(*bolt.Tx, leases.Manager) error { return wrong })
	}()
	go func() { errs <- s.Hold(ctx, "good", d) }()
	for waiting := 0; waiting < 2; runtime.Gosched() {
		s.holds.mu.Lock()
		if s.holds.next != nil {
			waiting = len(s.holds.next.ops)
		}
		s.holds.mu.Unlock()
	}
	s.holds.committing.Unlock()
	if a, b := <-errs, <-errs; !errors.Is(errors.Join(a, b), wrong) || a != nil && b != nil {
		t.Errorf("got %v and %v, want one to be %v and one nil", a, b, wrong)
	}
	if ls, err := s.Leases().List(ctx); err != nil || len(ls) != 1 || ls[0].ID != "good" {
		t.Errorf("leases %v, %v", ls, err)
	}
}

// TestHoldOnAFailedDatabase: when the commit fails, everybody in it hears so.
func TestHoldOnAFailedDatabase(t *testing.T) {
	s := opened(t, t.TempDir(), slog.New(slog.DiscardHandler))
	d := put(t, s, "held")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Hold(context.Background(), "ctr", d); err == nil {
		t.Error("held in a closed store")
	}
	if err := s.LetGo(context.Background(), "ctr"); err == nil {
		t.Error("let go in a closed store")
	}
}
