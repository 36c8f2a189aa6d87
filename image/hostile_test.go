package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// traffic is what a registry was asked, in order.
type traffic struct {
	mu    sync.Mutex
	lines []string
}

func (r *traffic) note(q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, q.Method+" "+q.URL.Path)
}

// gets are the paths of the GET requests that hold a part.
func (r *traffic) gets(part string) (list []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		if p, ok := strings.CutPrefix(l, "GET "); ok && strings.Contains(p, part) {
			list = append(list, p)
		}
	}
	return list
}

// watch notes what a registry is asked from here on, before hook answers or
// the registry does.
func (s *server) watch(hook func(w http.ResponseWriter, q *http.Request) bool) *traffic {
	r := &traffic{}
	s.setHook(func(w http.ResponseWriter, q *http.Request) bool {
		r.note(q)
		return hook != nil && hook(w, q)
	})
	return r
}

// claim serves a body under a name and its digest. HEAD requests are told that
// it has size bytes.
func claim(name, mediaType string, d digest.Digest, size int64, body func(w http.ResponseWriter)) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.HasSuffix(q.URL.Path, name) && !strings.HasSuffix(q.URL.Path, path.Join(path.Dir(name), d.String())) {
			return false
		}
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Docker-Content-Digest", d.String())
		if q.Method == http.MethodHead {
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
			return true
		}
		body(w)
		return true
	}
}

// flood writes n bytes, or as many as somebody takes, and counts them.
func flood(n int64, taken *atomic.Int64) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		block := []byte(strings.Repeat(" ", 64<<10))
		for left := n; left > 0; left -= int64(len(block)) {
			m, err := w.Write(block[:min(int64(len(block)), left)])
			taken.Add(int64(m))
			if err != nil {
				return
			}
		}
	}
}

