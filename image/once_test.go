package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestEveryModuleOnce: the pull compiles each core module of an image once,
// wherever it is and whatever it is called, and nothing else; what any image
// of the node has had compiled is not compiled again.
func TestEveryModuleOnce(t *testing.T) {
	srv := newServer(t)
	s, comp := open(t, Config{})
	ctx := context.Background()
	mod := func(name string) string { return string(wasmModule("once " + name)) }
	base := tarLayer(t, "gzip", file{name: "app.wasm", body: mod("app")}, file{name: "usr/lib/deep/down/plugin", body: mod("plugin")},
		file{name: "copy.wasm", body: mod("app")}, file{name: "hidden.wasm", body: mod("hidden")},
		file{name: "component.wasm", body: string(wasmComponent)}, file{name: "bin/sh", body: string(elfFile)}, file{name: "text.wasm", body: "no module"},
		file{name: "link.wasm", link: "app.wasm", typ: '2'}, file{name: "hard.wasm", link: "app.wasm", typ: '1'})
	upper := tarLayer(t, "", file{name: "second.wasm", body: mod("second")}, file{name: ".wh.hidden.wasm"})
	layer := rawLayer("application/vnd.bytecodealliance.wasm.component.layer.v0+wasm", []byte(mod("layer")))
	srv.image("app", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/app.wasm"), layer, base, upper)
	img, err := s.Pull(ctx, srv.ref("app", "v1"), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n := comp.runs.Load(); n != 4 { // app, plugin, second, layer
		t.Errorf("compiled %d times, want 4: %+v", n, img.Modules)
	}
	codes, err := filepath.Glob(filepath.Join(s.cfg.Root, "code", "*[0-9a-f]"))
	if err != nil || len(codes) != 4 {
		t.Errorf("code %v, %v", codes, err)
	}
	var got []string
	for _, c := range codes {
		b, err := os.ReadFile(c)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(b))
	}
	for _, name := range []string{"app", "plugin", "second", "layer"} {
		if !slices.Contains(got, "code of "+mod(name)) {
			t.Errorf("no code of %s", name)
		}
	}
	// The same modules in other images, one of another kind, and again.
	artifactOf(srv, "artifact", []byte(mod("plugin")))
	srv.image("other", "v1", ocispec.MediaTypeImageConfig, imageConfig("linux", "amd64", "/second.wasm"), upper)
	for _, ref := range []string{srv.ref("artifact", "v1"), srv.ref("other", "v1"), srv.ref("app", "v1")} {
		if _, err := s.Pull(ctx, ref, PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for i, argv0 := range []string{"/app.wasm", "/copy.wasm", "/link.wasm", "/hard.wasm", "/usr/lib/deep/down/plugin", "/second.wasm"} {
		if _, err := s.Prepare(ctx, img.ID, fmt.Sprint("c", i), argv0, nil); err != nil {
			t.Errorf("%s: %v", argv0, err)
		}
	}
	if n := comp.runs.Load(); n != 4 {
		t.Errorf("compiled %d times in the end, want 4", n)
	}
}

// TestRemovedCode: the cache of compiled code can be removed at any time; it
// costs a compilation, by a container or by a pull.
func TestRemovedCode(t *testing.T) {
	srv := newServer(t)
	s, comp := open(t, Config{})
	ctx := context.Background()
	artifactOf(srv, "a", wasmModule("removed code"))
	ref := srv.ref("a", "v1")
	for n, use := range []func() error{
		func() error { _, err := s.Pull(ctx, ref, PullOptions{}); return err },
		func() error { _, err := s.Prepare(ctx, ref, "c", "", nil); return err },
		func() error { _, err := s.Pull(ctx, ref, PullOptions{}); return err },
	} {
		if err := use(); err != nil || comp.runs.Load() != int64(n+1) {
			t.Errorf("use %d: %v, compiled %d times", n, err, comp.runs.Load())
		}
		for _, f := range []string{"*", "*.sum"} {
			files, err := filepath.Glob(filepath.Join(s.cfg.Root, "code", f))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if err := os.Remove(f); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}
