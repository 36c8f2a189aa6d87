package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// member compresses bytes as one of the parts that a gzip file may have.
func member(t *testing.T, b []byte) []byte {
	t.Helper()
	var z bytes.Buffer
	w, err := gzip.NewWriterLevel(&z, gzip.BestSpeed)
	if err == nil {
		_, err = w.Write(b)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return z.Bytes()
}

// TestBombs: layers that would fill the disk or use up its inodes are refused
// with the bound that they exceed, and nothing stays of them.
func TestBombs(t *testing.T) {
	const bytesBound, entriesBound = 32 << 20, 2000
	srv := newServer(t)
	guest := tarLayer(t, "gzip", file{name: "app.wasm", body: string(wasmModule("bomb"))})
	zeros := member(t, make([]byte, 64<<20)) // 160 of them are 10 GiB
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Name: "big", Size: 10 << 30, Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	var files []file
	for i := range 10_000 {
		files = append(files, file{name: fmt.Sprint("f", i)})
	}
	entries := tarBytes(t, files...)
	entries = member(t, entries[:len(entries)-1024]) // without the end of the archive; 100 of them are a million
	end := member(t, make([]byte, 1024))
	times := func(b []byte, n int) []byte { return bytes.Repeat(b, n) }
	for name, c := range map[string]struct {
		layer []byte
		says  string // "": it is taken
	}{
		"a file of 10 GiB":            {append(member(t, head.Bytes()), times(zeros, 160)...), "more than 33554432 bytes"},
		"10 GiB behind the archive":   {append(bytes.Clone(end), times(zeros, 160)...), "more than 33554432 bytes"},
		"a million entries":           {append(times(entries, 100), end...), "more than 2000 entries"},
		"control, nothing but an end": {end, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t, Config{MaxLayerBytes: bytesBound, MaxLayerEntries: entriesBound})
			diffID := digest.FromBytes(make([]byte, 1024))
			if c.says != "" {
				diffID = digest.FromString("nobody unpacks so much")
			}
			srv.t = t
			srv.image("a", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/app.wasm"), guest,
				layerSpec{mediaType: ocispec.MediaTypeImageLayerGzip, bytes: c.layer, diffID: diffID})
			exceeds(t, s, srv.ref("a", "v1"), c.says)
		})
	}
}

// exceeds pulls what is above a bound, or, where says is "", within all.
func exceeds(t *testing.T, s *Service, ref, says string) {
	t.Helper()
	_, err := s.Pull(context.Background(), ref, PullOptions{})
	if says == "" {
		if err != nil {
			t.Error(err)
		}
		return
	}
	if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v; want ErrTooLarge with %q", err, says)
	}
	left(t, s)
}

// TestLayersTogether: many layers within their bound may be too much together.
func TestLayersTogether(t *testing.T) {
	srv := newServer(t)
	layers := []layerSpec{tarLayer(t, "", file{name: "app.wasm", body: string(wasmModule("together"))})}
	for i := range 4 {
		layers = append(layers, tarLayer(t, "gzip", file{name: fmt.Sprint("a", i), body: strings.Repeat("a", 1<<20)}, file{name: fmt.Sprint("b", i)}))
	}
	srv.image("a", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/app.wasm"), layers...)
	for name, c := range map[string]struct {
		cfg  Config
		says string
	}{
		"bytes":   {Config{MaxLayerBytes: 2 << 20, MaxUnpackedBytes: 4 << 20}, "bytes"},
		"entries": {Config{MaxLayerEntries: 5, MaxEntries: 8}, "entries"},
		"neither": {Config{MaxLayerBytes: 2 << 20, MaxUnpackedBytes: 5 << 20, MaxLayerEntries: 5, MaxEntries: 9}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t, c.cfg)
			exceeds(t, s, srv.ref("a", "v1"), c.says)
		})
	}
}

