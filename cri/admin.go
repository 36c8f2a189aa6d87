package cri

import (
	"context"
	"errors"
	"io"

	"github.com/limpet-cri/limpet/cri/admin"
	"github.com/limpet-cri/limpet/image"
)

// adminServer is the service of our own.
type adminServer struct{ images *image.Service }

func (s *adminServer) Import(ctx context.Context, archive io.Reader) ([]admin.Image, error) {
	imported, err := s.images.Import(ctx, archive)
	if err != nil {
		return nil, err
	}
	out := make([]admin.Image, 0, len(imported))
	for _, img := range imported {
		out = append(out, adminImage(img))
	}
	return out, nil
}

func (s *adminServer) Inspect(ctx context.Context, ref string) (any, bool, error) {
	i, err := s.images.Inspect(ctx, ref)
	if errors.Is(err, image.ErrNotFound) {
		return nil, false, nil
	}
	return i, err == nil, err
}

func adminImage(img image.Image) admin.Image {
	return admin.Image{ID: img.ID, Tags: img.RepoTags, Digests: img.RepoDigests, Kind: img.Kind, Size: img.Size}
}
