package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/limpet-cri/limpet/image/artifact"
)

// savedManifest lists the images of an archive that docker saved.
const savedManifest = "manifest.json"

var errArchiveSize = fmt.Errorf("%w: the archive is larger than what an image may have", ErrTooLarge)

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
		return 0, errArchiveSize
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// sift passes on of an archive what can belong to an image: every file that
// comes through is stored before anybody knows whether it is needed.
//
// left bounds the bytes of its files once more: a sparse file has any number
// of them, and takes no room in the archive.
func sift(w io.Writer, r io.Reader, left int64) error {
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
		if !belongs(h) {
			continue
		}
		if left -= h.Size; left < 0 {
			return errArchiveSize
		}
		var body io.Reader = tr
		if h.Typeflag == tar.TypeReg {
			known = known || h.Name == ocispec.ImageLayoutFile || h.Name == savedManifest
			if h.Name == savedManifest {
				if body, err = checkSaved(tr); err != nil {
					return err
				}
			}
		}
		if err := tw.WriteHeader(&tar.Header{Name: h.Name, Typeflag: h.Typeflag, Size: h.Size, Linkname: h.Linkname, Mode: 0o644}); err != nil {
			return err
		}
		if _, err := io.Copy(tw, body); err != nil {
			return err
		}
	}
}

// checkSaved reads what docker wrote of the images in an archive. The library
// that reads it next goes through the whole store for each image and layer.
func checkSaved(r io.Reader) (io.Reader, error) {
	b, err := io.ReadAll(io.LimitReader(r, artifact.MaxManifest+1))
	if err != nil {
		return nil, err
	}
	if len(b) > artifact.MaxManifest {
		return nil, fmt.Errorf("%w: %s of more than %d bytes", ErrTooLarge, savedManifest, artifact.MaxManifest)
	}
	var list []struct{ RepoTags, Layers []string }
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalidImage, savedManifest, err)
	}
	n := 0
	for _, m := range list {
		n += max(1, len(m.RepoTags))
		if len(m.Layers) > artifact.MaxLayers {
			return nil, fmt.Errorf("%w: %d layers, at most %d are accepted", ErrTooLarge, len(m.Layers), artifact.MaxLayers)
		}
	}
	if n > maxArchiveImages {
		return nil, tooManyImages(n)
	}
	return bytes.NewReader(b), nil
}

// belongs says whether a file can be part of an image. Names are only compared
// with one another, and nothing is ever opened by them, nor by what a link
// leads to; those that leave the archive are of no image all the same.
func belongs(h *tar.Header) bool {
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeSymlink || len(h.Name) > 255 {
		return false
	}
	switch {
	case h.Name == savedManifest, h.Name == ocispec.ImageLayoutFile, h.Name == ocispec.ImageIndexFile, strings.HasPrefix(h.Name, "blobs/"):
		return true
	case strings.HasSuffix(h.Name, ".json"), strings.HasSuffix(h.Name, ".tar"), strings.HasSuffix(h.Name, ".tar.gz"):
		return !strings.HasPrefix(h.Name, "../") && !path.IsAbs(h.Name)
	}
	// Docker names configs and layers by digest in some versions.
	return len(h.Name) == 64 && !strings.Contains(h.Name, "/")
}
