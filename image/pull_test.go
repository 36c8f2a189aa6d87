package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestKinds pulls and prepares one image of each kind that can run.
func TestKinds(t *testing.T) {
	srv := newServer(t)
	s, comp := open(t, Config{})
	ctx := context.Background()
	mod := func(kind string) []byte { return wasmModule("kind " + kind) }
	srv.image("k1", "v1", v0Type, v0(mod("1")), layerSpec{mediaType: "application/wasm", bytes: mod("1"), title: "hello.wasm"})
	srv.image("k3", "v1", v1Type, []byte("{}"), rawLayer("application/vnd.wasm.content.layer.v1+wasm", mod("3")))
	srv.image("k4", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "app.wasm"),
		layerSpec{mediaType: "application/wasm", bytes: mod("4"), title: "app.wasm"})
	srv.image("k4tar", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/app.wasm"),
		rawLayer("application/vnd.bytecodealliance.wasm.component.layer.v0+wasm", mod("4t")),
		tarLayer(t, "gzip", file{name: "etc/greeting", body: "hello"}))
	srv.image("k10", "v1", ocispec.MediaTypeEmptyJSON, []byte("{}"), rawLayer("application/octet-stream", mod("10")))
	for _, compression := range []string{"", "gzip", "zstd"} {
		srv.image("k5"+compression, "v1", "application/vnd.docker.container.image.v1+json", imageConfig("linux", "amd64", "/bin/app.wasm", "x"),
			tarLayer(t, compression, file{name: "bin/app.wasm", body: string(mod("5"))}),
			tarLayer(t, compression, file{name: "bin/link.wasm", link: "/bin/app.wasm", typ: '2'}, file{name: "bin/other.wasm", body: string(mod("5o"))}))
	}
	for _, c := range []struct {
		repo, kind, argv0, module, wasm string
		root                            bool
	}{
		{"k1", "wasm artifact", "", "hello.wasm", "1", false},
		{"k1", "wasm artifact", "anything", "hello.wasm", "1", false},
		{"k3", "wasm-to-oci artifact", "", "main.wasm", "3", false},
		{"k4", "wasm layers", "", "app.wasm", "4", false},
		{"k4tar", "wasm layers", "", "main.wasm", "4t", true},
		{"k10", "generic artifact", "", "main.wasm", "10", false},
		{"k5", "image", "", "app.wasm", "5", true},
		{"k5gzip", "image", "/bin/other.wasm", "other.wasm", "5o", true},
		{"k5zstd", "image", "bin/link.wasm", "link.wasm", "5", true},
	} {
		t.Run(c.repo+" "+c.argv0, func(t *testing.T) {
			img, err := s.Pull(ctx, srv.ref(c.repo, "v1"), PullOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if img.Kind != c.kind || img.Size == 0 || !slices.Contains(img.RepoTags, srv.ref(c.repo, "v1")) || len(img.RepoDigests) != len(img.RepoTags) {
				t.Errorf("image %+v, want kind %q", img, c.kind)
			}
			if img.Config.UID != DefaultUID || img.Config.Username != "" {
				t.Errorf("user %d %q", img.Config.UID, img.Config.Username)
			}
			runs := comp.runs.Load()
			p, err := s.Prepare(ctx, img.ID, "c-"+c.repo, c.argv0, nil)
			if err != nil {
				t.Fatal(err)
			}
			if comp.runs.Load() != runs {
				t.Error("Prepare compiled what the pull should have")
			}
			code, err := os.ReadFile(p.Code)
			if err != nil || string(code) != "code of "+string(mod(c.wasm)) {
				t.Errorf("code %q, %v", code, err)
			}
			if p.Module != c.module || (p.Root != nil) != c.root || p.Ref != img.RepoDigests[0] {
				t.Errorf("prepared %+v", p)
			}
			if fi, err := os.Stat(p.Code); err != nil || fi.Mode().Perm() != 0o444 {
				t.Errorf("mode of code: %v, %v", fi.Mode(), err)
			}
			if err := s.Release(ctx, "c-"+c.repo); err != nil {
				t.Error(err)
			}
		})
	}
	// The three k5 have one config, which binds their layers: one image.
	if n := len(s.List("")); n != 6 {
		t.Errorf("%d images, want 6", n)
	}
}

