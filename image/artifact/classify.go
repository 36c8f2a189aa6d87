package artifact

import (
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/limpet-cri/limpet/wasm/binary"
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

// Layer is a layer that is used.
type Layer struct {
	ocispec.Descriptor
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
	for i, d := range m.Layers {
		k, err := layerKind(i, d, image, open)
		if err != nil {
			return a, err
		}
		if k == binary.KindModule {
			a.Modules = append(a.Modules, Layer{Descriptor: d, Title: title(d, len(a.Modules))})
		} else {
			a.Tars = append(a.Tars, Layer{Descriptor: d})
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

// bindsLayers: does the config name every layer, each at its place? A tar layer
// is named by its diff id, a module by its digest among the diff ids or
// layerDigests. The order counts: the first module is the entry point, and an
// archive hides what those before it hold.
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
	ids := v0.RootFS.DiffIDs
	if len(ids) != len(m.Layers) {
		return false
	}
	for i, l := range m.Layers {
		module := slices.ContainsFunc(a.Modules, func(o Layer) bool { return o.Digest == l.Digest })
		if module && ids[i] != l.Digest {
			return false
		}
	}
	return true
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

// layerKind says what a layer is, and refuses what can never run.
func layerKind(i int, d ocispec.Descriptor, image bool, open func(ocispec.Descriptor) (ReaderAt, error)) (binary.Kind, error) {
	r, err := open(d)
	if err != nil {
		return 0, fmt.Errorf("open layer %s: %w", d.Digest, err)
	}
	defer r.Close()
	k, err := Sniff(r, d.Size)
	if err != nil {
		return 0, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	switch k {
	case binary.KindModule, binary.KindTar, binary.KindGzip, binary.KindZstd:
		return k, nil
	case binary.KindPrecompiled, binary.KindAOT, binary.KindELF, binary.KindComponent, binary.KindText:
		return 0, fmt.Errorf("%w: layer %d (%s) is %s", ErrRefused, i, d.Digest, Describe(k, r, d.Size))
	}
	if image {
		return 0, fmt.Errorf("%w: layer %d (%s, %q) is %s, neither a tar archive nor a Wasm module", ErrInvalid, i, d.Digest, short(d.MediaType), k)
	}
	return 0, fmt.Errorf("%w: layer %d (%s, %q) is %s; a .wasm module is wanted", ErrRefused, i, d.Digest, short(d.MediaType), k)
}

// Content is what bytes are; Info is what a core module says about itself.
type (
	Content = binary.Kind
	Info    = binary.Info
)

// What bytes can be, as far as it matters here.
const (
	Unknown = binary.KindUnknown
	Module  = binary.KindModule
	Tar     = binary.KindTar
	Gzip    = binary.KindGzip
	Zstd    = binary.KindZstd
)

// ReadModule reads what a core module says about itself.
func ReadModule(r io.ReaderAt, size int64) (*Info, error) { return binary.ReadModule(r, size) }

// ReaderAt is a blob.
type ReaderAt interface {
	io.ReaderAt
	io.Closer
}

// Sniff says what a file is, by its content.
func Sniff(r io.ReaderAt, size int64) (binary.Kind, error) {
	k, err := binary.SniffFile(r, size)
	if err != nil {
		return k, fmt.Errorf("look at the first bytes: %w", err)
	}
	if k != binary.KindUnknown || size < 2*tarBlock {
		return k, nil
	}
	// An archive without files is two blocks of zeros.
	var b [2 * tarBlock]byte
	if n, err := r.ReadAt(b[:], 0); n == len(b) && b == [2 * tarBlock]byte{} {
		return binary.KindTar, nil
	} else if err != nil && err != io.EOF {
		return k, fmt.Errorf("look at the first bytes: %w", err)
	}
	return k, nil
}

const tarBlock = 512

// Describe says what a file is that cannot be run, and what to do.
func Describe(k binary.Kind, r io.ReaderAt, size int64) string {
	switch k {
	case binary.KindComponent:
		c, err := binary.ReadComponent(r, size)
		switch {
		case err != nil:
			return "a component, and only core modules run here; build it for wasip1 (for example --target wasm32-wasip1)"
		case c.WITOnly():
			return c.String() + "; name the program that implements it"
		}
		return c.String() + "; only core modules run here, so build it for wasip1 (for example --target wasm32-wasip1)"
	case binary.KindPrecompiled, binary.KindAOT, binary.KindELF:
		return k.String() + "; native code from outside is never executed, so push the .wasm instead"
	}
	return k.String()
}
