package artifact

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Kind is what an artifact is, in a word for people.
type Kind string

// The kinds that can hold a guest.
const (
	// KindArtifact is the CNCF Wasm artifact: one module, a config of its own.
	KindArtifact Kind = "wasm artifact"
	// KindLegacy is what wasm-to-oci and Krustlet published.
	KindLegacy Kind = "wasm-to-oci artifact"
	// KindLayers is an image with modules as layers, as runwasi's tools make it.
	KindLayers Kind = "wasm layers"
	// KindRootfs is an ordinary image; its entry point may be a Wasm file.
	KindRootfs Kind = "image"
	// KindGeneric is one Wasm layer under a generic manifest.
	KindGeneric Kind = "generic artifact"
)

// Media types of configs.
const (
	configV0 = "application/vnd.wasm.config.v0+json"
	configV1 = "application/vnd.wasm.config.v1+json"
)

func isImageConfig(t string) bool {
	return t == ocispec.MediaTypeImageConfig || t == dockerConfig
}

// Layer is a layer and what its bytes are.
type Layer struct {
	ocispec.Descriptor
	Content Content
	// DiffID of a tar layer, from the config.
	DiffID digest.Digest
	// Title names a module.
	Title string
}

// Artifact is an image understood.
type Artifact struct {
	Kind   Kind
	Config ocispec.Image
	// Modules are the layers that are core modules, Tars those that make the
	// root file system, both in the manifest's order.
	Modules, Tars []Layer
	// BindsLayers is true when the config names every layer, so that its
	// digest identifies the image.
	BindsLayers bool
}

// Classify says what a manifest with its config and layers is. open gives
// access to a layer's bytes.
func Classify(m ocispec.Manifest, config []byte, open func(ocispec.Descriptor) (ReaderAt, error)) (Artifact, error) {
	a := Artifact{}
	image := isImageConfig(m.Config.MediaType)
	if err := a.readConfig(config, image || m.Config.MediaType == configV0); err != nil {
		return a, err
	}
	var kinds []Layer
	for i, d := range m.Layers {
		c, err := sniff(d, open)
		if err != nil {
			return a, err
		}
		if err := refuseContent(c, d, i, image); err != nil {
			return a, err
		}
		kinds = append(kinds, Layer{Descriptor: d, Content: c})
	}
	for i, l := range kinds {
		if l.Content == Module {
			l.Title = title(l.Descriptor, len(a.Modules))
			a.Modules = append(a.Modules, l)
		} else {
			kinds[i] = l
			a.Tars = append(a.Tars, l)
		}
	}
	if err := a.name(m); err != nil {
		return a, err
	}
	if err := a.pairDiffIDs(m); err != nil {
		return a, err
	}
	a.BindsLayers = bindsLayers(m, a, config)
	return a, nil
}

func (a *Artifact) readConfig(config []byte, strict bool) error {
	if len(config) > MaxConfig {
		return fmt.Errorf("%w: config of %d bytes, at most %d are accepted", ErrTooLarge, len(config), MaxConfig)
	}
	if err := json.Unmarshal(config, &a.Config); err != nil {
		if strict {
			return fmt.Errorf("%w: config: %w", ErrInvalid, err)
		}
		a.Config = ocispec.Image{}
	}
	return nil
}

// name decides the kind, by the layers first.
func (a *Artifact) name(m ocispec.Manifest) error {
	switch {
	case isImageConfig(m.Config.MediaType) && len(a.Modules) == 0:
		a.Kind = KindRootfs
	case isImageConfig(m.Config.MediaType):
		a.Kind = KindLayers
	case len(a.Modules) != 1 || len(a.Tars) != 0:
		return fmt.Errorf("%w: an artifact of type %q with %d modules and %d other layers; exactly one layer, the module, is wanted",
			ErrRefused, short(first(m.ArtifactType, m.Config.MediaType)), len(a.Modules), len(a.Tars))
	case m.Config.MediaType == configV0:
		a.Kind = KindArtifact
	case m.Config.MediaType == configV1:
		a.Kind = KindLegacy
	default:
		a.Kind = KindGeneric
	}
	if !isImageConfig(m.Config.MediaType) {
		// Only an image's config may say how it is run.
		a.Config.Config = ocispec.ImageConfig{}
		a.Config.RootFS = ocispec.RootFS{}
	}
	return nil
}

// pairDiffIDs gives each tar layer its diff id. Some tools count module
// layers among the diff ids, some do not.
func (a *Artifact) pairDiffIDs(m ocispec.Manifest) error {
	ids := a.Config.RootFS.DiffIDs
	if len(a.Tars) == 0 {
		return nil
	}
	if len(ids) == len(m.Layers) && len(a.Modules) > 0 {
		var tars []digest.Digest
		for i, d := range m.Layers {
			if !slices.ContainsFunc(a.Modules, func(l Layer) bool { return l.Digest == d.Digest }) {
				tars = append(tars, ids[i])
			}
		}
		ids = tars
	}
	if len(ids) != len(a.Tars) {
		return fmt.Errorf("%w: %d layers make the file system, and the config has %d diff ids for them", ErrInvalid, len(a.Tars), len(ids))
	}
	for i := range a.Tars {
		if err := ids[i].Validate(); err != nil {
			return fmt.Errorf("%w: diff id %d: %w", ErrInvalid, i, err)
		}
		a.Tars[i].DiffID = ids[i]
	}
	return nil
}

