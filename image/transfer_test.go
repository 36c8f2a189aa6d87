package image

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
)

// largeModule is a module of about n bytes that nothing compresses.
func largeModule(n int) []byte {
	random := rand.New(rand.NewPCG(1, 2))
	b := []byte("\x00asm\x01\x00\x00\x00")
	for left := n; left > 0; left -= 1000 {
		b = append(b, 0, 0xe8, 0x07, 4, 'd', 'a', 't', 'a')
		for range 995 {
			b = append(b, byte(random.Uint32()))
		}
	}
	return b
}

// serveRange answers a request for the rest of a blob, up to stop.
func serveRange(w http.ResponseWriter, q *http.Request, blob []byte, stop int) {
	from := 0
	fmt.Sscanf(q.Header.Get("Range"), "bytes=%d-", &from)
	w.Header().Set("Content-Length", fmt.Sprint(len(blob)-from))
	if from > 0 {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(blob)-1, len(blob)))
		w.WriteHeader(http.StatusPartialContent)
	}
	if stop > from {
		w.Write(blob[from:stop])
	}
	w.(http.Flusher).Flush()
}

// TestBusy: a registry that asks for a pause gets it, and then the same
// request again, before anything else.
func TestBusy(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{})
	module := wasmModule("busy")
	artifactOf(srv, "a", module)
	var mu sync.Mutex
	busy := map[string]int{}
	var paused time.Time
	var pause time.Duration
	seen := srv.watch(func(w http.ResponseWriter, q *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		key := q.Method + q.URL.Path
		if busy[key]++; busy[key] > 1 {
			if !paused.IsZero() && pause == 0 {
				pause = time.Since(paused)
			}
			return false
		}
		code := http.StatusTooManyRequests
		if strings.Contains(q.URL.Path, "/blobs/") {
			code = http.StatusServiceUnavailable
		} else if q.Method == http.MethodGet {
			w.Header().Set("Retry-After", "1")
			paused = time.Now()
		}
		w.WriteHeader(code)
		return true
	})
	if _, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if pause < time.Second {
		t.Errorf("asked again after %s, and a second was asked for", pause)
	}
	if len(seen.lines) != 8 || seen.lines[0] != seen.lines[1] || seen.lines[2] != seen.lines[3] || !strings.HasPrefix(seen.lines[2], "GET /v2/a/manifests/") {
		t.Errorf("requests %q; want HEAD, manifest, config and layer, each twice", seen.lines)
	}
}

// TestStalled: a body that stops coming is given up and gone on with from
// where it stopped.
func TestStalled(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{StallWindow: 200 * time.Millisecond, StallBytes: 1})
	module := largeModule(10_000)
	artifactOf(srv, "a", module)
	var mu sync.Mutex
	var ranges []string
	over := make(chan struct{})
	defer close(over)
	srv.setHook(func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, sha(module)) {
			return false
		}
		mu.Lock()
		ranges = append(ranges, q.Header.Get("Range"))
		n := len(ranges)
		mu.Unlock()
		if n > 2 {
			serveRange(w, q, module, len(module))
			return true
		}
		serveRange(w, q, module, n*4000)
		select {
		case <-q.Context().Done():
		case <-over:
		}
		return true
	})
	if _, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(ranges, "bytes=4000-") || !slices.Contains(ranges, "bytes=8000-") {
		t.Errorf("ranges %q; want one from 4000 and one from 8000", ranges)
	}
}

// TestCancelled: a pull ends with its request: nobody goes on reading, nothing
// can be seen, and what came waits under a lease: the next pull goes on from
// there, and without one it is collected.
func TestCancelled(t *testing.T) {
	srv := newServer(t)
	module := largeModule(1 << 20)
	artifactOf(srv, "a", module)
	for name, again := range map[string]bool{"and pulled again": true, "and forgotten": false} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t, Config{})
			ended, came := make(chan struct{}), make(chan struct{})
			var once sync.Once
			srv.setHook(func(w http.ResponseWriter, q *http.Request) bool {
				if !strings.Contains(q.URL.Path, sha(module)) {
					return false
				}
				serveRange(w, q, module, 1000)
				// On and on, slowly, until nobody listens.
				sent := 1000
				for pace := time.NewTicker(10 * time.Millisecond); ; {
					select {
					case <-pace.C:
						sent = min(sent+1000, len(module)/2)
						w.Write(module[sent-1000 : sent])
						w.(http.Flusher).Flush()
					case <-q.Context().Done():
						pace.Stop()
						close(ended)
						return true
					}
				}
			})
			ctx, cancel := context.WithCancel(context.Background())
			result := make(chan error, 1)
			go func() {
				_, err := s.Pull(ctx, srv.ref("a", "v1"), PullOptions{Progress: func(p Progress) {
					if p.Stage == "fetch" && p.Done > 2000 {
						once.Do(func() { close(came) })
					}
				}})
				result <- err
			}()
			<-came
			cancel()
			if err := <-result; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			<-ended
			if l := s.List(""); len(l) != 0 {
				t.Errorf("can be seen: %+v", l)
			}
			if !again {
				expire(t, s)
				left(t, s)
				return
			}
			var from atomic.Int64
			srv.setHook(func(w http.ResponseWriter, q *http.Request) bool {
				if strings.Contains(q.URL.Path, sha(module)) {
					n := int64(0)
					fmt.Sscanf(q.Header.Get("Range"), "bytes=%d-", &n)
					from.Store(n)
					serveRange(w, q, module, len(module))
					return true
				}
				return false
			})
			if _, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{}); err != nil || from.Load() == 0 {
				t.Errorf("pulled again from byte %d: %v", from.Load(), err)
			}
		})
	}
}

