package image

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

// trickle answers for a blob byte by byte, far from its end.
func trickle(blob []byte) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, sha(blob)) {
			return false
		}
		serveRange(w, q, blob, 0)
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for i := 0; ; i = (i + 1) % (len(blob) / 2) {
			select {
			case <-pace.C:
				w.Write(blob[i : i+1])
				w.(http.Flusher).Flush()
			case <-q.Context().Done():
				return true
			}
		}
	}
}

// TestSlow: a body that trickles above the watchdog is given up when its time
// is over. What came stays, and the next pull does not begin again.
func TestSlow(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{})
	module := largeModule(1 << 20)
	artifactOf(srv, "a", module)
	s.slowAfter = func(size int64) time.Duration {
		if size == int64(len(module)) {
			return time.Second
		}
		return slowAfter(size)
	}
	srv.setHook(trickle(module))
	_, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{})
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "did not come within 1s; what came is kept") {
		t.Errorf("got %v", err)
	}
	if l := s.List(""); len(l) != 0 {
		t.Errorf("can be seen: %+v", l)
	}
	ls, err := s.store.Leases().List(nsContext())
	if err != nil || len(ls) != 1 || !strings.HasPrefix(ls[0].ID, pullLease) {
		t.Errorf("leases %v, %v; want that of the pull", ls, err)
	}
}

// TestSlowPull: a pull as a whole ends while its lease still lasts.
func TestSlowPull(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{})
	module := largeModule(1 << 20)
	artifactOf(srv, "a", module)
	s.pullTime = time.Second
	srv.setHook(trickle(module))
	_, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{})
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "the image did not come within 1s") {
		t.Errorf("got %v", err)
	}
	srv.setHook(nil)
	s.pullTime = pullTime
	if _, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{}); err != nil {
		t.Errorf("from a registry that is well again: %v", err)
	}
}

// TestSlowAfter: what a blob may take grows with it, and ends with the lease.
func TestSlowAfter(t *testing.T) {
	for size, want := range map[int64]time.Duration{
		0: 15 * time.Minute, 10 << 20: 15*time.Minute + 160*time.Second, 4 << 30: pullTime, 1<<63 - 1: pullTime,
	} {
		if got := slowAfter(size); got != want {
			t.Errorf("%d bytes: %s, want %s", size, got, want)
		}
	}
}