// holes is an archive with a file of size bytes of which it holds none, in the
// form of GNU's tar for pax.
func holes(t *testing.T, name string, size int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	where := make([]byte, 512)
	copy(where, fmt.Sprintf("1\n%d\n0\n", size))
	err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(where)), Mode: 0o644, Typeflag: tar.TypeReg, Format: tar.FormatPAX, PAXRecords: map[string]string{
		"not.sparse.major": "1", "not.sparse.minor": "0", "not.sparse.name": name, "not.sparse.realsize": fmt.Sprint(size)}})
	if err == nil {
		_, err = w.Write(where)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(b.Bytes(), []byte("not.sparse"), []byte("GNU.sparse"))
}

// TestHolesTogether: what holes are written out to counts for all layers
// together, those too that were unpacked before for another image.
func TestHolesTogether(t *testing.T) {
	srv := newServer(t)
	layers := []layerSpec{tarLayer(t, "", file{name: "app.wasm", body: string(wasmModule("holes"))})}
	for i := range 4 {
		b := holes(t, fmt.Sprint("h", i), 1<<20)
		layers = append(layers, layerSpec{mediaType: ocispec.MediaTypeImageLayer, bytes: b, diffID: digest.FromBytes(b)})
	}
	image := func(name string, ls ...layerSpec) string {
		srv.image(name, "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/app.wasm"), ls...)
		return srv.ref(name, "v1")
	}
	some, all := image("some", layers[:4]...), image("all", layers...)
	cfg := Config{MaxLayerBytes: 2 << 20, MaxUnpackedBytes: 4 << 20}
	s, _ := open(t, cfg)
	exceeds(t, s, all, "bytes")
	if _, err := s.Pull(context.Background(), some, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pull(context.Background(), all, PullOptions{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("above layers that are there: %v, want ErrTooLarge", err)
	}
	cfg.MaxUnpackedBytes = 5 << 20
	s, _ = open(t, cfg)
	exceeds(t, s, all, "")
}

// TestFoldersOfPaths: the folders that paths make count as entries.
func TestFoldersOfPaths(t *testing.T) {
	srv := newServer(t)
	files := []file{{name: "app.wasm", body: string(wasmModule("deep"))}}
	for i := range 10 {
		files = append(files, file{name: fmt.Sprint("d", i, "/", strings.Repeat("d/", 99), "f")}, file{name: fmt.Sprint("d", i, "/", strings.Repeat("d/", 99), "g")})
	}
	srv.image("a", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/app.wasm"), tarLayer(t, "gzip", files...))
	for bound, says := range map[int64]string{1020: "more than 1020 entries", 1021: ""} {
		s, _ := open(t, Config{MaxLayerEntries: bound})
		exceeds(t, s, srv.ref("a", "v1"), says)
	}
}

// TestTruncated: a layer that ends early, or is another than the config says,
// is refused as such, also when its digest is right.
func TestTruncated(t *testing.T) {
	srv := newServer(t)
	whole := tarLayer(t, "gzip", file{name: "app.wasm", body: string(largeModule(100_000))})
	cut := whole
	cut.bytes = cut.bytes[:len(cut.bytes)/2]
	other := whole
	other.diffID = digest.FromString("another layer")
	garbage := whole
	garbage.bytes = append([]byte{0x1f, 0x8b, 8, 0}, strings.Repeat("garbage", 300)...)
	zstd := whole
	zstd.bytes = append([]byte{0x28, 0xb5, 0x2f, 0xfd}, strings.Repeat("garbage", 300)...)
	for name, l := range map[string]layerSpec{"cut": cut, "another diff id": other, "garbage in gzip": garbage, "garbage in zstd": zstd} {
		s, _ := open(t, Config{})
		srv.image("a", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/app.wasm"), l)
		_, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{})
		if !errors.Is(err, ErrInvalidImage) || !strings.Contains(err.Error(), "unpack layer "+digest.FromBytes(l.bytes).String()) {
			t.Errorf("%s: %v; want ErrInvalidImage, and which layer", name, err)
		}
		if name == "cut" && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v; want that it ends early", name, err)
		}
		left(t, s)
	}
}
