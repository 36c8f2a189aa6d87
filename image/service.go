package image

import (
	"context"
	"io"
	"log/slog"
	"os"

	"github.com/limpet-cri/limpet/image/precompile"
)

// Service is the images of one node. Methods may be called concurrently.
type Service struct{}

// Root is the read-only file system of an image.
type Root struct{}

// New opens the service.
func New(ctx context.Context, cfg Config, compiler precompile.Compiler, log *slog.Logger) (*Service, error) {
	return &Service{}, nil
}
func (s *Service) Close() error { return nil }
func (s *Service) Pull(ctx context.Context, ref string, o PullOptions) (Image, error) {
	return Image{}, ErrClosed
}
func (s *Service) Status(ref string) (Image, bool, error)              { return Image{}, false, nil }
func (s *Service) List(ref string) []Image                             { return nil }
func (s *Service) Remove(ctx context.Context, ref string) error        { return nil }
func (s *Service) Usage(ctx context.Context) (Usage, error)            { return Usage{}, nil }
func (s *Service) Release(ctx context.Context, container string) error { return nil }
func (s *Service) Leased() ([]string, error)                           { return nil, nil }
func (s *Service) Import(ctx context.Context, r io.Reader) ([]Image, error) {
	return nil, ErrClosed
}
func (s *Service) Prepare(ctx context.Context, ref, containerID, argv0 string, proposals []string) (*Prepared, error) {
	return nil, ErrClosed
}
func (r *Root) Open(upper, work string) (*os.File, error) { return nil, ErrClosed }
