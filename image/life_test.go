package image

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// artifactOf uploads a CNCF artifact.
func artifactOf(srv *server, repo string, module []byte) {
	srv.image(repo, "v1", v0Type, v0(module), rawLayer("application/wasm", module))
}

// TestWrongBytes: what is not what its digest says counts for nothing, and a
// registry that is repaired is pulled from at once.
func TestWrongBytes(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{})
	module := wasmModule("wrong bytes")
	artifactOf(srv, "a", module)
	for name, body := range map[string]string{"other": strings.Repeat("x", len(module)), "long": string(module) + "x", "short": string(module[:9])} {
		t.Run(name, func(t *testing.T) {
			srv.setHook(func(w http.ResponseWriter, q *http.Request) bool {
				if !strings.Contains(q.URL.Path, "/blobs/sha256:"+sha(module)) || q.Method != http.MethodGet {
					return false
				}
				w.Write([]byte(body))
				return true
			})
			if img, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{}); err == nil {
				t.Errorf("pulled %+v", img)
			}
			if len(s.List("")) != 0 {
				t.Error("something can be seen")
			}
		})
	}
	srv.setHook(nil)
	if _, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{}); err != nil {
		t.Errorf("from the repaired registry: %v", err)
	}
}

// TestShared: callers that ask for one reference share a pull; it ends with
// the last of them, and leaves nothing running.
func TestShared(t *testing.T) {
	srv := newServer(t)
	s, comp := open(t, Config{})
	artifactOf(srv, "a", wasmModule("shared"))
	comp.gate = make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	compiling := make(chan struct{})
	var once sync.Once
	tell := func(p Progress) {
		if p.Stage == "compile" {
			once.Do(func() { close(compiling) })
		}
	}
	errs := make(chan error, 8)
	for range 8 {
		go func() {
			_, err := s.Pull(ctx, srv.ref("a", "v1"), PullOptions{Progress: tell})
			errs <- err
		}()
	}
	<-compiling
	cancel()
	for range 8 {
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
	close(comp.gate)
	before := comp.runs.Load()
	for range 8 {
		go func() {
			_, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{})
			errs <- err
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := comp.runs.Load() - before; n != 1 {
		t.Errorf("compiled %d times", n)
	}
}

// TestLife: a container keeps its image; names, code and blobs go when
// nothing refers to them; a restart finds everything again.
func TestLife(t *testing.T) {
	srv := newServer(t)
	root := filepath.Join(t.TempDir(), "images")
	s, _ := open(t, Config{Root: root})
	ctx := context.Background()
	srv.image("app", "v1", ocispec.MediaTypeImageConfig, ocispec.Image{Config: ocispec.ImageConfig{Entrypoint: []string{"/app.wasm"}, User: "me:staff", Env: []string{"A=b"}}},
		tarLayer(t, "gzip", file{name: "app.wasm", body: string(wasmModule("life"))},
			file{name: "etc/passwd", body: "root:x:0:0::/:\nme:x:77:88::/:\n"}, file{name: "etc/group", body: "staff:x:99:\n"}))
	ref := srv.ref("app", "v1")
	img, err := s.Pull(ctx, ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if img.Config.UID != 77 || img.Config.GID != 99 {
		t.Errorf("user %d:%d", img.Config.UID, img.Config.GID)
	}
	u, err := s.Usage(ctx)
	if err != nil || u.Bytes == 0 || u.Inodes == 0 || u.Mountpoint != root {
		t.Errorf("usage %+v, %v", u, err)
	}
	p, err := s.Prepare(ctx, ref, "c1", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{ref, img.ID, strings.TrimPrefix(img.ID, "sha256:"), img.RepoDigests[0], ref + "@" + strings.Split(img.RepoDigests[0], "@")[1]} {
		if got, ok, err := s.Status(name); err != nil || !ok || got.ID != img.ID {
			t.Errorf("status of %s: %+v, %v, %v", name, got, ok, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, comp := open(t, Config{Root: root})
	again, ok, err := s.Status(ref)
	if err != nil || !ok || again.Config.UID != 77 || len(again.Modules) != 1 || again.Size != img.Size {
		t.Errorf("after a restart: %+v, %v, %v", again, ok, err)
	}
	if ids, err := s.Leased(ctx); err != nil || len(ids) != 1 || ids[0] != "c1" {
		t.Errorf("leases %v, %v", ids, err)
	}
	if err := os.WriteFile(p.Code, []byte("forged"), 0o444); err != nil {
		os.Remove(p.Code)
	}
	if p, err = s.Prepare(ctx, ref, "c1", "", nil); err != nil || comp.runs.Load() != 1 {
		t.Fatalf("forged code: %v, compiled %d times", err, comp.runs.Load())
	}
	if b, err := os.ReadFile(p.Code); err != nil || string(b) == "forged" {
		t.Errorf("code %q, %v", b, err)
	}
	if err := s.Remove(ctx, ref); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := s.Status(img.ID); ok {
		t.Error("removed image can be seen")
	}
	if _, err := os.Stat(p.Code); err != nil {
		t.Errorf("code of a container was collected: %v", err)
	}
	if err := s.Release(ctx, "c1"); err != nil {
		t.Fatal(err)
	}
	if err := s.store.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	checkEmpty(t, s)
	if err := s.Remove(ctx, ref); err != nil {
		t.Errorf("removed twice: %v", err)
	}
}

// TestNotWasm: a Linux image is pulled; a container of it is refused, with
// what was found.
func TestNotWasm(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{})
	ctx := context.Background()
	srv.image("linux", "v1", ocispec.MediaTypeImageConfig, imageConfig("linux", "amd64", "sh"),
		tarLayer(t, "gzip", file{name: "bin/sh", body: string(elfFile), mode: 0o755}, file{name: "run", body: "#!/bin/sh\n"},
			file{name: "c.wasm", body: string(wasmComponent)}, file{name: "out", link: "/../../../etc/hostname", typ: '2'}))
	if _, err := s.Pull(ctx, srv.ref("linux", "v1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	for argv0, say := range map[string]string{"": "is not in it", "/bin/sh": "native", "/run": "script", "/c.wasm": "component", "/none": "is not in it", "/out": "is not in it", "/bin": "regular"} {
		_, err := s.Prepare(ctx, srv.ref("linux", "v1"), "c", argv0, nil)
		if !errors.Is(err, ErrNotWasm) || !strings.Contains(err.Error(), say) {
			t.Errorf("%q: %v; want %q", argv0, err, say)
		}
	}
	if ids, err := s.Leased(ctx); err != nil || len(ids) != 0 {
		t.Errorf("leases left: %v, %v", ids, err)
	}
	if _, err := s.Prepare(ctx, "none.example/x:y", "c", "", nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown image: %v", err)
	}
}

// TestIndex: which manifest of an index is meant.
func TestIndex(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{})
	wasm := srv.image("m", "wasm", v0Type, v0(wasmModule("ix")), rawLayer("application/wasm", wasmModule("ix")))
	component := srv.image("m", "component", v0Type, v0(wasmComponent), rawLayer("application/wasm", wasmComponent))
	at := func(d ocispec.Descriptor, os, arch string) ocispec.Descriptor {
		d.Platform = &ocispec.Platform{OS: os, Architecture: arch}
		return d
	}
	nested := srv.put("m", "nested", ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{at(wasm, "wasi", "wasm")}})
	for name, c := range map[string]struct {
		ms    []ocispec.Descriptor
		fails error
	}{
		"module before component": {[]ocispec.Descriptor{at(component, "unknown", "unknown"), at(component, "wasip2", "wasm"), at(wasm, "WASIP1", "WASM")}, nil},
		"component only":          {[]ocispec.Descriptor{at(component, "wasip2", "wasm")}, ErrRefused},
		"no Wasm":                 {[]ocispec.Descriptor{at(wasm, "linux", "s390x"), at(wasm, "unknown", "unknown")}, ErrRefused},
		"an index in it":          {[]ocispec.Descriptor{at(nested, "wasi", "wasm")}, ErrRefused},
		"empty":                   {nil, ErrRefused},
	} {
		tag := "ix-" + strings.ReplaceAll(strings.ToLower(name), " ", "-")
		srv.put("m", tag, ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: c.ms})
		if _, err := s.Pull(context.Background(), srv.ref("m", tag), PullOptions{}); !errors.Is(err, c.fails) {
			t.Errorf("%s: %v, want %v", name, err, c.fails)
		}
	}
}

// TestNative: the snapshotter for where overlay does not work.
func TestNative(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{Snapshotter: "native"})
	srv.image("app", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/app.wasm"),
		tarLayer(t, "gzip", file{name: "app.wasm", body: string(wasmModule("native"))}), tarLayer(t, "gzip", file{name: "b", body: "b"}))
	if _, err := s.Pull(context.Background(), srv.ref("app", "v1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prepare(context.Background(), srv.ref("app", "v1"), "c", "", nil); err != nil {
		t.Fatal(err)
	}
	root := s.cfg.Root
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ = open(t, Config{Snapshotter: "native", Root: root})
	if len(s.List("")) != 1 {
		t.Error("lost by a restart")
	}
}
