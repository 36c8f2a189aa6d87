package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/limpet-cri/limpet/image/content"
)

// wasmModule is the smallest core module, told apart by a custom section.
func wasmModule(name string) []byte {
	b := []byte("\x00asm\x01\x00\x00\x00\x00")
	return append(append(b, byte(len(name)+1), byte(len(name))), name...)
}

// commandModule is a module that can be run: it exports a _start that returns.
func commandModule(name string) []byte {
	b := wasmModule(name)
	return append(b, "\x01\x04\x01\x60\x00\x00"+"\x03\x02\x01\x00"+"\x07\x0a\x01\x06_start\x00\x00"+"\x0a\x04\x01\x02\x00\x0b"...)
}

var (
	wasmComponent = []byte("\x00asm\x0d\x00\x01\x00\x01\x08\x00asm\x01\x00\x00\x00")
	wasmInterface = []byte("\x00asm\x0d\x00\x01\x00\x00\x05\x04name")
	elfFile       = append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 600)...)
)

// compilerFake "compiles" by a prefix, refuses modules that hold "bad", and
// counts.
type compilerFake struct {
	runs, keys atomic.Int64
	engine     string
	gate       chan struct{}
}

func (c *compilerFake) Compile(ctx context.Context, in, out *os.File, proposals []string) error {
	c.runs.Add(1)
	if c.gate != nil {
		select {
		case <-c.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(b, []byte("\x00asm\x01")) || bytes.Contains(b, []byte("bad")) {
		return errors.New("type mismatch at offset 0x2a")
	}
	if bytes.Contains(b, []byte("threads")) && !strings.Contains(strings.Join(proposals, " "), "threads") {
		return errors.New("threads must be enabled")
	}
	_, err = fmt.Fprintf(out, "code of %s", b)
	return err
}

func (c *compilerFake) EngineKey(_ context.Context, proposals []string) (string, error) {
	c.keys.Add(1)
	return c.engine + "engine " + strings.Join(proposals, ","), nil
}

// server is a registry on loopback, in front of which a test may stand.
type server struct {
	t    testing.TB
	http *httptest.Server
	host string
	mu   sync.Mutex
	hook func(w http.ResponseWriter, q *http.Request) bool // true: answered
}

func newServer(t testing.TB) *server {
	s := &server{t: t}
	inner := registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)))
	s.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		s.mu.Lock()
		hook := s.hook
		s.mu.Unlock()
		if hook != nil && hook(w, q) {
			return
		}
		inner.ServeHTTP(w, q)
	}))
	s.host = strings.TrimPrefix(s.http.URL, "http://")
	t.Cleanup(s.http.Close)
	return s
}

func (s *server) setHook(h func(w http.ResponseWriter, q *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = h
}

func (s *server) do(method, path, contentType string, body []byte) {
	s.t.Helper()
	q, err := http.NewRequest(method, s.http.URL+path, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	q.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode > 299 {
		b, _ := io.ReadAll(resp.Body)
		s.t.Fatalf("%s %s: %s %s", method, path, resp.Status, b)
	}
}

// blob uploads bytes and describes them.
func (s *server) blob(repo, mediaType string, b []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	s.do(http.MethodPost, "/v2/"+repo+"/blobs/uploads/?digest="+d.Digest.String(), "application/octet-stream", b)
	return d
}

// put uploads a manifest or index.
func (s *server) put(repo, tag, mediaType string, v any) ocispec.Descriptor {
	b, ok := v.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(v); err != nil {
			s.t.Fatal(err)
		}
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	s.do(http.MethodPut, "/v2/"+repo+"/manifests/"+tag, mediaType, b)
	return d
}

func (s *server) ref(repo, tag string) string { return s.host + "/" + repo + ":" + tag }

// layer of an image under construction.
type layerSpec struct {
	mediaType, title string
	bytes            []byte
	diffID           digest.Digest // of tar layers
}

func rawLayer(mediaType string, b []byte) layerSpec {
	return layerSpec{mediaType: mediaType, bytes: b}
}

// manifest uploads an image: config as given, or an image config made of c.
func (s *server) image(repo, tag, configType string, config any, layers ...layerSpec) ocispec.Descriptor {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, l := range layers {
		d := s.blob(repo, l.mediaType, l.bytes)
		if l.title != "" {
			d.Annotations = map[string]string{ocispec.AnnotationTitle: l.title}
		}
		m.Layers = append(m.Layers, d)
	}
	b, ok := config.([]byte)
	if !ok {
		if c, isImage := config.(ocispec.Image); isImage {
			for _, l := range layers {
				if l.diffID != "" {
					c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.diffID)
				}
			}
			c.RootFS.Type = "layers"
			config = c
		}
		var err error
		if b, err = json.Marshal(config); err != nil {
			s.t.Fatal(err)
		}
	}
	m.Config = s.blob(repo, configType, b)
	return s.put(repo, tag, m.MediaType, m)
}

// file of a tar layer.
type file struct {
	name, body, link string
	mode             int64
	typ              byte
	uid              int
}

func tarBytes(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.body)), Linkname: f.link, Typeflag: f.typ, Uid: f.uid, Gid: f.uid}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func tarLayer(t testing.TB, compression string, files ...file) layerSpec {
	raw := tarBytes(t, files...)
	return compressed(t, compression, raw)
}

func compressed(t testing.TB, compression string, raw []byte) layerSpec {
	l := layerSpec{mediaType: ocispec.MediaTypeImageLayer, bytes: raw, diffID: digest.FromBytes(raw)}
	var b bytes.Buffer
	switch compression {
	case "gzip":
		w := gzip.NewWriter(&b)
		if _, err := w.Write(raw); err != nil {
			t.Fatal(err)
		}
		w.Close()
		l.mediaType, l.bytes = ocispec.MediaTypeImageLayerGzip, b.Bytes()
	case "zstd":
		w, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(raw); err != nil {
			t.Fatal(err)
		}
		w.Close()
		l.mediaType, l.bytes = ocispec.MediaTypeImageLayerZstd, b.Bytes()
	}
	return l
}

func imageConfig(os, arch string, entrypoint ...string) ocispec.Image {
	return ocispec.Image{Platform: ocispec.Platform{OS: os, Architecture: arch}, Config: ocispec.ImageConfig{Entrypoint: entrypoint}}
}

// v0 makes the config of a CNCF artifact.
func v0(module []byte) map[string]any {
	return map[string]any{"created": "2026-01-01T00:00:00Z", "architecture": "wasm", "os": "wasip1",
		"layerDigests": []string{digest.FromBytes(module).String()}, "component": nil}
}

const (
	v0Type = "application/vnd.wasm.config.v0+json"
	v1Type = "application/vnd.wasm.config.v1+json"
)

// open opens a service in a new folder; as an ordinary user with the native
// snapshotter.
func open(t testing.TB, c Config) (*Service, *compilerFake) {
	t.Helper()
	if c.Root == "" {
		c.Root = filepath.Join(t.TempDir(), "images")
	}
	comp := &compilerFake{}
	s, err := New(context.Background(), c, comp, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	t.Cleanup(func() {
		if !closed {
			s.Close()
		}
	})
	return s, comp
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func sha(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func nsContext() context.Context { return content.Context(context.Background()) }
