package image

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestIdentity: an image's id is its config's digest where that binds every
// layer, and its manifest's elsewhere, so that one id is one content.
func TestIdentity(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{})
	raw := func(name string) layerSpec { return rawLayer("application/wasm", wasmModule("id "+name)) }
	bound := imageConfig("wasi", "wasm", "main.wasm")
	bound.RootFS.DiffIDs = []digest.Digest{digest.FromBytes(raw("bound").bytes)}
	tarred := tarLayer(t, "gzip", file{name: "main.wasm", body: string(wasmModule("id tar"))})
	v0Without := map[string]any{"architecture": "wasm", "os": "wasip1", "component": nil}
	v0Wrong := v0(wasmModule("somebody else's"))
	seen := map[string]string{}
	for _, c := range []struct {
		repo, configType string
		config           any
		layers           []layerSpec
		byConfig         bool
	}{
		{"v0", v0Type, v0(raw("v0").bytes), []layerSpec{raw("v0")}, true},
		{"v0-without", v0Type, v0Without, []layerSpec{raw("a")}, false},
		{"v0-without-2", v0Type, v0Without, []layerSpec{raw("b")}, false},
		{"v0-wrong", v0Type, v0Wrong, []layerSpec{raw("c")}, false},
		{"empty", v1Type, []byte("{}"), []layerSpec{raw("d")}, false},
		{"empty-2", v1Type, []byte("{}"), []layerSpec{raw("e")}, false},
		{"oras", ocispec.MediaTypeEmptyJSON, []byte("{}"), []layerSpec{raw("f")}, false},
		{"layers", ocispec.MediaTypeImageConfig, bound, []layerSpec{raw("bound")}, true},
		{"layers-unbound", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "main.wasm"), []layerSpec{raw("g")}, false},
		{"layers-unbound-2", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "main.wasm"), []layerSpec{raw("h")}, false},
		{"beside-tar", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "main.wasm"), []layerSpec{tarred, raw("i")}, false},
		{"rootfs", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "main.wasm"), []layerSpec{tarred}, true},
	} {
		md := srv.image(c.repo, "v1", c.configType, c.config, c.layers...)
		img, err := s.Pull(context.Background(), srv.ref(c.repo, "v1"), PullOptions{})
		if err != nil {
			t.Errorf("%s: %v", c.repo, err)
			continue
		}
		if (img.ID == md.Digest.String()) == c.byConfig {
			t.Errorf("%s: id %s, and the manifest has %s; want that of the config: %v", c.repo, img.ID, md.Digest, c.byConfig)
		}
		if other, ok := seen[img.ID]; ok {
			t.Errorf("%s and %s have one id", c.repo, other)
		}
		seen[img.ID] = c.repo
	}
}

// TestNames: what a client may call an image by, and what each name leads to.
func TestNames(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{})
	ctx := context.Background()
	module := wasmModule("names")
	wasm := rawLayer("application/wasm", module)
	md := srv.image("a", "v1", v0Type, v0(module), wasm)
	srv.image("a", "v2", v0Type, v0(module), wasm)
	srv.image("b", "v1", v0Type, v0(module), wasm)
	md.Platform = &ocispec.Platform{OS: "wasip1", Architecture: "wasm"}
	ix := srv.put("a", "index", ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{md}})
	var id string
	for _, name := range []string{srv.ref("a", "v1"), srv.ref("a", "v2"), srv.ref("b", "v1"), srv.ref("a", "index")} {
		img, err := s.Pull(ctx, name, PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if id == "" {
			id = img.ID
		}
		if img.ID != id {
			t.Errorf("%s has id %s, and the same content %s", name, img.ID, id)
		}
	}
	img, _, err := s.Status(id)
	if err != nil {
		t.Fatal(err)
	}
	at := func(repo string, d digest.Digest) string { return srv.host + "/" + repo + "@" + d.String() }
	if want := []string{srv.ref("a", "index"), srv.ref("a", "v1"), srv.ref("a", "v2"), srv.ref("b", "v1")}; !slices.Equal(img.RepoTags, want) {
		t.Errorf("tags %q, want %q", img.RepoTags, want)
	}
	digests := []string{at("a", md.Digest), at("a", ix.Digest), at("b", md.Digest)}
	slices.Sort(digests)
	if !slices.Equal(img.RepoDigests, digests) {
		t.Errorf("digests %q, want %q", img.RepoDigests, digests)
	}
	for _, name := range append(append(img.RepoTags, img.RepoDigests...), id, strings.TrimPrefix(id, "sha256:"), md.Digest.String(), ix.Digest.String(),
		srv.ref("a", "v1")+"@"+md.Digest.String(), srv.ref("b", "other")+"@"+md.Digest.String()) {
		if got, ok, err := s.Status(name); err != nil || !ok || got.ID != id {
			t.Errorf("status of %s: %v, %v, %v", name, got.ID, ok, err)
		}
	}
	for _, name := range []string{srv.ref("a", "v3"), srv.ref("c", "v1"), at("b", ix.Digest), digest.FromString("none").String(), digest.FromString("none").Encoded()} {
		if got, ok, err := s.Status(name); err != nil || ok {
			t.Errorf("status of %s: %v, %v, %v; want nothing, and no error", name, got.ID, ok, err)
		}
		if err := s.Remove(ctx, name); err != nil {
			t.Errorf("remove of %s: %v", name, err)
		}
	}
	if l := s.List(""); len(l) != 1 {
		t.Errorf("%d images, want 1", len(l))
	}
	// A tag that moves leaves the image, which keeps its other names.
	moved := wasmModule("moved")
	srv.image("a", "v1", v0Type, v0(moved), rawLayer("application/wasm", moved))
	to, err := s.Pull(ctx, srv.ref("a", "v1"), PullOptions{})
	if err != nil || to.ID == id || !slices.Equal(to.RepoTags, []string{srv.ref("a", "v1")}) {
		t.Errorf("moved: %+v, %v", to, err)
	}
	if img, ok, err := s.Status(id); err != nil || !ok || slices.Contains(img.RepoTags, srv.ref("a", "v1")) || len(img.RepoTags) != 3 {
		t.Errorf("what the tag left: %+v, %v, %v", img, ok, err)
	}
	// One name removed is all of them removed.
	if err := s.Remove(ctx, srv.ref("b", "v1")); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(img.RepoTags[1:], id, img.RepoDigests[0]) {
		if _, ok, err := s.Status(name); ok && name != srv.ref("a", "v1") || err != nil {
			t.Errorf("after the removal: %s %v, %v", name, ok, err)
		}
	}
	if err := s.Remove(ctx, to.ID); err != nil {
		t.Fatal(err)
	}
	left(t, s)
}