// bindsLayers: does the config name every layer? A tar layer is named by its
// diff id, a module by its digest among the diff ids or layerDigests.
func bindsLayers(m ocispec.Manifest, a Artifact, config []byte) bool {
	if len(m.Layers) == 0 {
		return false
	}
	var v0 struct {
		LayerDigests []digest.Digest `json:"layerDigests"`
		RootFS       ocispec.RootFS  `json:"rootfs"`
	}
	if json.Unmarshal(config, &v0) != nil {
		return false
	}
	if len(v0.LayerDigests) == len(m.Layers) {
		same := true
		for i, l := range m.Layers {
			same = same && v0.LayerDigests[i] == l.Digest
		}
		if same {
			return true
		}
	}
	for _, l := range a.Modules {
		if !slices.Contains(v0.RootFS.DiffIDs, l.Digest) {
			return false
		}
	}
	return len(v0.RootFS.DiffIDs) == len(m.Layers)
}

// title is the name of a module that is a layer of its own.
func title(d ocispec.Descriptor, n int) string {
	t := path.Base(path.Clean("/" + d.Annotations[ocispec.AnnotationTitle]))
	odd := strings.ContainsFunc(t, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' })
	if t == "/" || len(t) > 255 || odd {
		if n == 0 {
			return "main.wasm"
		}
		return fmt.Sprintf("main-%d.wasm", n)
	}
	return t
}

func sniff(d ocispec.Descriptor, open func(ocispec.Descriptor) (ReaderAt, error)) (Content, error) {
	r, err := open(d)
	if err != nil {
		return Unknown, fmt.Errorf("open layer %s: %w", d.Digest, err)
	}
	defer r.Close()
	return Sniff(r, d.Size)
}

// ReaderAt is a blob.
type ReaderAt interface {
	io.ReaderAt
	io.Closer
}

// refuseContent refuses layers that can never run, each with a sentence.
func refuseContent(c Content, d ocispec.Descriptor, i int, image bool) error {
	switch c {
	case Module, Tar, Gzip, Zstd:
		return nil
	case Component:
		return fmt.Errorf("%w: layer %d (%s) is a WebAssembly component, and only core modules run here; build it for wasip1 (for example --target wasm32-wasip1)", ErrRefused, i, d.Digest)
	case Interface:
		return fmt.Errorf("%w: layer %d (%s) is an interface package (WIT only): there is nothing to run in it", ErrRefused, i, d.Digest)
	case Precompiled:
		return fmt.Errorf("%w: layer %d (%s) is native code, precompiled or an ELF file; code from outside is never executed, push the .wasm instead", ErrRefused, i, d.Digest)
	case Empty:
		if image {
			return fmt.Errorf("%w: layer %d (%s) is no tar archive", ErrInvalid, i, d.Digest)
		}
		return fmt.Errorf("%w: layer %d (%s) is too short to be anything", ErrRefused, i, d.Digest)
	}
	if image {
		return fmt.Errorf("%w: layer %d (%s, %q) is neither a tar archive nor a Wasm module", ErrInvalid, i, d.Digest, short(d.MediaType))
	}
	return fmt.Errorf("%w: layer %d (%s, %q) is not WebAssembly; a .wasm module is wanted", ErrRefused, i, d.Digest, short(d.MediaType))
}

// Content is what bytes are.
type Content int

// What bytes can be.
const (
	Unknown Content = iota
	Empty
	Module
	Component
	Interface
	Precompiled
	Gzip
	Zstd
	Tar
)

// sniffBytes is how much of a blob is looked at.
const sniffBytes = 512

// Sniff looks at the first bytes, and for a component at its sections.
func Sniff(r io.ReaderAt, size int64) (Content, error) {
	b := make([]byte, min(sniffBytes, max(size, 0)))
	n, err := r.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return Unknown, fmt.Errorf("look at the first bytes: %w", err)
	}
	b = b[:n]
	switch {
	case bytes.HasPrefix(b, []byte("\x00asm")):
		return sniffWasm(b, r, size), nil
	case bytes.HasPrefix(b, []byte("\x7fELF")), bytes.HasPrefix(b, []byte("\x00aot")):
		return Precompiled, nil
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
		return Gzip, nil
	case bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return Zstd, nil
	case len(b) > 262 && string(b[257:262]) == "ustar":
		return Tar, nil
	case len(b) == sniffBytes && bytes.Count(b, []byte{0}) == sniffBytes:
		// An empty archive is two blocks of zeros.
		return Tar, nil
	case len(b) < 8:
		return Empty, nil
	}
	return Unknown, nil
}
