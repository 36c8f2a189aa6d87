// Package artifact owns the question what an image is: which manifest of an
// index is meant, and which of its bytes are the guest.
//
// Content decides first, the media type second. The package reads what it is
// handed; it fetches nothing and keeps nothing.
package artifact

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Bounds of what is read.
const (
	// MaxManifest bounds a manifest or an index, in bytes: what registries
	// accept themselves.
	MaxManifest = 4 << 20
	// MaxConfig bounds an image's config, in bytes.
	MaxConfig = 1 << 20
	// MaxLayers bounds a manifest's layers: what overlay takes elsewhere too.
	MaxLayers = 128
	// MaxIndexEntries bounds the manifests of an index.
	MaxIndexEntries = 1024
)

// What is wrong with an image.
var (
	// ErrRefused: it can never run here, whoever asks.
	ErrRefused = errors.New("artifact refused")
	// ErrTooLarge: it exceeds a bound.
	ErrTooLarge = errors.New("image exceeds a bound")
	// ErrInvalid: it makes no sense.
	ErrInvalid = errors.New("invalid image")
)

// Media types of indexes and manifests.
const (
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerSchema1  = "application/vnd.docker.distribution.manifest.v1+json"
	dockerSigned1  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// IsIndex and IsManifest tell by media type, without parameters.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerIndex
}

// IsManifest tells whether a descriptor stands for a manifest.
func IsManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == dockerManifest
}

// CheckTarget refuses what a reference must not resolve to.
func CheckTarget(d ocispec.Descriptor) error {
	switch {
	case d.MediaType == dockerSchema1 || d.MediaType == dockerSigned1:
		return fmt.Errorf("%w: a docker schema 1 manifest; push the image again with a current tool", ErrRefused)
	case !IsIndex(d.MediaType) && !IsManifest(d.MediaType):
		return fmt.Errorf("%w: the reference stands for %q, which is neither an image manifest nor an index", ErrRefused, short(d.MediaType))
	}
	return checkDescriptor(d, MaxManifest, "manifest")
}

func checkDescriptor(d ocispec.Descriptor, limit int64, what string) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("%w: %s: digest %q: %w", ErrInvalid, what, short(d.Digest.String()), err)
	}
	if a := d.Digest.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return fmt.Errorf("%w: %s: digest algorithm %q; sha256 and sha512 are known", ErrInvalid, what, a)
	}
	if d.Size <= 0 {
		return fmt.Errorf("%w: %s %s has size %d", ErrInvalid, what, d.Digest, d.Size)
	}
	if d.Size > limit {
		return fmt.Errorf("%w: %s of %d bytes, at most %d are accepted", ErrTooLarge, what, d.Size, limit)
	}
	return nil
}

// ParseIndex reads an index.
func ParseIndex(b []byte) (ocispec.Index, error) {
	var ix ocispec.Index
	if len(b) > MaxManifest {
		return ix, fmt.Errorf("%w: index of %d bytes, at most %d are accepted", ErrTooLarge, len(b), MaxManifest)
	}
	if err := json.Unmarshal(b, &ix); err != nil {
		return ix, fmt.Errorf("%w: index: %w", ErrInvalid, err)
	}
	if len(ix.Manifests) > MaxIndexEntries {
		return ix, fmt.Errorf("%w: index of %d manifests, at most %d are accepted", ErrTooLarge, len(ix.Manifests), MaxIndexEntries)
	}
	return ix, nil
}

// wasmPlatforms are those under which modules are published, best first.
// Components cannot run; they are chosen when there is nothing else, so that
// the refusal says what was found.
var wasmPlatforms = []string{"wasip1/wasm", "wasi/wasm", "wasi/wasm32", "wasip1/wasm32", "linux/wasm", "linux/wasm32", "wasm/wasm", "wasip2/wasm"}

// Choose picks the manifest of an index: a Wasm platform, else this machine's
// (a Linux image whose entry point may be a Wasm file), else the only one
// without any platform.
func Choose(ix ocispec.Index) (ocispec.Descriptor, error) {
	byPlatform := map[string]ocispec.Descriptor{}
	var seen []string
	for _, m := range ix.Manifests {
		name := "none"
		if m.Platform != nil {
			name = strings.ToLower(m.Platform.OS + "/" + m.Platform.Architecture)
		}
		if !slices.Contains(seen, name) {
			seen = append(seen, name)
		}
		if name == "unknown/unknown" || m.Annotations["vnd.docker.reference.type"] != "" || !IsManifest(m.MediaType) {
			continue
		}
		if _, dup := byPlatform[name]; !dup {
			byPlatform[name] = m
		} else if name == "none" {
			// Several without a platform: nothing says which is meant.
			byPlatform[name] = ocispec.Descriptor{}
		}
	}
	for _, want := range append(slices.Clone(wasmPlatforms), "linux/"+runtime.GOARCH, "none") {
		if m, ok := byPlatform[want]; ok && m.Digest != "" {
			m.URLs, m.Data = nil, nil
			return m, checkDescriptor(m, MaxManifest, "manifest")
		}
	}
	list := short(strings.Join(seen, ", "))
	if list == "" {
		list = "nothing"
	}
	return ocispec.Descriptor{}, fmt.Errorf("%w: the index has no manifest for a Wasm platform (such as wasip1/wasm) and none for linux/%s; it lists %s",
		ErrRefused, runtime.GOARCH, list)
}

// ParseManifest reads a manifest and checks its bounds. Addresses outside the
// registry and inlined data are dropped from its descriptors.
func ParseManifest(b []byte) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	if len(b) > MaxManifest {
		return m, fmt.Errorf("%w: manifest of %d bytes, at most %d are accepted", ErrTooLarge, len(b), MaxManifest)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%w: manifest: %w", ErrInvalid, err)
	}
	if err := refuseByType(m); err != nil {
		return m, err
	}
	if len(m.Layers) > MaxLayers {
		return m, fmt.Errorf("%w: %d layers, at most %d are accepted", ErrTooLarge, len(m.Layers), MaxLayers)
	}
	if err := checkDescriptor(m.Config, MaxConfig, "config"); err != nil {
		return m, err
	}
	m.Config.URLs, m.Config.Data = nil, nil
	sizes := map[digest.Digest]int64{m.Config.Digest: m.Config.Size}
	for i := range m.Layers {
		l := &m.Layers[i]
		if IsIndex(l.MediaType) || IsManifest(l.MediaType) {
			return m, fmt.Errorf("%w: layer %d is a manifest itself; one level is followed", ErrInvalid, i)
		}
		if err := checkDescriptor(*l, 1<<62, "layer"); err != nil {
			return m, err
		}
		if n, ok := sizes[l.Digest]; ok && n != l.Size {
			return m, fmt.Errorf("%w: blob %s is given two sizes, %d and %d", ErrInvalid, l.Digest, n, l.Size)
		}
		sizes[l.Digest] = l.Size
		l.URLs, l.Data = nil, nil
	}
	return m, nil
}

// Size is what fetching a manifest's blobs takes at most, each counted once.
func Size(m ocispec.Manifest) int64 {
	sum := m.Config.Size
	seen := map[digest.Digest]bool{m.Config.Digest: true}
	for _, l := range m.Layers {
		if seen[l.Digest] {
			continue
		}
		seen[l.Digest] = true
		if sum += l.Size; sum < 0 {
			return 1<<63 - 1
		}
	}
	return sum
}

// short makes a stranger's text fit for a sentence.
func short(s string) string {
	const most = 200
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