// expire ends the leases of pulls, as their time does.
func expire(t *testing.T, s *Service) {
	t.Helper()
	lm := s.store.Leases()
	ls, err := lm.List(nsContext())
	if err != nil || len(ls) != 1 || !strings.HasPrefix(ls[0].ID, pullLease) || ls[0].Labels["containerd.io/gc.expire"] == "" {
		t.Fatalf("leases %v, %v; want one of a pull, that expires", ls, err)
	}
	if err := lm.Delete(nsContext(), leases.Lease{ID: ls[0].ID}); err != nil {
		t.Fatal(err)
	}
}

// TestWaiters: callers share a pull; one that gives up leaves at once and
// takes nobody with it, not even if it was the first.
func TestWaiters(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{})
	module := wasmModule("waiters")
	artifactOf(srv, "a", module)
	gate := make(chan struct{})
	fetching := make(chan struct{})
	seen := srv.watch(func(_ http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, sha(module)) {
			close(fetching)
			<-gate
		}
		return false
	})
	pull := func(ctx context.Context) (chan error, chan struct{}) {
		result, joined := make(chan error, 1), make(chan struct{})
		var once sync.Once
		go func() {
			_, err := s.Pull(ctx, srv.ref("a", "v1"), PullOptions{Progress: func(Progress) { once.Do(func() { close(joined) }) }})
			result <- err
		}()
		return result, joined
	}
	ctx, cancel := context.WithCancel(context.Background())
	first, _ := pull(ctx)
	<-fetching
	second, joined := pull(context.Background())
	<-joined
	third, joined := pull(context.Background())
	<-joined
	cancel()
	select {
	case err := <-first:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up got %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("who gave up waits for the others' pull")
	}
	close(gate)
	for _, r := range []chan error{second, third} {
		if err := <-r; err != nil {
			t.Error(err)
		}
	}
	if n := len(seen.gets(sha(module))); n != 1 {
		t.Errorf("the layer was fetched %d times", n)
	}
}

// secure serves a registry with TLS, and the hosts folder with which it is
// known as r.example.
func secure(t *testing.T, h http.Handler, extra string) (url, hosts string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	hosts = t.TempDir()
	dir := filepath.Join(hosts, "r.example")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	text := "server = \"" + srv.URL + "\"\nca = \"ca.pem\"\n" + extra
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "ca.pem"), ca, 0o600),
		os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return srv.URL, hosts
}

// TestRedirected: a registry may send us elsewhere for a blob, but neither
// credentials nor configured headers go with us, and encryption is not lost
// on the way.
func TestRedirected(t *testing.T) {
	plain := newServer(t)
	module := wasmModule("redirected")
	artifactOf(plain, "a", module)
	inner := plain.http.Config.Handler
	for name, c := range map[string]struct {
		tls   bool // of the host to which it leads
		fails error
	}{"https": {true, nil}, "http": {false, ErrUnavailable}} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var there, here []http.Header
			other := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				mu.Lock()
				there = append(there, q.Header.Clone())
				mu.Unlock()
				inner.ServeHTTP(w, q)
			}))
			other.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
			if c.tls {
				other.StartTLS()
			} else {
				other.Start()
			}
			defer other.Close()
			address, hosts := secure(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				if user, pass, _ := q.BasicAuth(); user != "me" || pass != "secret" {
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				if strings.Contains(q.URL.Path, "/blobs/") {
					mu.Lock()
					here = append(here, q.Header.Clone())
					mu.Unlock()
					http.Redirect(w, q, other.URL+q.URL.Path, http.StatusTemporaryRedirect)
					return
				}
				inner.ServeHTTP(w, q)
			}), "[header]\nX-Key = \"secret\"\n")
			config := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(config, []byte(`{"auths":{"`+strings.TrimPrefix(address, "https://")+`":{"username":"me","password":"secret"}}}`), 0o600); err != nil {
				t.Fatal(err)
			}
			s, _ := open(t, Config{HostsDir: hosts, DockerConfig: config})
			_, err := s.Pull(context.Background(), "r.example/a:v1", PullOptions{})
			if !errors.Is(err, c.fails) || err != nil && !strings.Contains(err.Error(), "from https to http") {
				t.Errorf("got %v, want %v", err, c.fails)
			}
			// One that is refused cancels the other, which may still be asked for
			// by now, or never be.
			asked := 2
			if c.fails != nil {
				asked = 1
			}
			mu.Lock()
			defer mu.Unlock()
			if len(here) < asked || here[0].Get("X-Key") == "" || here[0].Get("Authorization") == "" {
				t.Errorf("control: the registry got %v", here)
			}
			if c.fails == nil && len(there) != 2 || c.fails != nil && len(there) != 0 {
				t.Errorf("the other host was asked %d times", len(there))
			}
			for _, h := range there {
				if h.Get("Authorization") != "" || h.Get("X-Key") != "" || h.Get("Cookie") != "" {
					t.Errorf("the other host got %v", h)
				}
			}
		})
	}
}
