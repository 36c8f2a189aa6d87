package content

import (
	"context"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	digest "github.com/opencontainers/go-digest"
)

// gone waits until the collector has taken a blob.
func gone(t *testing.T, s *Store, d digest.Digest) {
	t.Helper()
	for until := time.Now().Add(time.Minute); has(s, d); runtime.Gosched() {
		if time.Now().After(until) {
			t.Fatal("nobody collects")
		}
	}
}

func unname(t *testing.T, s *Store, d digest.Digest) {
	t.Helper()
	if err := s.Names().Delete(Context(context.Background()), "name-"+d.Encoded()); err != nil {
		t.Fatal(err)
	}
}

// TestCollector: what nothing refers to goes when the collector is asked, and,
// where nobody asks, when its hour has come: the lease of a pull that was
// given up ends without a word.
func TestCollector(t *testing.T) {
	s := opened(t, t.TempDir(), slog.New(slog.DiscardHandler))
	kept, d := put(t, s, "kept"), put(t, s, "unnamed")
	unname(t, s, d)
	if !has(s, d) {
		t.Error("collected without being asked")
	}
	s.CollectSoon()
	s.CollectSoon() // asking twice waits for nothing
	gone(t, s, d)
	if !has(s, kept) {
		t.Error("a named blob was collected")
	}
	root := s.root
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s, err := Open(Config{Root: root, Snapshotter: Native}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if s.every <= 0 || s.every > time.Hour {
		t.Errorf("it runs every %s", s.every)
	}
	s.every = time.Millisecond
	if _, err := s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	d = put(t, s, "leased")
	ctx := Context(context.Background())
	if _, err := s.Leases().Create(ctx, leases.WithID("short"), leases.WithExpiration(2*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := s.Leases().AddResource(ctx, leases.Lease{ID: "short"}, leases.Resource{ID: d.String(), Type: "content"}); err != nil {
		t.Fatal(err)
	}
	unname(t, s, d)
	gone(t, s, d)
	if !has(s, kept) {
		t.Error("a named blob was collected")
	}
}
