package image

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/leases"
	digest "github.com/opencontainers/go-digest"
)

// TestGivenUp: what is left of a damaged image that nobody pulls again is
// collected like what came of a pull that failed; of one that is pulled, only
// the damaged part is fetched.
func TestGivenUp(t *testing.T) {
	needRoot(t)
	srv := newServer(t)
	ref := indexed(t, srv, wasmModule("given up"))
	ctx := context.Background()
	for _, pulled := range []bool{false, true} {
		s, comp := open(t, Config{})
		if _, err := s.Pull(ctx, ref, PullOptions{}); err != nil {
			t.Fatal(err)
		}
		d := parts(t, s, ref)["layer"]
		s, _ = reopen(t, s, comp, func() {
			rewrite(t, s, d, flipped)
			stopMachine(t, s.cfg.Root)
		})
		s.settle(ctx)
		if err := s.store.Collect(ctx); err != nil {
			t.Fatal(err)
		}
		if names, err := s.store.Names().List(nsContext()); err != nil || len(names) != 0 {
			t.Errorf("names %v, %v", names, err)
		}
		if pulled {
			seen := srv.watch(nil)
			if _, err := s.Pull(ctx, ref, PullOptions{}); err != nil {
				t.Fatal(err)
			}
			if got := seen.gets("sha256:"); len(got) != 1 || !strings.Contains(got[0], d.String()) {
				t.Errorf("fetched %v, want %s", got, d)
			}
			continue
		}
		ls, err := s.store.Leases().List(nsContext())
		if err != nil || len(ls) == 0 {
			t.Fatalf("leases %v, %v", ls, err)
		}
		for _, l := range ls { // as their time does
			if l.Labels["containerd.io/gc.expire"] == "" {
				t.Errorf("%+v does not expire", l)
			}
			if err := s.store.Leases().Delete(nsContext(), leases.Lease{ID: l.ID}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.store.Collect(ctx); err != nil {
			t.Fatal(err)
		}
		checkEmpty(t, s)
	}
}

// TestDamageWithoutARegistry: a damaged blob that cannot be fetched again is
// thrown away all the same, and every image that needs it leaves the list.
func TestDamageWithoutARegistry(t *testing.T) {
	srv := newServer(t)
	s, comp := open(t, Config{})
	ctx := context.Background()
	module := wasmModule("without a registry")
	artifactOf(srv, "a", module)
	artifactOf(srv, "b", module)
	for _, name := range []string{"a", "b"} {
		if _, err := s.Pull(ctx, srv.ref(name, "v1"), PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	d := digest.FromBytes(module)
	s, _ = reopen(t, s, comp, func() { rewrite(t, s, d, flipped) })
	srv.setHook(func(w http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "/blobs/") {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	_, err := s.Pull(ctx, srv.ref("a", "v1"), PullOptions{})
	if !errors.Is(err, ErrAccess) {
		t.Errorf("got %v", err)
	}
	if l := s.List(""); len(l) != 0 {
		t.Errorf("images %v", l)
	}
	srv.setHook(nil)
	if _, err := s.Pull(ctx, srv.ref("b", "v1"), PullOptions{}); err != nil {
		t.Error(err)
	}
}

// TestImportOverDamage: an import that meets a damaged blob says so, and the
// next one brings it back.
func TestImportOverDamage(t *testing.T) {
	s, comp := open(t, Config{})
	ctx := context.Background()
	module := wasmModule("import over damage")
	archive := layout(t, "r.example/a/b:v1", module)
	if _, err := s.Import(ctx, bytes.NewReader(archive)); err != nil {
		t.Fatal(err)
	}
	s, _ = reopen(t, s, comp, func() { rewrite(t, s, digest.FromBytes(module), flipped) })
	if _, err := s.Import(ctx, bytes.NewReader(archive)); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "import the image again") {
		t.Errorf("got %v", err)
	}
	if _, err := s.Import(ctx, bytes.NewReader(archive)); err != nil {
		t.Error(err)
	}
	if p, err := s.Prepare(ctx, "r.example/a/b:v1", "c", "", nil); err != nil {
		t.Error(err)
	} else if code, err := os.ReadFile(p.Code); err != nil || string(code) != "code of "+string(module) {
		t.Errorf("code %q, %v", code, err)
	}
}

// TestCloseEndsTheBackground: Close waits for what follows a start, which goes
// on at the next one.
func TestCloseEndsTheBackground(t *testing.T) {
	srv := newServer(t)
	s, comp := open(t, Config{})
	artifactOf(srv, "a", wasmModule("background"))
	if _, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	s, _ = reopen(t, s, comp, func() { stopMachine(t, s.cfg.Root) })
	s.end() // the background finds its context ended
	s.background.Go(func() { s.settle(s.ctx) })
	s, said := reopen(t, s, comp, func() {})
	if !s.store.Unclean() {
		t.Error("the work that was cut short is forgotten")
	}
	s.settle(context.Background())
	if s.store.Unclean() || len(s.List("")) != 1 || strings.Contains(said.String(), "level=WARN") {
		t.Errorf("unclean %v, images %v\n%s", s.store.Unclean(), s.List(""), said)
	}
}

// TestCloseWaitsForTheBackground: the stores stay open until it has ended.
func TestCloseWaitsForTheBackground(t *testing.T) {
	s, _ := open(t, Config{})
	ended := make(chan error, 1)
	s.background.Go(func() {
		<-s.ctx.Done()
		var err error
		for range 20 { // each waits for the disk
			err = errors.Join(err, s.store.LetGo(nsContext(), "none"))
		}
		ended <- err
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	default:
		t.Error("Close did not wait")
	}
}

// TestOldEngine: after an upgrade of the engine, code of the one before goes;
// it is compiled again for whoever asks, by the first container or pull.
func TestOldEngine(t *testing.T) {
	srv := newServer(t)
	s, comp := open(t, Config{Proposals: [][]string{{"threads"}}})
	ctx := context.Background()
	for _, name := range []string{"plain", "threads"} {
		artifactOf(srv, name, wasmModule(name))
		if _, err := s.Pull(ctx, srv.ref(name, "v1"), PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	old, err := filepath.Glob(filepath.Join(s.cfg.Root, "code", "*"))
	if err != nil || len(old) != 4 {
		t.Fatalf("code %v, %v", old, err)
	}
	s, _ = reopen(t, s, comp, func() {})
	s.settle(ctx)
	if now, err := filepath.Glob(filepath.Join(s.cfg.Root, "code", "*")); err != nil || !slices.Equal(now, old) {
		t.Errorf("after a restart: %v, %v", now, err)
	}
	comp = &compilerFake{engine: "new "}
	s, said := reopen(t, s, comp, func() {})
	s.settle(ctx)
	if err := s.store.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	if n := countFiles(t, s, "code"); n != 0 || !strings.Contains(said.String(), "other engines is dropped") {
		t.Errorf("%d files left\n%s", n, said)
	}
	if _, err := s.Prepare(ctx, srv.ref("plain", "v1"), "c", "", nil); err != nil || comp.runs.Load() != 1 {
		t.Errorf("prepared: %v, compiled %d times", err, comp.runs.Load())
	}
}
