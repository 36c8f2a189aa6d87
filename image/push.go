package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	blobs "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/limpet-cri/limpet/image/artifact"
	"github.com/limpet-cri/limpet/image/reference"
	"github.com/limpet-cri/limpet/image/registry"
)

// RemoteOptions say how a registry is asked outside of a Service: by a tool,
// which has no store.
type RemoteOptions struct {
	HostsDir, DockerConfig string
	Auth                   *Auth
	Progress               func(Progress)
}

func (o RemoteOptions) session(r reference.Reference) (*registry.Session, error) {
	quiet()
	return registry.New(registry.Config{HostsDir: o.HostsDir, DockerConfig: o.DockerConfig,
		StallWindow: DefaultStallWindow, StallBytes: DefaultStallBytes, UserAgent: userAgent}, slog.New(slog.DiscardHandler)).Session(r, o.Auth)
}

func (o RemoteOptions) tell(p Progress) {
	if o.Progress != nil {
		o.Progress(p)
	}
}

// PushOptions of one push.
type PushOptions struct {
	RemoteOptions
	// Created is the time that the artifact carries; zero means the file's.
	Created time.Time
	// Annotations are added to those read from the module.
	Annotations map[string]string
}

// Pushed is what a push made.
type Pushed struct {
	// Ref is the reference, Digest that of its manifest; Repeat is the
	// reference by digest.
	Ref, Repeat string
	Digest      string
	Size        int64
}

// Push makes a CNCF Wasm artifact of a module and pushes it: one layer, the
// module, and a config that says what the binary says of itself.
func Push(ctx context.Context, file, ref string, o PushOptions) (Pushed, error) {
	r, err := reference.Parse(ref)
	if err != nil {
		return Pushed{}, err
	}
	if r.Tag == "" {
		return Pushed{}, fmt.Errorf("%w: %s names a digest; a push needs a tag", ErrInvalidReference, ref)
	}
	if fi, err := os.Stat(file); err == nil && !fi.Mode().IsRegular() {
		return Pushed{}, fmt.Errorf("push %s: it is no regular file; a WebAssembly module (.wasm) is wanted", file)
	}
	f, err := os.Open(file)
	if err != nil {
		return Pushed{}, fmt.Errorf("push: %w", err)
	}
	defer f.Close()
	p, err := pack(f, o)
	if err != nil {
		return Pushed{}, fmt.Errorf("push %s: %w", file, err)
	}
	session, err := o.session(r)
	if err != nil {
		return Pushed{}, err
	}
	pusher, err := session.Pusher(ctx)
	if err != nil {
		return Pushed{}, err
	}
	sent := int64(0)
	for _, b := range []packed{p.layer, p.config, p.manifest} {
		err := pushBlob(ctx, pusher, b, func(n int64) {
			sent += n
			o.tell(Progress{Stage: "push", Done: sent, Total: p.size()})
		})
		if err != nil {
			return Pushed{}, fmt.Errorf("push %s: %w", r, session.Classify(ctx, err))
		}
	}
	o.tell(Progress{Stage: "done", Done: p.size(), Total: p.size()})
	d := p.manifest.desc.Digest
	return Pushed{Ref: r.String(), Repeat: r.At(d).String(), Digest: d.String(), Size: p.size()}, nil
}

// packed is a blob to be pushed.
type packed struct {
	desc ocispec.Descriptor
	open func() io.Reader
}

type parcel struct{ layer, config, manifest packed }

func (p parcel) size() int64 { return p.layer.desc.Size + p.config.desc.Size + p.manifest.desc.Size }

func ofBytes(mediaType string, b []byte) packed {
	return packed{ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))},
		func() io.Reader { return bytes.NewReader(b) }}
}

