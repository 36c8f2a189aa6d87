package precompile

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestFailures: a failure is answered from memory for a while, whoever asks,
// and forgotten then; a caller that went away is no failure; what is
// remembered is bounded, in number and in text.
func TestFailures(t *testing.T) {
	comp := &fake{engine: "44"}
	n := opened(t, t.TempDir(), comp)
	clock := time.Unix(1e9, 0)
	n.now = func() time.Time { return clock }
	owner, bad := n.owner("manifest"), n.module("bad module")
	fails := func(m Module, runs int64) {
		t.Helper()
		before := comp.runs.Load()
		_, err := n.Code(context.Background(), owner, m, nil)
		if !errors.Is(err, ErrCompile) || len(err.Error()) > maxReason+200 || !strings.Contains(err.Error(), m.Digest.String()) {
			t.Errorf("got %.300v of %d bytes", err, len(fmt.Sprint(err)))
		}
		if got := comp.runs.Load() - before; got != runs {
			t.Errorf("compiled %d times, want %d", got, runs)
		}
	}
	fails(bad, 1)
	fails(bad, 0)
	clock = clock.Add(badFor - 1)
	fails(bad, 0)
	clock = clock.Add(1)
	fails(bad, 1)
	fails(n.module("nothing"), 1)

	gone, cancel := context.WithCancel(context.Background())
	comp.during = func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() }
	m := n.module("module")
	if _, err := n.Code(gone, owner, m, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that went away: %v", err)
	}
	comp.during = nil
	n.code(owner, m)

	for i := range 2 * maxBad {
		n.remember(fmt.Sprint(i), m.Digest, errors.New("bad"))
		if len(n.bad) > maxBad {
			t.Fatalf("%d failures are remembered, at most %d should be", len(n.bad), maxBad)
		}
	}
	if n.failed(fmt.Sprint(2*maxBad-1)) == nil {
		t.Error("the last one is forgotten")
	}
}

// TestTimeout: a compilation has a bounded time, and its end is a failure of
// the module's.
func TestTimeout(t *testing.T) {
	comp := &fake{engine: "44", during: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	n := opened(t, t.TempDir(), comp)
	n.timeout = time.Millisecond
	if _, err := n.Code(context.Background(), n.owner("manifest"), n.module("slow"), nil); !errors.Is(err, ErrCompile) || !strings.Contains(err.Error(), "longer than 1ms") {
		t.Errorf("got %v", err)
	}
	if f := n.files(); len(f) != 0 {
		t.Errorf("left: %v", f)
	}
}
