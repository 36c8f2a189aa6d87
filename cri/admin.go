package cri

import (
	"context"
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

func (s *adminServer) Inspect(_ context.Context, ref string) (admin.Image, bool, error) {
	img, found, err := s.images.Status(ref)
	if err != nil || !found {
		return admin.Image{}, false, err
	}
	return adminImage(img), true, nil
}

func adminImage(img image.Image) admin.Image {
	out := admin.Image{ID: img.ID, Tags: img.RepoTags, Digests: img.RepoDigests, Kind: img.Kind, Size: img.Size}
	for _, m := range img.Modules {
		out.Modules = append(out.Modules, admin.Module{Path: m.Path, Digest: m.Digest})
	}
	return out
}
