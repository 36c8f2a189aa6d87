package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
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
	// Nothing of an import that failed is of use to the next.
	s.dropImportLease(ctx)
	if err != nil {
		s.store.CollectSoon()
		return nil, mean(err)
	}
	return list, nil
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
		pw.CloseWithError(sift(pw, start))
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
	remedy := ""
	if kind == artifact.Module {
		remedy = "; push a module to a registry with limpet push"
	}
	return fmt.Errorf("%w: it is %s; an OCI layout or an archive that docker saved is wanted%s", ErrInvalidImage, kind, remedy)
}

func (s *Service) importImages(ctx context.Context, ix ocispec.Index) ([]Image, error) {
	if len(ix.Manifests) == 0 {
		return nil, fmt.Errorf("%w: the archive has no images", ErrInvalidImage)
	}
	if len(ix.Manifests) > maxArchiveImages {
		return nil, fmt.Errorf("%w: archive of %d images, at most %d are accepted", ErrTooLarge, len(ix.Manifests), maxArchiveImages)
	}
	var list []Image
	for _, d := range ix.Manifests {
		if d.Platform != nil && strings.EqualFold(d.Platform.OS, "unknown") {
			continue
		}
		im, err := s.fetch(ctx, source{absent{}, &progress{f: &flight{}}}, clean(d))
		if err != nil {
			return list, err
		}
		img, err := s.finish(ctx, im, importNames(d), func(Progress) {})
		if err != nil {
			return list, err
		}
		s.log.Info("image imported", "image", strings.Join(img.RepoTags, " "), "id", img.ID, "bytes", img.Size)
		list = append(list, img)
	}
	return list, nil
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

// bounded ends an archive that is too large, or whose reader is gone.
type bounded struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.left <= 0 {
		return 0, fmt.Errorf("%w: the archive is larger than what an image may have", ErrTooLarge)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// sift passes on of an archive what can belong to an image: every file that
// comes through is stored before anybody knows whether it is needed.
func sift(w io.Writer, r io.Reader) error {
	tr, tw := tar.NewReader(r), tar.NewWriter(w)
	known := false
	for n := 0; ; n++ {
		h, err := tr.Next()
		if err == io.EOF && !known {
			return fmt.Errorf("%w: the archive is no OCI layout (it has no file oci-layout), and docker did not save it (it has no manifest.json)", ErrInvalidImage)
		}
		if err == io.EOF {
			return tw.Close()
		}
		if err != nil {
			return err
		}
		if n >= maxArchiveFiles {
			return fmt.Errorf("%w: the archive has more than %d files", ErrTooLarge, maxArchiveFiles)
		}
		h.Name = path.Clean(h.Name)
		known = known || h.Name == ocispec.ImageLayoutFile || h.Name == "manifest.json"
		if !belongs(h) {
			continue
		}
		if err := tw.WriteHeader(&tar.Header{Name: h.Name, Typeflag: h.Typeflag, Size: h.Size, Linkname: h.Linkname, Mode: 0o644}); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return err
		}
	}
}

func belongs(h *tar.Header) bool {
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeSymlink || len(h.Name) > 255 {
		return false
	}
	switch {
	case h.Name == "manifest.json", h.Name == ocispec.ImageLayoutFile, h.Name == ocispec.ImageIndexFile, strings.HasPrefix(h.Name, "blobs/"):
		return true
	case strings.HasSuffix(h.Name, ".json"), strings.HasSuffix(h.Name, ".tar"), strings.HasSuffix(h.Name, ".tar.gz"):
		return !strings.HasPrefix(h.Name, "../") && !path.IsAbs(h.Name)
	}
	// Docker names configs and layers by digest in some versions.
	return len(h.Name) == 64 && !strings.Contains(h.Name, "/")
}
