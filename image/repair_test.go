package image

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// rewrite replaces the bytes of a blob's file, whatever its mode.
func rewrite(t *testing.T, s *Service, d digest.Digest, change func([]byte) []byte) {
	t.Helper()
	path := s.store.BlobPath(d)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o444); err != nil {
		t.Fatal(err)
	}
}

func flipped(b []byte) []byte {
	b[len(b)/2] ^= 1
	return b
}

// stopMachine makes a closed store look as after a stop of the machine.
func stopMachine(t *testing.T, root string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root, "boot"), []byte("00000000-0000-0000-0000-000000000000 open\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reopen closes a service and opens its folder again, as a restart does, but
// for what follows a start in the background.
func reopen(t *testing.T, s *Service, comp *compilerFake, between func()) (*Service, *bytes.Buffer) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	between()
	var said bytes.Buffer
	s, err := unsettled(context.Background(), s.cfg, comp, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, &said
}

// parts of the image that the tests here damage.
func parts(t *testing.T, s *Service, ref string) map[string]digest.Digest {
	t.Helper()
	e, err := s.find(ref)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]digest.Digest{"index": s.known.byName[ref].target, "manifest": e.manifest.Digest, "config": e.config.Digest, "module": e.layers[0].Digest}
	if len(e.layers) > 1 {
		m["layer"] = e.layers[1].Digest
	}
	return m
}

// indexed uploads an image of every part: an index, a manifest, a config, a
// module as a layer, and a layer with files.
func indexed(t *testing.T, srv *server, module []byte) string {
	t.Helper()
	md := srv.image("whole", "m", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/app.wasm"),
		rawLayer("application/vnd.bytecodealliance.wasm.component.layer.v0+wasm", module),
		tarLayer(t, "gzip", file{name: "etc/greeting", body: "hello"}))
	md.Platform = &ocispec.Platform{OS: "wasi", Architecture: "wasm"}
	srv.put("whole", "v1", ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{md}})
	return srv.ref("whole", "v1")
}

// TestPullRepairs: a pull looks at what is there already, whatever the last
// end was; what a disk did to it is fetched again within the same pull, and
// its bytes are compiled never.
func TestPullRepairs(t *testing.T) {
	needRoot(t)
	srv := newServer(t)
	module := wasmModule("repaired by a pull")
	ref := indexed(t, srv, module)
	ctx := context.Background()
	for _, part := range []string{"index", "manifest", "config", "module", "layer"} {
		for how, change := range map[string]func([]byte) []byte{"flipped": flipped, "cut": func(b []byte) []byte { return b[:len(b)/2] }} {
			t.Run(part+" "+how, func(t *testing.T) {
				s, comp := open(t, Config{})
				if _, err := s.Pull(ctx, ref, PullOptions{}); err != nil {
					t.Fatal(err)
				}
				d := parts(t, s, ref)[part]
				s, said := reopen(t, s, comp, func() {
					rewrite(t, s, d, change)
					// Without its code, whatever is there would be compiled.
					if err := os.RemoveAll(filepath.Join(s.cfg.Root, "code")); err != nil {
						t.Fatal(err)
					}
				})
				seen := srv.watch(nil)
				if _, err := s.Pull(ctx, ref, PullOptions{}); err != nil {
					t.Fatal(err)
				}
				if n := len(seen.gets(d.String())); n != 1 {
					t.Errorf("the damaged blob was fetched %d times, want once", n)
				}
				if n := len(seen.gets("sha256:")); n != 1 {
					t.Errorf("%d blobs were fetched, want the damaged one", n)
				}
				if !strings.Contains(said.String(), d.String()) {
					t.Errorf("the log does not name the blob:\n%s", said)
				}
				p, err := s.Prepare(ctx, ref, "c", "", nil)
				if err != nil {
					t.Fatal(err)
				}
				if code, err := os.ReadFile(p.Code); err != nil || string(code) != "code of "+string(module) {
					t.Errorf("code %q, %v", code, err)
				}
				seen = srv.watch(nil)
				if _, err := s.Pull(ctx, ref, PullOptions{}); err != nil || len(seen.gets("sha256:")) != 0 {
					t.Errorf("pulled again: %v, %v", err, seen.gets("sha256:"))
				}
			})
		}
	}
}

