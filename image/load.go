package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	blobs "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/limpet-cri/limpet/image/artifact"
	"github.com/limpet-cri/limpet/image/content"
	"github.com/limpet-cri/limpet/image/unpack"
)

// What is found out about an image once is kept as labels on its manifest.
const (
	labelModule = "limpet.dev/module." // + n: "DIGEST PATH"
	labelUser   = "limpet.dev/user"    // "UID:GID", as resolved in its file system
	labelPinned = "limpet.dev/pinned"  // on a name
	// maxLabel is what key and value may have together.
	maxLabel = 4096
)

// load reads all names. An image that lacks a blob is left out, so that the
// kubelet pulls it again.
func (s *Service) load(ctx context.Context) (catalog, error) {
	ctx = content.Context(ctx)
	c := newCatalog()
	records, err := s.store.Names().List(ctx)
	if err != nil {
		return c, fmt.Errorf("list images: %w", err)
	}
	for _, r := range records {
		e, err := s.describe(ctx, r.Target)
		if err != nil {
			s.log.Warn("image is incomplete and must be pulled again", "image", r.Name, "error", err)
			// Not for other reasons, which may pass: another version of Limpet
			// that refuses what this one takes.
			if errors.Is(err, content.ErrDamaged) || errdefs.IsNotFound(err) {
				s.giveUp(ctx, r.Name, []digest.Digest{r.Target.Digest})
			}
			continue
		}
		c.add(e, r.Name, r.Target.Digest, r.Labels[labelPinned] == "true")
	}
	return c, nil
}

// describe reads from the store what a target stands for.
func (s *Service) describe(ctx context.Context, target ocispec.Descriptor) (*entry, error) {
	md, m, err := s.manifest(ctx, target)
	if err != nil {
		return nil, err
	}
	a, err := s.classify(ctx, m)
	if err != nil {
		return nil, err
	}
	e := newEntry(md, m, a)
	i, err := s.store.Blobs().Info(ctx, md.Digest)
	if err != nil {
		return nil, err
	}
	if layers := tarLayers(a); len(layers) > 0 {
		e.view = unpack.Names(layers).View
		if _, err := s.store.Snapshots().Stat(ctx, e.view); err != nil {
			return nil, fmt.Errorf("unpacked layers: %w", err)
		}
	}
	e.img.Modules = labelledModules(a, i.Labels)
	e.img.Config = s.runConfig(a, i.Labels[labelUser])
	return e, nil
}

// manifest reads the manifest behind a target, and the index if it is one.
func (s *Service) manifest(ctx context.Context, target ocispec.Descriptor) (ocispec.Descriptor, ocispec.Manifest, error) {
	md := target
	if artifact.IsIndex(target.MediaType) {
		b, err := s.read(ctx, target)
		if err != nil {
			return md, ocispec.Manifest{}, err
		}
		ix, err := artifact.ParseIndex(b)
		if err == nil {
			md, err = artifact.Choose(ix)
		}
		if err != nil {
			return md, ocispec.Manifest{}, err
		}
	}
	b, err := s.read(ctx, md)
	if err != nil {
		return md, ocispec.Manifest{}, err
	}
	m, err := artifact.ParseManifest(b)
	return md, m, err
}

// read returns a small blob whose bytes are what its digest says, each time
// that it is read: what an image is depends on them.
func (s *Service) read(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if d.Size > artifact.MaxManifest {
		return nil, fmt.Errorf("%w: blob %s of %d bytes", ErrTooLarge, d.Digest, d.Size)
	}
	ra, err := s.store.Blobs().ReaderAt(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d.Digest, err)
	}
	defer ra.Close()
	// Never more than the descriptor says, whatever is on the disk.
	b, err := io.ReadAll(io.NewSectionReader(ra, 0, d.Size))
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d.Digest, err)
	}
	if d.Digest.Algorithm().FromBytes(b) == d.Digest {
		return b, nil
	}
	if err := s.store.Verify(ctx, d.Digest); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: blob %s has other bytes than the %d that its descriptor tells of", ErrInvalidImage, d.Digest, d.Size)
}

func (s *Service) classify(ctx context.Context, m ocispec.Manifest) (artifact.Artifact, error) {
	config, err := s.read(ctx, m.Config)
	if err != nil {
		return artifact.Artifact{}, err
	}
	return artifact.Classify(m, config, func(d ocispec.Descriptor) (artifact.ReaderAt, error) {
		return s.store.Blobs().ReaderAt(ctx, d)
	})
}

func newEntry(md ocispec.Descriptor, m ocispec.Manifest, a artifact.Artifact) *entry {
	e := &entry{manifest: md, config: m.Config, layers: m.Layers}
	id := md.Digest
	if a.BindsLayers {
		id = m.Config.Digest
	}
	e.img = Image{ID: id.String(), Kind: string(a.Kind), Size: uint64(md.Size) + uint64(artifact.Size(m))}
	return e
}

func tarLayers(a artifact.Artifact) []unpack.Layer {
	var l []unpack.Layer
	for _, t := range a.Tars {
		l = append(l, unpack.Layer{Descriptor: t.Descriptor, DiffID: t.DiffID})
	}
	return l
}

// layerModules are the modules that are layers of their own.
func layerModules(a artifact.Artifact) []Module {
	var ms []Module
	for _, l := range a.Modules {
		ms = append(ms, Module{Path: l.Title, Digest: l.Digest.String(), Layer: true})
	}
	return ms
}

// labelledModules adds those that were found in the file system at the pull.
func labelledModules(a artifact.Artifact, labels map[string]string) []Module {
	ms := layerModules(a)
	for n := range MaxModules {
		d, path, ok := strings.Cut(labels[labelModule+strconv.Itoa(n)], " ")
		if !ok {
			break
		}
		ms = append(ms, Module{Path: path, Digest: d})
	}
	return ms
}

// keepLabels are what the manifest is labelled with before the image gets its
// name: what it refers to, and what was found out.
func (s *Service) keepLabels(a artifact.Artifact, modules []Module, user string) map[string]string {
	labels := map[string]string{labelUser: user}
	if layers := tarLayers(a); len(layers) > 0 {
		u := unpack.Names(layers)
		key := "containerd.io/gc.ref.snapshot." + s.store.Snapshotter()
		labels[key], labels[key+"/view"] = u.Snapshot, u.View
	}
	n := 0
	for _, m := range modules {
		if !m.Layer {
			labels[labelModule+strconv.Itoa(n)] = m.Digest + " " + m.Path
			n++
		}
	}
	return labels
}

// setLabels puts labels on a blob.
func (s *Service) setLabels(ctx context.Context, d digest.Digest, labels map[string]string) error {
	fields := make([]string, 0, len(labels))
	for k := range labels {
		fields = append(fields, "labels."+k)
	}
	_, err := s.store.Blobs().Update(ctx, blobs.Info{Digest: d, Labels: labels}, fields...)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("label blob %s: it is gone: %w", d, err)
	}
	if err != nil {
		return fmt.Errorf("label blob %s: %w", d, err)
	}
	return nil
}
