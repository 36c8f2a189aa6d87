package image

import (
	"archive/tar"
	"bytes"
	"io"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzSift: of any archive no more comes through than its bounds, and nothing
// that cannot belong to an image.
func FuzzSift(f *testing.F) {
	const left = 1 << 10
	for _, files := range [][]tar.Header{
		{{Name: ocispec.ImageLayoutFile, Size: 2}, {Name: ocispec.ImageIndexFile, Size: 2}, {Name: "blobs/sha256/aa", Size: left - 4}},
		{{Name: savedManifest, Size: 2}, {Name: "../layer.tar", Size: 1}, {Name: "layer.tar", Size: 1}},
		{{Name: savedManifest, Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, {Name: "dir/", Typeflag: tar.TypeDir}},
		{{Name: ocispec.ImageLayoutFile, Size: left + 1}},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range files {
			if err := w.WriteHeader(&h); err != nil {
				f.Fatal(err)
			}
			if _, err := w.Write(bytes.Repeat([]byte("[]"), int(h.Size+1)/2)[:h.Size]); err != nil {
				f.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		err := sift(&out, bytes.NewReader(b), left)
		var total int64
		for r := tar.NewReader(&out); ; {
			h, next := r.Next()
			if next == io.EOF {
				break
			}
			if next != nil {
				if err == nil {
					t.Fatalf("what comes through is no archive: %v", next)
				}
				return
			}
			if !belongs(h) {
				t.Errorf("%q comes through, type %c", h.Name, h.Typeflag)
			}
			total += h.Size
		}
		if total > left {
			t.Errorf("%d bytes come through, of at most %d", total, left)
		}
	})
}