// TestDamagedModuleIsNotCompiled: bytes that change behind the service's back
// give no code under the good digest, and no failure that is remembered.
func TestDamagedModuleIsNotCompiled(t *testing.T) {
	srv := newServer(t)
	s, comp := open(t, Config{})
	ctx := context.Background()
	module := wasmModule("changed behind the back")
	artifactOf(srv, "a", module)
	ref := srv.ref("a", "v1")
	if _, err := s.Pull(ctx, ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	rewrite(t, s, digest.FromBytes(module), flipped)
	if err := os.RemoveAll(filepath.Join(s.cfg.Root, "code")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(s.cfg.Root, "code"), 0o711); err != nil {
		t.Fatal(err)
	}
	runs := comp.runs.Load()
	if _, err := s.Prepare(ctx, ref, "c", "", nil); !errors.Is(err, ErrDamaged) {
		t.Fatalf("prepared: %v, want %v", err, ErrDamaged)
	}
	if _, ok, _ := s.Status(ref); ok || comp.runs.Load() != runs {
		t.Errorf("listed: %v, compiled %d times", ok, comp.runs.Load()-runs)
	}
	if _, err := s.Pull(ctx, ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Prepare(ctx, ref, "c", "", nil); err != nil {
		t.Error(err)
	} else if code, err := os.ReadFile(p.Code); err != nil || string(code) != "code of "+string(module) {
		t.Errorf("code %q, %v", code, err)
	}
}

// TestUncleanEnd: after the machine stopped, every part of an image that is
// damaged is found: by its size or its digest, when the list is read, when a
// container asks, or in the background. The image is then not there, so that
// the kubelet has it pulled.
func TestUncleanEnd(t *testing.T) {
	needRoot(t)
	srv := newServer(t)
	ref := indexed(t, srv, wasmModule("unclean end"))
	ctx := context.Background()
	for _, part := range []string{"index", "manifest", "config", "module", "layer"} {
		for _, use := range []string{"container", "background"} {
			t.Run(part+" "+use, func(t *testing.T) {
				s, comp := open(t, Config{})
				img, err := s.Pull(ctx, ref, PullOptions{})
				if err != nil {
					t.Fatal(err)
				}
				d := parts(t, s, ref)[part]
				s, said := reopen(t, s, comp, func() {
					rewrite(t, s, d, flipped)
					stopMachine(t, s.cfg.Root)
				})
				switch use {
				case "container":
					if _, err := s.Prepare(ctx, img.ID, "c", "", nil); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotFound) {
						// The index is of no use to a container.
						if part != "index" || err != nil {
							t.Errorf("prepared: %v", err)
						}
					}
				case "background":
					s.settle(ctx)
					if s.store.Unclean() {
						t.Error("the work is not done")
					}
				}
				if _, ok, err := s.Status(ref); ok || err != nil || len(s.List("")) != 0 {
					t.Errorf("the damaged image is there: %v, %v", ok, err)
				}
				if !strings.Contains(said.String(), d.String()) || !strings.Contains(said.String(), ref) {
					t.Errorf("the log does not name blob %s and image %s:\n%s", d, ref, said)
				}
				if again, err := s.Pull(ctx, ref, PullOptions{}); err != nil || again.ID != img.ID {
					t.Fatalf("pulled %+v, %v", again, err)
				}
				if _, ok, err := s.Status(ref); !ok || err != nil {
					t.Errorf("after the pull: %v, %v", ok, err)
				}
				if _, err := s.Prepare(ctx, ref, "c", "", nil); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestOtherConfig: a config that was changed to another that makes sense is
// not believed, whatever the last end was.
func TestOtherConfig(t *testing.T) {
	srv := newServer(t)
	s, comp := open(t, Config{})
	module := wasmModule("other config")
	srv.image("a", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/app.wasm"), layerSpec{mediaType: "application/wasm", bytes: module, title: "app.wasm"})
	ref := srv.ref("a", "v1")
	if _, err := s.Pull(context.Background(), ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	d := parts(t, s, ref)["config"]
	s, said := reopen(t, s, comp, func() {
		rewrite(t, s, d, func(b []byte) []byte { return bytes.Replace(b, []byte("/app.wasm"), []byte("/sh.wasm-"), 1) })
	})
	if len(s.List("")) != 0 || !strings.Contains(said.String(), d.String()) {
		t.Errorf("images %v\n%s", s.List(""), said)
	}
	if _, err := s.Pull(context.Background(), ref, PullOptions{}); err != nil {
		t.Error(err)
	}
}

// TestSizeOfWhatIsThere: a descriptor that gives a blob on this node another
// size than it has is refused, though nothing needs to be fetched: the bounds
// are checked against what descriptors say.
func TestSizeOfWhatIsThere(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{})
	ctx := context.Background()
	module := wasmModule("size of what is there")
	artifactOf(srv, "a", module)
	if _, err := s.Pull(ctx, srv.ref("a", "v1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	var lied atomic.Int64
	for name, lie := range map[string]func(m *ocispec.Manifest){
		"layer":  func(m *ocispec.Manifest) { m.Layers[0].Size-- },
		"config": func(m *ocispec.Manifest) { m.Config.Size++ },
		"module as config": func(m *ocispec.Manifest) {
			m.Config.Digest, m.Config.Size = m.Layers[0].Digest, 2
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: parsed(t, s, srv.ref("a", "v1")).Config, Layers: parsed(t, s, srv.ref("a", "v1")).Layers}
			m.SchemaVersion = 2
			lie(&m)
			tag := "lie-" + strings.ReplaceAll(name, " ", "-")
			srv.put("a", tag, m.MediaType, m)
			srv.setHook(func(_ http.ResponseWriter, q *http.Request) bool {
				if strings.Contains(q.URL.Path, "/blobs/") {
					lied.Add(1)
				}
				return false
			})
			defer srv.setHook(nil)
			if _, err := s.Pull(ctx, srv.ref("a", tag), PullOptions{}); !errors.Is(err, ErrInvalidImage) {
				t.Errorf("pulled: %v, want %v", err, ErrInvalidImage)
			}
		})
	}
	if n := lied.Load(); n != 0 {
		t.Errorf("%d blobs were asked for", n)
	}
}

func parsed(t *testing.T, s *Service, ref string) ocispec.Manifest {
	t.Helper()
	e, err := s.find(ref)
	if err != nil {
		t.Fatal(err)
	}
	_, m, err := s.manifest(nsContext(), e.manifest)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
