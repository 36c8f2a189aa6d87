package image

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// get reads what a registry has at a path.
func (s *server) get(t *testing.T, path string, into any) {
	t.Helper()
	q, err := http.NewRequest(http.MethodGet, s.http.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Accept", ocispec.MediaTypeImageManifest)
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatalf("%s: %s, %v: %s", path, r.Status, err, b)
	}
}

// TestPushedMetadata: what an artifact says of itself is what its module
// says, in the words of the CNCF's format and of OCI's annotations.
func TestPushedMetadata(t *testing.T) {
	srv := newServer(t)
	module := commandModule("metadata")
	for name, text := range map[string]string{"version": "1.2.3", "description": "greets", "authors": "A. Nonymous", "licenses": "Apache-2.0",
		"source": "https://src.example/a", "homepage": "https://a.example", "revision": "abc123"} {
		module = append(module, 0, byte(1+len(name)+len(text)), byte(len(name)))
		module = append(append(module, name...), text...)
	}
	file := filepath.Join(t.TempDir(), "meta.wasm")
	if err := os.WriteFile(file, module, 0o600); err != nil {
		t.Fatal(err)
	}
	o := PushOptions{Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Annotations: map[string]string{"a": "b"}}
	if _, err := Push(context.Background(), file, srv.ref("meta", "v1"), o); err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	srv.get(t, "/v2/meta/manifests/v1", &m)
	oci := "org.opencontainers.image."
	want := map[string]string{"a": "b", oci + "created": "2026-01-02T03:04:05Z", oci + "version": "1.2.3", oci + "description": "greets",
		oci + "authors": "A. Nonymous", oci + "licenses": "Apache-2.0", oci + "source": "https://src.example/a", oci + "url": "https://a.example", oci + "revision": "abc123"}
	if !maps.Equal(m.Annotations, want) {
		t.Errorf("annotations %q, want %q", m.Annotations, want)
	}
	if m.Config.MediaType != v0Type || len(m.Layers) != 1 || m.Layers[0].MediaType != "application/wasm" || m.Layers[0].Annotations[ocispec.AnnotationTitle] != "meta.wasm" {
		t.Errorf("manifest %+v", m)
	}
	var c map[string]any
	srv.get(t, "/v2/meta/blobs/"+m.Config.Digest.String(), &c)
	if component, ok := c["component"]; !ok || component != nil || c["os"] != "wasip1" || c["architecture"] != "wasm" || c["author"] != "A. Nonymous" || c["created"] != "2026-01-02T03:04:05Z" {
		t.Errorf("config %v", c)
	}
	if l, ok := c["layerDigests"].([]any); !ok || len(l) != 1 || l[0] != digest.FromBytes(module).String() {
		t.Errorf("layer digests %v", c["layerDigests"])
	}
}

// TestRunConfig: what an image says about running it is told as it says it,
// and its user as a number where that can be known.
func TestRunConfig(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{})
	files := tarLayer(t, "gzip", file{name: "app.wasm", body: string(wasmModule("user"))},
		file{name: "etc/passwd", body: "root:x:0:0::/:\nme:x:77:88::/:\nnothing\nodd:x:y:z::/:\n"}, file{name: "etc/group", body: "staff:x:99:\n"})
	for user, want := range map[string]struct {
		uid, gid int64
		name     string
	}{
		"":            {DefaultUID, DefaultUID, ""},
		"77":          {77, 88, ""},
		"1234":        {1234, 0, ""},
		"1234:5678":   {1234, 5678, ""},
		"me":          {77, 88, ""},
		"me:staff":    {77, 99, ""},
		"me:5":        {77, 5, ""},
		"0":           {0, 0, ""},
		"root":        {0, 0, ""},
		"nobody":      {-1, -1, "nobody"},
		"odd":         {-1, -1, "odd"},
		"me:none":     {-1, -1, "me:none"},
		"-5":          {-1, -1, "-5"},
		"99999999999": {-1, -1, "99999999999"},
	} {
		c := imageConfig("wasi", "wasm", "/app.wasm")
		c.Config.User = user
		srv.image("user", "v1", ocispec.MediaTypeImageConfig, c, files)
		img, err := s.Pull(context.Background(), srv.ref("user", "v1"), PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if r := img.Config; r.UID != want.uid || r.GID != want.gid || r.Username != want.name {
			t.Errorf("user %q: %d:%d %q, want %+v", user, r.UID, r.GID, r.Username, want)
		}
	}
	c := imageConfig("wasi", "wasm", "/app.wasm", "a b")
	c.Config.Cmd, c.Config.Env, c.Config.WorkingDir, c.Config.StopSignal = []string{"c"}, []string{"A=b", "C="}, "/work", "SIGQUIT"
	srv.image("all", "v1", ocispec.MediaTypeImageConfig, c, files)
	img, err := s.Pull(context.Background(), srv.ref("all", "v1"), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := img.Config
	if strings.Join(r.Entrypoint, "|") != "/app.wasm|a b" || strings.Join(r.Cmd, "|") != "c" || strings.Join(r.Env, "|") != "A=b|C=" || r.WorkingDir != "/work" || r.StopSignal != "SIGQUIT" {
		t.Errorf("config %+v", r)
	}
}

// TestManyModules: of several modules that are layers, the command's first
// word names one.
func TestManyModules(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{})
	a, b := wasmModule("many a"), wasmModule("many b")
	srv.image("many", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "a.wasm"),
		layerSpec{mediaType: "application/wasm", title: "a.wasm", bytes: a}, layerSpec{mediaType: "application/wasm", title: "b.wasm", bytes: b})
	img, err := s.Pull(context.Background(), srv.ref("many", "v1"), PullOptions{})
	if err != nil || len(img.Modules) != 2 {
		t.Fatalf("%+v, %v", img, err)
	}
	for argv0, want := range map[string]string{"": "a.wasm", "a.wasm": "a.wasm", "b.wasm": "b.wasm", "/b.wasm": "b.wasm", "c.wasm": ""} {
		p, err := s.Prepare(context.Background(), img.ID, "c", argv0, nil)
		if want == "" {
			if !errors.Is(err, ErrNotWasm) || !strings.Contains(err.Error(), `2 modules, and "c.wasm" names none`) {
				t.Errorf("%q: %v", argv0, err)
			}
			continue
		}
		if err != nil || p.Module != want {
			t.Errorf("%q: %+v, %v; want %s", argv0, p, err, want)
		}
	}
}
