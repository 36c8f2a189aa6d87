package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/limpet-cri/limpet/image/artifact"
	"github.com/limpet-cri/limpet/image/content"
	"github.com/limpet-cri/limpet/image/reference"
	"github.com/limpet-cri/limpet/image/unpack"
)

// Bounds of an archive that is imported, beside those of each image in it.
const (
	importLease = "import"
	// maxArchiveFiles bounds the files of an archive: blobs, and what a tool
	// adds of its own.
	maxArchiveFiles = 4096
	// maxArchiveImages bounds its images.
	maxArchiveImages = 256
	// unnamed is the repository of an image that an archive does not name.
	unnamed = "localhost/imported"
)

// Import reads an archive with an OCI layout, or one that docker saved,
// compressed or not, and makes its images ready as a pull does.
func (s *Service) Import(ctx context.Context, r io.Reader) ([]Image, error) {
	// The archive's files get their temporary names from the archive, so two
	// imports must not be under way at once.
	unlock, err := s.blobs.lock(ctx, importLease)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var list []Image
	_, err = s.leased(ctx, importLease, func(ctx context.Context) (Image, error) {
		list, err = s.importAll(ctx, r)
		return Image{}, err
	})
	// Nothing of an import that failed is of use to the next, which would go on
	// writing where a file of the same name stopped.
	s.dropImportLease(ctx)
	if err != nil {
		s.forgetImport(ctx)
		return nil, mean(err)
	}
	return list, nil
}

// forgetImport collects what an import that failed had brought.
func (s *Service) forgetImport(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := s.store.Collect(ctx); err != nil {
		s.log.Warn("what a failed import left is not collected yet", "error", err)
	}
}

// dropImportLease ends the lease of an import that was cut off.
func (s *Service) dropImportLease(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(content.Context(ctx)), undoTimeout)
	defer cancel()
	err := s.store.Leases().Delete(ctx, leases.Lease{ID: importLease})
	if err != nil && !errdefs.IsNotFound(err) {
		s.log.Warn("lease of an import was not removed; it expires by itself", "error", err)
	}
}

func (s *Service) importAll(ctx context.Context, r io.Reader) ([]Image, error) {
	plain, err := unpack.Decompress(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidImage, err)
	}
	defer plain.Close()
	b := &bounded{ctx: ctx, r: plain, left: s.cfg.MaxImageBytes}
	start := bufio.NewReaderSize(b, archiveHead)
	if err := checkArchive(start); err != nil {
		return nil, err
	}
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pw.CloseWithError(sift(pw, start, s.cfg.MaxImageBytes))
	}()
	d, err := archive.ImportIndex(ctx, s.store.Blobs(), pr)
	pr.CloseWithError(errImportEnded)
	<-done
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrInvalidImage) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: archive: %w", ErrInvalidImage, err)
	}
	text, err := s.read(ctx, d)
	if err != nil {
		return nil, err
	}
	ix, err := artifact.ParseIndex(text)
	if err != nil {
		return nil, err
	}
	return s.importImages(ctx, ix)
}

var errImportEnded = errors.New("import has ended")

// archiveHead is what is looked at of an archive: a component's start tells
// more than that of a tar.
const archiveHead = 4 << 10

// checkArchive says what else than an archive somebody wants to import.
func checkArchive(r *bufio.Reader) error {
	head, err := r.Peek(archiveHead)
	if err != nil && err != io.EOF {
		return err
	}
	at := bytes.NewReader(head)
	kind, err := artifact.Sniff(at, at.Size())
	if err != nil || kind == artifact.Tar {
		return err
	}
	if _, err := tar.NewReader(at).Next(); err == nil {
		return nil // in the oldest form, which has no mark
	}
	what, remedy := kind.String(), ""
	switch kind {
	case artifact.Unknown:
		what = "no archive"
	case artifact.Module:
		remedy = "; push a module to a registry with limpet push"
	}
	return fmt.Errorf("%w: it is %s; an OCI layout or an archive that docker saved is wanted%s", ErrInvalidImage, what, remedy)
}

// incoming is an image of an archive that is ready and waits for its names.
type incoming struct {
	entry  *entry
	target ocispec.Descriptor
	names  []string
}

// importImages makes all images of an archive ready before it names the first:
// of an archive that fails nothing can be seen.
func (s *Service) importImages(ctx context.Context, ix ocispec.Index) ([]Image, error) {
	targets, err := importTargets(ix)
	if err != nil {
		return nil, err
	}
	ready := make([]incoming, 0, len(targets))
	for _, d := range targets {
		in := incoming{target: clean(d), names: importNames(d)}
		im, err := s.fetch(ctx, source{absent{}, &progress{f: &flight{}}}, in.target)
		if err == nil {
			in.entry, err = s.ready(ctx, im, func(Progress) {})
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w; nothing of the archive was imported", in.name(), mean(err))
		}
		ready = append(ready, in)
	}
	list := make([]Image, 0, len(ready))
	for _, in := range ready {
		img, err := s.name(ctx, in.entry, in.target, in.names)
		if err != nil {
			return nil, fmt.Errorf("%w; of the archive %d images were imported, and %d not", err, len(list), len(ready)-len(list))
		}
		s.log.Info("image imported", "image", strings.Join(img.RepoTags, " "), "id", img.ID, "bytes", img.Size)
		list = append(list, img)
	}
	return list, nil
}

// name is what a person calls the image.
func (in incoming) name() string { return in.names[len(in.names)-1] }

// importTargets are the images of an archive. A name stands for one of them:
// nobody could tell which of two it would be.
func importTargets(ix ocispec.Index) (list []ocispec.Descriptor, err error) {
	if len(ix.Manifests) > maxArchiveImages {
		return nil, tooManyImages(len(ix.Manifests))
	}
	named := map[string]digest.Digest{}
	for _, d := range ix.Manifests {
		if d.Platform != nil && strings.EqualFold(d.Platform.OS, "unknown") {
			continue
		}
		names := importNames(d)
		name := names[len(names)-1]
		switch other, dup := named[name]; {
		case !dup:
			named[name] = d.Digest
			list = append(list, d)
		case other != d.Digest:
			return nil, fmt.Errorf("%w: the archive has two images of the name %s, %s and %s; export one of them, or both under an index", ErrInvalidImage, name, other, d.Digest)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: the archive has no images", ErrInvalidImage)
	}
	return list, nil
}

func tooManyImages(n int) error {
	return fmt.Errorf("%w: archive of %d images, at most %d are accepted", ErrTooLarge, n, maxArchiveImages)
}

// importNames are those that an archive gives an image; at least one, by its
// digest.
func importNames(d ocispec.Descriptor) []string {
	for _, key := range []string{images.AnnotationImageName, ocispec.AnnotationRefName} {
		name := d.Annotations[key]
		if key == ocispec.AnnotationRefName && !strings.ContainsAny(name, "/:") {
			continue // a tag without a repository
		}
		if r, err := reference.Parse(name); err == nil {
			return []string{r.At(d.Digest).String(), r.String()}
		}
	}
	return []string{unnamed + "@" + d.Digest.String()}
}

// absent is a registry that has nothing: what an archive lacks is missing.
type absent struct{}

// Fetch implements remotes.Fetcher.
func (absent) Fetch(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return nil, fmt.Errorf("the archive lacks blob %s: %w", d.Digest, errdefs.ErrNotFound)
}