// TestUsage: blobs, unpacked layers and compiled code all count, and go.
func TestUsage(t *testing.T) {
	const size = 1 << 20
	srv := newServer(t)
	s, _ := open(t, Config{})
	ctx := context.Background()
	usage := func() uint64 {
		t.Helper()
		u, err := s.Usage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return u.Bytes
	}
	empty := usage()
	module := largeModule(size)
	srv.image("a", "v1", v0Type, v0(module), rawLayer("application/wasm", module))
	srv.image("b", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/b.wasm"),
		tarLayer(t, "gzip", file{name: "b.wasm", body: string(module)}))
	for _, c := range []struct {
		repo   string
		copies uint64 // of the module that come with it
	}{
		{"a", 2}, // blob, code
		{"b", 2}, // blob, file; the code is there
	} {
		before := usage()
		img, err := s.Pull(ctx, srv.ref(c.repo, "v1"), PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if img.Size < size {
			t.Errorf("%s: size %d", c.repo, img.Size)
		}
		if got := usage() - before; got < c.copies*size || got > c.copies*size+size/2 {
			t.Errorf("%s takes %d bytes more, want about %d", c.repo, got, c.copies*size)
		}
	}
	if _, err := s.Prepare(ctx, srv.ref("b", "v1"), "c", "", nil); err != nil {
		t.Fatal(err)
	}
	for _, repo := range []string{"a", "b"} {
		if err := s.Remove(ctx, srv.ref(repo, "v1")); err != nil {
			t.Fatal(err)
		}
	}
	// What a container holds of a removed image is there, and counts.
	if got := usage() - empty; got < 2*size {
		t.Errorf("%d bytes with a container, want its file and its code, %d", got, 2*size)
	}
	if err := errors.Join(s.Release(ctx, "c"), s.store.Collect(ctx)); err != nil {
		t.Fatal(err)
	}
	if got := usage(); got != empty {
		t.Errorf("%d bytes after everything was removed, %d before", got, empty)
	}
}

// TestBorrowed: who names another image's layer by its diff id, and has other
// bytes, is not given that image's files.
func TestBorrowed(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{})
	secret := tarLayer(t, "gzip", file{name: "app.wasm", body: string(wasmModule("secret"))})
	srv.image("a", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/app.wasm"), secret)
	if _, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	other := tarLayer(t, "gzip", file{name: "other", body: "x"})
	other.diffID = secret.diffID
	srv.image("b", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/app.wasm"), other)
	_, err := s.Pull(context.Background(), srv.ref("b", "v1"), PullOptions{})
	if !errors.Is(err, ErrInvalidImage) || !strings.Contains(err.Error(), "it unpacks to") {
		t.Errorf("got %v; want ErrInvalidImage", err)
	}
}
