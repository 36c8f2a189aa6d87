package image

import (
	"context"
	"errors"
	"fmt"
	"os"

	digest "github.com/opencontainers/go-digest"

	"github.com/limpet-cri/limpet/image/content"
	"github.com/limpet-cri/limpet/image/precompile"
)

// compileAll compiles the modules of an image that is being pulled. Of an
// artifact each must compile. Of a file system the others than its entry
// point may be anything (test data, plugins of another program): they are
// refused when a container asks for them.
func (s *Service) compileAll(ctx context.Context, e *entry, tell func(Progress)) error {
	entryPoint := ""
	if args := append(append([]string(nil), e.img.Config.Entrypoint...), e.img.Config.Cmd...); len(args) > 0 {
		entryPoint = args[0]
	}
	for i, m := range e.img.Modules {
		tell(Progress{Stage: "compile", Done: int64(i), Total: int64(len(e.img.Modules))})
		err := s.compileAny(ctx, e, m)
		if err == nil {
			continue
		}
		if !errors.Is(err, ErrCompile) || m.Layer || isPath(m.Path, entryPoint, e.img.Config.WorkingDir) {
			return fmt.Errorf("module %s: %w", m.Path, err)
		}
		s.log.Warn("a module of the image does not compile; containers that name it will be refused", "image", e.img.ID, "module", m.Path, "error", err)
	}
	return nil
}

// compileAny compiles with the default set of proposals, or else with the
// first set of a profile that accepts the module.
func (s *Service) compileAny(ctx context.Context, e *entry, m Module) error {
	first := s.compileFor(ctx, e, m, nil)
	if first == nil || !errors.Is(first, ErrCompile) {
		return first
	}
	for _, p := range s.cfg.Proposals {
		if len(p) == 0 {
			continue
		}
		if err := s.compileFor(ctx, e, m, p); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return first
}

func (s *Service) compileFor(ctx context.Context, e *entry, m Module, proposals []string) error {
	_, err := s.compiled(ctx, e, m, proposals)
	return err
}

// compiled returns the path of a module's code.
func (s *Service) compiled(ctx context.Context, e *entry, m Module, proposals []string) (string, error) {
	d := digest.Digest(m.Digest)
	path, err := s.code.Code(ctx, e.manifest.Digest, precompile.Module{
		Digest: d,
		Open:   func() (*os.File, error) { return s.openModule(ctx, e, m) },
	}, proposals)
	switch {
	case !errors.Is(err, precompile.ErrDamaged):
		return path, err
	case !m.Layer:
		// Its folder may be under a container's feet.
		return "", fmt.Errorf("%w; remove the image and its containers, and pull it again", err)
	}
	if derr := s.store.Discard(ctx, d); derr != nil {
		return "", errors.Join(err, derr)
	}
	s.dropDamaged(d)
	return "", fmt.Errorf("%w; it was thrown away, pull the image again", err)
}

// openModule opens the bytes of a module: the blob's file, or one in the
// image's file system.
func (s *Service) openModule(ctx context.Context, e *entry, m Module) (*os.File, error) {
	if m.Layer {
		return os.Open(s.store.BlobPath(digest.Digest(m.Digest)))
	}
	t, err := s.openTree(content.Context(ctx), e.view)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	return t.open(m.Path)
}
