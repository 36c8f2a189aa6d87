package artifact

import (
	"bytes"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }

// FuzzManifest: what strangers send as manifest, index, config and layer makes
// nothing panic, and what is accepted is within bounds.
func FuzzManifest(f *testing.F) {
	const d = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	f.Add([]byte(`{"config":{"mediaType":"application/vnd.wasm.config.v0+json","digest":"`+d+`","size":2},"layers":[{"digest":"`+d+`","size":8}]}`), []byte(`{"layerDigests":["`+d+`"]}`), []byte("\x00asm\x01\x00\x00\x00"))
	f.Add([]byte(`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"`+d+`","size":5,"platform":{"os":"wasi","architecture":"wasm"}}]}`), []byte("{}"), []byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, b, config, layer []byte) {
		if ix, err := ParseIndex(b); err == nil {
			if m, err := Choose(ix); err == nil && (m.Size <= 0 || m.Size > MaxManifest || m.Digest.Validate() != nil || len(m.URLs) > 0) {
				t.Fatalf("chosen: %+v", m)
			}
		}
		m, err := ParseManifest(b)
		if err != nil {
			return
		}
		if len(m.Layers) > MaxLayers || m.Config.Size > MaxConfig || Size(m) < 0 {
			t.Fatalf("accepted: %+v", m)
		}
		for _, l := range m.Layers {
			if len(l.URLs) > 0 || l.Digest.Validate() != nil {
				t.Fatalf("accepted layer %+v", l)
			}
		}
		for i := range m.Layers {
			m.Layers[i].Size = int64(len(layer))
		}
		a, err := Classify(m, config, func(ocispec.Descriptor) (ReaderAt, error) { return nopCloser{bytes.NewReader(layer)}, nil })
		if err == nil && len(a.Tars)+len(a.Modules) != len(m.Layers) {
			t.Fatalf("%d layers, %d and %d used", len(m.Layers), len(a.Tars), len(a.Modules))
		}
	})
}
