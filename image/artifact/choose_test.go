package artifact

import (
	"errors"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestChooseDocumented: the page for users has the order, and all of it.
func TestChooseDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/images.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(b), "Of an index the first of these is taken")
	order, _, whole := strings.Cut(after, "the node's own platform")
	if !ok || !whole {
		t.Fatal("docs/images.md does not say which entry of an index is taken")
	}
	if got := regexp.MustCompile("[a-z0-9]+/[a-z0-9]+").FindAllString(order, -1); !slices.Equal(got, wasmPlatforms) {
		t.Errorf("docs/images.md has %q, the code %q", got, wasmPlatforms)
	}
}

// TestChoose: which manifest of an index is meant, for every spelling of a
// Wasm platform that has been seen.
func TestChoose(t *testing.T) {
	here := "linux/" + runtime.GOARCH
	for _, c := range []struct {
		offered []string
		want    string // "": refused
	}{
		{[]string{"wasip1/wasm"}, "wasip1/wasm"},
		{[]string{"wasi/wasm"}, "wasi/wasm"},
		{[]string{"wasi/wasm32"}, "wasi/wasm32"},
		{[]string{"wasip1/wasm32"}, "wasip1/wasm32"},
		{[]string{"linux/wasm"}, "linux/wasm"},
		{[]string{"linux/wasm32"}, "linux/wasm32"},
		{[]string{"wasm/wasm"}, "wasm/wasm"},
		{[]string{"wasip2/wasm"}, "wasip2/wasm"}, // for the refusal of what is in it
		{[]string{"WASI/Wasm"}, "WASI/Wasm"},
		{[]string{"Wasip1/wasm"}, "Wasip1/wasm"},
		{[]string{here}, here},
		{[]string{""}, ""},
		{[]string{"none"}, "none"},
		{[]string{"none", "none"}, ""},
		{[]string{"unknown/unknown"}, ""},
		{[]string{"linux/s390x", "windows/amd64"}, ""},
		{nil, ""},
		{[]string{"unknown/unknown", here, "wasip2/wasm", "linux/wasm", "wasi/wasm32", "wasi/wasm", "wasip1/wasm"}, "wasip1/wasm"},
		{[]string{here, "wasip2/wasm", "linux/wasm", "wasi/wasm32", "wasi/wasm"}, "wasi/wasm"},
		{[]string{here, "wasip2/wasm", "linux/wasm", "wasi/wasm32"}, "wasi/wasm32"},
		{[]string{here, "wasip2/wasm", "linux/wasm"}, "linux/wasm"},
		{[]string{here, "none", "wasip2/wasm"}, "wasip2/wasm"},
		{[]string{"none", here, "unknown/unknown"}, here},
		{[]string{"unknown/unknown", "none"}, "none"},
		{[]string{"attestation " + here, "none"}, "none"},
		{[]string{"index wasi/wasm", here}, here},
	} {
		var ix ocispec.Index
		for _, p := range c.offered {
			d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(p), Size: 100}
			if rest, ok := strings.CutPrefix(p, "attestation "); ok {
				d.Annotations, p = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}, rest
			}
			if rest, ok := strings.CutPrefix(p, "index "); ok {
				d.MediaType, p = ocispec.MediaTypeImageIndex, rest
			}
			if os, arch, ok := strings.Cut(p, "/"); ok {
				d.Platform = &ocispec.Platform{OS: os, Architecture: arch}
			} else if p == "" {
				d.Platform = &ocispec.Platform{}
			}
			ix.Manifests = append(ix.Manifests, d)
		}
		got, err := Choose(ix)
		if c.want == "" {
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "no manifest for a Wasm platform") || !strings.Contains(err.Error(), "it lists ") {
				t.Errorf("%q: %v, %v; want a refusal that lists them", c.offered, got.Platform, err)
			}
			continue
		}
		if err != nil || got.Digest != digest.FromString(c.want) {
			t.Errorf("%q: %+v, %v; want %s", c.offered, got.Platform, err, c.want)
		}
	}
}
