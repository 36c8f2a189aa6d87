package artifact

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"
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

// TestBindsLayers: a config whose digest is to be an image's id names each
// layer at its place; what repeats, or stands elsewhere, is another image.
func TestBindsLayers(t *testing.T) {
	bytesOf := map[digest.Digest][]byte{}
	add := func(b string) ocispec.Descriptor {
		d := digest.FromString(b)
		bytesOf[d] = []byte(b)
		return ocispec.Descriptor{MediaType: "application/wasm", Digest: d, Size: int64(len(b))}
	}
	module, other := add("\x00asm\x01\x00\x00\x00"), add("\x00asm\x01\x00\x00\x00\x00\x02\x01x")
	tarred := add(strings.Repeat("\x00", 1024))
	files := digest.FromString("what the archive unpacks to")
	for name, c := range map[string]struct {
		layers  []ocispec.Descriptor
		diffIDs []digest.Digest
		binds   bool
		tars    []digest.Digest
		fails   bool
	}{
		"a module":                          {[]ocispec.Descriptor{module}, []digest.Digest{module.Digest}, true, nil, false},
		"two":                               {[]ocispec.Descriptor{module, other}, []digest.Digest{module.Digest, other.Digest}, true, nil, false},
		"two, the other way round":          {[]ocispec.Descriptor{other, module}, []digest.Digest{module.Digest, other.Digest}, false, nil, false},
		"one twice":                         {[]ocispec.Descriptor{module, module}, []digest.Digest{module.Digest, module.Digest}, true, nil, false},
		"one twice, and files in its place": {[]ocispec.Descriptor{module, module}, []digest.Digest{module.Digest, files}, false, nil, false},
		"module and files":                  {[]ocispec.Descriptor{module, tarred}, []digest.Digest{module.Digest, files}, true, []digest.Digest{files}, false},
		"module and files, confused":        {[]ocispec.Descriptor{tarred, module}, []digest.Digest{module.Digest, files}, false, []digest.Digest{module.Digest}, false},
		"files twice":                       {[]ocispec.Descriptor{tarred, tarred}, []digest.Digest{files, files}, true, []digest.Digest{files, files}, false},
		"files twice and a module twice":    {[]ocispec.Descriptor{tarred, module, tarred, module}, []digest.Digest{files, module.Digest, files, module.Digest}, true, []digest.Digest{files, files}, false},
		"module not counted":                {[]ocispec.Descriptor{module, tarred, tarred}, []digest.Digest{files, files}, false, []digest.Digest{files, files}, false},
		"files twice, named once":           {[]ocispec.Descriptor{tarred, tarred}, []digest.Digest{files}, false, nil, true},
		"module twice, one counted":         {[]ocispec.Descriptor{module, tarred, module}, []digest.Digest{module.Digest, files}, false, nil, true},
	} {
		var config ocispec.Image
		config.RootFS.DiffIDs = c.diffIDs
		b, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		m := ocispec.Manifest{Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig}, Layers: c.layers}
		a, err := Classify(m, b, func(d ocispec.Descriptor) (ReaderAt, error) {
			return nopCloser{bytes.NewReader(bytesOf[d.Digest])}, nil
		})
		if c.fails {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %v, want ErrInvalid", name, err)
			}
			continue
		}
		var tars []digest.Digest
		for _, l := range a.Tars {
			tars = append(tars, l.DiffID)
		}
		if err != nil || a.BindsLayers != c.binds || !slices.Equal(tars, c.tars) {
			t.Errorf("%s: binds %v, diff ids %v, %v; want %v, %v", name, a.BindsLayers, tars, err, c.binds, c.tars)
		}
	}
}