// TestForeignURLs: addresses in a descriptor are asked by nobody; the control
// is that the layer comes, from the registry.
func TestForeignURLs(t *testing.T) {
	var asked atomic.Int64
	module := wasmModule("urls")
	foreign := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Write(module)
	}))
	defer foreign.Close()
	srv := newServer(t)
	s, _ := open(t, Config{})
	config, err := json.Marshal(v0(module))
	if err != nil {
		t.Fatal(err)
	}
	away := func(d ocispec.Descriptor) ocispec.Descriptor {
		d.URLs = []string{foreign.URL + "/" + d.Digest.String()}
		return d
	}
	md := srv.put("a", "v1", ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: away(srv.blob("a", v0Type, config)), Layers: []ocispec.Descriptor{away(srv.blob("a", "application/wasm", module))}})
	md.Platform = &ocispec.Platform{OS: "wasip1", Architecture: "wasm"}
	srv.put("a", "index", ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{away(md)}})
	seen := srv.watch(nil)
	if _, err := s.Pull(context.Background(), srv.ref("a", "index"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if len(seen.gets("/blobs/sha256:"+sha(module))) != 1 {
		t.Errorf("the registry was not asked for the layer: %q", seen.lines)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests went to the address in a descriptor", n)
	}
}

// TestOversized: what a descriptor shows to be too large is refused before a
// byte of it is asked for, and what lies about its size is cut off.
func TestOversized(t *testing.T) {
	const huge = 64 << 20
	// taken is above what is accepted by what the buffers of two sockets hold.
	const taken = 16 << 20
	module := wasmModule("oversized")
	srv := newServer(t)
	layer := srv.blob("a", "application/wasm", module)
	some := digest.FromString("some blob")
	manifest := func(config ocispec.Descriptor, layers ...ocispec.Descriptor) []byte {
		b, err := json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	config := func(size int64) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: v0Type, Digest: some, Size: size}
	}
	many := make([]ocispec.Descriptor, 9990)
	for i := range many {
		many[i] = ocispec.Descriptor{MediaType: "application/wasm", Digest: digest.FromString(fmt.Sprint("layer ", i)), Size: 10}
	}
	entry := func(size int64) []byte {
		b, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{
			{MediaType: ocispec.MediaTypeImageManifest, Digest: some, Size: size, Platform: &ocispec.Platform{OS: "wasi", Architecture: "wasm"}}}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	sized := func(d ocispec.Descriptor, n int64) ocispec.Descriptor { d.Size = n; return d }
	big := sized(many[0], 1<<40)
	for name, c := range map[string]struct {
		manifest  []byte // nil: the manifest itself is the flood
		mediaType string
		head      int64 // size of the manifest as HEAD tells it, 0: the true one
		floods    string
		as        error
		says      string
		asked     int // GET requests for what floods
	}{
		"manifest":                      {nil, "", huge, "/manifests/v1", ErrTooLarge, "manifest", 0},
		"manifest, small by its HEAD":   {nil, "", 500, "/manifests/" + some.String(), ErrInvalidImage, some.String(), 1},
		"manifest without a size":       {nil, "", -1, "/manifests/v1", ErrTooLarge, "manifest", 1},
		"manifest of an index":          {entry(huge), ocispec.MediaTypeImageIndex, 0, "/manifests/" + some.String(), ErrTooLarge, "manifest of 67108864 bytes", 0},
		"manifest of an index, a lie":   {entry(400), ocispec.MediaTypeImageIndex, 0, "/manifests/" + some.String(), ErrInvalidImage, some.String(), 1},
		"config":                        {manifest(config(huge), layer), "", 0, "/blobs/" + some.String(), ErrTooLarge, "config of 67108864 bytes", 0},
		"config, small by the manifest": {manifest(config(200), layer), "", 0, "/blobs/" + some.String(), ErrInvalidImage, some.String(), 1},
		"layer of 1 TB":                 {manifest(config(200), layer, big), "", 0, "/blobs/", ErrTooLarge, "at most 4294967296", 0},
		"layers of 4 GiB together":      {manifest(config(200), layer, sized(big, 4<<30-201)), "", 0, "/blobs/", ErrTooLarge, "at most 4294967296", 0},
		"9990 layers":                   {manifest(config(200), many...), "", 0, "/blobs/", ErrTooLarge, "9990 layers", 0},
		"sizes that overflow":           {manifest(config(200), big, sized(layer, 1<<62-1), sized(many[1], 1<<62-1)), "", 0, "/blobs/", ErrTooLarge, "at most 4294967296", 0},
		"one blob with two sizes":       {manifest(config(200), layer, sized(layer, layer.Size+1)), "", 0, "/blobs/", ErrInvalidImage, "two sizes", 0},
		"negative size":                 {manifest(config(200), sized(big, -5)), "", 0, "/blobs/", ErrInvalidImage, "size -5", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t, Config{})
			if c.mediaType == "" {
				c.mediaType = ocispec.MediaTypeImageManifest
			}
			var sent atomic.Int64
			serveManifest := claim("/manifests/v1", c.mediaType, some, c.head, flood(huge, &sent))
			if c.manifest != nil {
				serveManifest = claim("/manifests/v1", c.mediaType, digest.FromBytes(c.manifest), int64(len(c.manifest)), func(w http.ResponseWriter) { w.Write(c.manifest) })
			}
			seen := srv.watch(func(w http.ResponseWriter, q *http.Request) bool {
				if c.head < 0 && q.Method == http.MethodHead {
					// A HEAD without a length makes the client ask for the whole.
					w.Header().Set("Content-Type", c.mediaType)
					w.(http.Flusher).Flush()
					return true
				}
				return serveManifest(w, q) || claim(some.String(), "application/octet-stream", some, 0, flood(huge, &sent))(w, q)
			})
			_, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{})
			if !errors.Is(err, c.as) || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("got %v; want %v with %q", err, c.as, c.says)
			}
			if n := len(seen.gets(c.floods)); n > c.asked {
				t.Errorf("asked %d times for %s, want %d: %q", n, c.floods, c.asked, seen.gets(""))
			}
			if n := sent.Load(); n > taken {
				t.Errorf("%d bytes were taken", n)
			}
			srv.setHook(nil)
			srv.t = t
			left(t, s)
		})
	}
	// The control: the same image with honest sizes.
	s, _ := open(t, Config{})
	artifactOf(srv, "a", module)
	if _, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{}); err != nil {
		t.Error(err)
	}
}