// pack reads a module and makes the three blobs of its artifact.
func pack(f *os.File, o PushOptions) (parcel, error) {
	fi, err := f.Stat()
	if err != nil {
		return parcel{}, err
	}
	kind, size, err := sniffFile(f)
	if err != nil {
		return parcel{}, err
	}
	if kind != artifact.Module {
		what := artifact.Describe(kind, f, size)
		if what == kind.String() { // and says nothing of what to do
			what += "; a WebAssembly module (.wasm) is wanted"
		}
		return parcel{}, fmt.Errorf("%w: it is %s", ErrRefused, what)
	}
	if size > MaxModuleBytes {
		return parcel{}, fmt.Errorf("%w: %d bytes, at most %d are accepted", ErrTooLarge, size, int64(MaxModuleBytes))
	}
	info, err := artifact.ReadModule(f, size)
	if err != nil {
		return parcel{}, fmt.Errorf("%w: %w", ErrInvalidImage, err)
	}
	d, err := digest.FromReader(io.NewSectionReader(f, 0, size))
	if err != nil {
		return parcel{}, err
	}
	p := parcel{layer: packed{ocispec.Descriptor{MediaType: mediaTypeWasm, Digest: d, Size: size,
		Annotations: map[string]string{ocispec.AnnotationTitle: filepath.Base(f.Name())}},
		func() io.Reader { return io.NewSectionReader(f, 0, size) }}}
	created := o.Created
	if created.IsZero() {
		created = fi.ModTime()
	}
	return p, p.describe(info, created.UTC().Truncate(time.Second), o.Annotations)
}

const (
	mediaTypeWasm   = "application/wasm"
	mediaTypeConfig = "application/vnd.wasm.config.v0+json"
)

// wasmConfig is the config of a CNCF Wasm artifact.
type wasmConfig struct {
	Created      string          `json:"created"`
	Author       string          `json:"author,omitempty"`
	Architecture string          `json:"architecture"`
	OS           string          `json:"os"`
	LayerDigests []digest.Digest `json:"layerDigests"`
	Component    *struct{}       `json:"component"` // null for modules
}

func (p *parcel) describe(info *artifact.Info, created time.Time, extra map[string]string) error {
	c := wasmConfig{Created: created.Format(time.RFC3339), Author: note(info, "authors"),
		Architecture: "wasm", OS: "wasip1", LayerDigests: []digest.Digest{p.layer.desc.Digest}}
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	p.config = ofBytes(mediaTypeConfig, b)
	a := map[string]string{ocispec.AnnotationCreated: c.Created}
	// The names of custom sections, as the toolchains write them, and OCI's.
	for section, key := range map[string]string{
		"version": ocispec.AnnotationVersion, "description": ocispec.AnnotationDescription, "licenses": ocispec.AnnotationLicenses,
		"source": ocispec.AnnotationSource, "homepage": ocispec.AnnotationURL, "authors": ocispec.AnnotationAuthors, "revision": ocispec.AnnotationRevision,
	} {
		if v := note(info, section); v != "" {
			a[key] = v
		}
	}
	for k, v := range extra {
		a[k] = v
	}
	m, err := json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: p.config.desc, Layers: []ocispec.Descriptor{p.layer.desc}, Annotations: a})
	if err != nil {
		return err
	}
	p.manifest = ofBytes(ocispec.MediaTypeImageManifest, m)
	return nil
}

func note(info *artifact.Info, name string) string {
	return strings.TrimSpace(info.Note(name))
}

// pushBlob pushes one blob, unless the registry has it.
func pushBlob(ctx context.Context, pusher remotes.Pusher, b packed, sent func(int64)) error {
	w, err := pusher.Push(ctx, b.desc)
	if errdefs.IsAlreadyExists(err) {
		sent(b.desc.Size)
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Close()
	err = blobs.Copy(ctx, w, io.TeeReader(b.open(), writerFunc(sent)), b.desc.Size, b.desc.Digest)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

type writerFunc func(int64)

// Write implements io.Writer.
func (f writerFunc) Write(b []byte) (int, error) {
	f(int64(len(b)))
	return len(b), nil
}
