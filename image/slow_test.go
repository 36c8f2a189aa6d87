package image

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

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
	srv.setHook(func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, sha(module)) {
			return false
		}
		serveRange(w, q, module, 0)
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for i := 0; ; i = (i + 1) % (len(module) / 2) {
			select {
			case <-pace.C:
				w.Write(module[i : i+1])
				w.(http.Flusher).Flush()
			case <-q.Context().Done():
				return true
			}
		}
	})
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