// TestRefused: what can never run is refused at the pull, each with a
// sentence that says what it is, and nothing stays.
func TestRefused(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{})
	wasm := rawLayer("application/wasm", wasmModule("x"))
	for _, c := range []struct {
		name, configType string
		layers           []layerSpec
		say              string
		as               error
	}{
		{"component", v0Type, []layerSpec{rawLayer("application/wasm", wasmComponent)}, "is a component", ErrRefused},
		{"wit", v0Type, []layerSpec{rawLayer("application/wasm", wasmInterface)}, "interface package", ErrRefused},
		{"elf", v0Type, []layerSpec{rawLayer("application/wasm", elfFile)}, "never executed", ErrRefused},
		{"elf-image", ocispec.MediaTypeImageConfig, []layerSpec{{mediaType: ocispec.MediaTypeImageLayer, bytes: elfFile, diffID: "sha256:" + "0000000000000000000000000000000000000000000000000000000000000000"}}, "never executed", ErrRefused},
		{"two", v0Type, []layerSpec{wasm, rawLayer("application/wasm", wasmModule("y"))}, "exactly one layer", ErrRefused},
		{"text", ocispec.MediaTypeEmptyJSON, []layerSpec{rawLayer("text/plain", []byte("hello, this is text"))}, "is not WebAssembly", ErrRefused},
		{"helm", "application/vnd.cncf.helm.config.v1+json", []layerSpec{wasm}, "a Helm chart", ErrRefused},
		{"spin", ocispec.MediaTypeImageConfig, []layerSpec{rawLayer("application/vnd.fermyon.spin.application.v1+config", []byte("{}{}{}{}{}"))}, "a Spin application", ErrRefused},
		{"cosign", ocispec.MediaTypeImageConfig, []layerSpec{rawLayer("application/vnd.dev.cosign.simplesigning.v1+json", []byte("{}{}{}{}"))}, "a signature", ErrRefused},
		{"envoy", "application/vnd.module.wasm.config.v1+json", []layerSpec{wasm}, "filter for a proxy", ErrRefused},
		{"provider", "application/vnd.wasmcloud.provider.archive.config", []layerSpec{wasm}, "wasmCloud provider", ErrRefused},
		{"bad", v0Type, []layerSpec{rawLayer("application/wasm", wasmModule("bad"))}, "type mismatch", ErrCompile},
		{"nolayers", v0Type, nil, "no layers", ErrRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv.image(c.name, "v1", c.configType, ocispec.Image{}, c.layers...)
			_, err := s.Pull(context.Background(), srv.ref(c.name, "v1"), PullOptions{})
			if !errors.Is(err, c.as) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("got %v; want %v, with %q", err, c.as, c.say)
			}
		})
	}
	if len(s.List("")) != 0 {
		t.Errorf("something of a refused image can be seen: %v", s.List(""))
	}
	if err := s.store.Collect(context.Background()); err != nil {
		t.Fatal(err)
	}
	checkEmpty(t, s)
}

// checkEmpty: no blob, ingest, snapshot, code or lease is left.
func checkEmpty(t *testing.T, s *Service) {
	t.Helper()
	for _, dir := range []string{"content/blobs/sha256", "content/ingest", "overlay/snapshots", "native/snapshots", "code"} {
		es, err := os.ReadDir(filepath.Join(s.cfg.Root, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		for _, e := range es {
			t.Errorf("left over: %s/%s", dir, e.Name())
		}
	}
	ls, err := s.store.Leases().List(nsContext())
	if err != nil || len(ls) != 0 {
		t.Errorf("leases %v, %v", ls, err)
	}
}

// A bug of ours in a pull is the end of that pull, and of nothing else.
func TestPanicInAPull(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{})
	srv.image("a", "v1", v0Type, v0(wasmModule("a")), layerSpec{mediaType: "application/wasm", bytes: wasmModule("a"), title: "a.wasm"})
	_, err := s.Pull(t.Context(), srv.ref("a", "v1"), PullOptions{Progress: func(Progress) { panic("ouch") }})
	if err == nil || !strings.Contains(err.Error(), "internal error: ouch") {
		t.Fatalf("got %v", err)
	}
	if _, err := s.Pull(t.Context(), srv.ref("a", "v1"), PullOptions{}); err != nil {
		t.Error(err)
	}
}