// left checks that nothing of a pull can be seen, or stays after a collection.
func left(t *testing.T, s *Service) {
	t.Helper()
	if l := s.List(""); len(l) != 0 {
		t.Errorf("can be seen: %+v", l)
	}
	if err := s.store.Collect(context.Background()); err != nil {
		t.Fatal(err)
	}
	checkEmpty(t, s)
}

// TestSizesTogether: the bound holds for all blobs together, and each counts
// once.
func TestSizesTogether(t *testing.T) {
	srv := newServer(t)
	a, b := tarLayer(t, "", file{name: "app.wasm", body: string(wasmModule("sum"))}), tarLayer(t, "", file{name: "b", body: strings.Repeat("b", 5000)})
	srv.image("a", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/app.wasm"), a, b, b)
	whole := int64(len(a.bytes) + len(b.bytes))
	for _, c := range []struct {
		bound int64
		fails bool
	}{{whole, true}, {whole + 1000, false}} {
		s, _ := open(t, Config{MaxImageBytes: c.bound})
		seen := srv.watch(nil)
		_, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{})
		if errors.Is(err, ErrTooLarge) != c.fails || (err != nil) != c.fails {
			t.Errorf("bound of %d: %v", c.bound, err)
		}
		if got := len(seen.gets("/blobs/")); c.fails && got != 0 || !c.fails && got != 3 {
			t.Errorf("bound of %d: asked for %d blobs", c.bound, got)
		}
	}
}

// TestWidth: of one image no more than the configured number of blobs come at
// once.
func TestWidth(t *testing.T) {
	const parallel = 3
	srv := newServer(t)
	var layers []layerSpec
	for i := range 8 {
		layers = append(layers, tarLayer(t, "", file{name: fmt.Sprint("f", i), body: "x"}))
	}
	srv.image("a", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/app.wasm"), layers...)
	s, _ := open(t, Config{Parallel: parallel})
	var here, most atomic.Int64
	tooMany := make(chan struct{})
	var once sync.Once
	srv.setHook(func(_ http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, "/blobs/") {
			return false
		}
		n := here.Add(1)
		defer here.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n > parallel {
			once.Do(func() { close(tooMany) })
		}
		// Each stays a while for others to come beside it.
		stay := time.NewTimer(50 * time.Millisecond)
		defer stay.Stop()
		select {
		case <-tooMany:
		case <-stay.C:
		}
		return false
	})
	if _, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if most.Load() > parallel {
		t.Errorf("%d blobs came at once, want at most %d", most.Load(), parallel)
	}
}

// TestNested: an index in an index, in a layer, or under a manifest's type is
// not followed.
func TestNested(t *testing.T) {
	srv := newServer(t)
	module := wasmModule("nested")
	inner := srv.image("a", "inner", v0Type, v0(module), rawLayer("application/wasm", module))
	inner.Platform = &ocispec.Platform{OS: "wasi", Architecture: "wasm"}
	index := func(tag string, ms ...ocispec.Descriptor) ocispec.Descriptor {
		d := srv.put("a", tag, ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: ms})
		d.Platform = &ocispec.Platform{OS: "wasi", Architecture: "wasm"}
		return d
	}
	ix := index("index", inner)
	lying := ix
	lying.MediaType = ocispec.MediaTypeImageManifest
	config := srv.blob("a", v0Type, []byte(`{}`))
	index("nested", ix)
	index("lying", lying)
	srv.put("a", "layer", ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: []ocispec.Descriptor{ix}})
	for tag, want := range map[string][]error{"nested": {ErrRefused}, "lying": {ErrRefused, ErrInvalidImage}, "layer": {ErrInvalidImage}, "index": nil} {
		s, _ := open(t, Config{})
		seen := srv.watch(nil)
		_, err := s.Pull(context.Background(), srv.ref("a", tag), PullOptions{})
		if len(want) == 0 && err != nil || len(want) > 0 && !slices.ContainsFunc(want, func(e error) bool { return errors.Is(err, e) }) {
			t.Errorf("%s: %v, want one of %v", tag, err, want)
		}
		if len(want) > 0 && len(seen.gets(inner.Digest.String())) != 0 {
			t.Errorf("%s was followed: %q", tag, seen.lines)
		}
	}
}
