package pod

import (
	"context"
	"errors"
	"os"

	"github.com/limpet-cri/limpet/shim"
	"github.com/limpet-cri/limpet/shim/spec"
)

// Supervised makes Hosts of a supervisor.
func Supervised(s *shim.Supervisor) Hosts { return supervised{s} }

type supervised struct{ s *shim.Supervisor }

func (v supervised) Create(ctx context.Context, c *spec.Container, root *os.File) (Host, error) {
	h, err := v.s.Create(ctx, c, root)
	if err != nil {
		return nil, err // not a Host that is nil inside
	}
	return h, nil
}

func (v supervised) Adopt(ctx context.Context, c *spec.Container) (Host, error) {
	h, err := v.s.Adopt(ctx, c)
	if errors.Is(err, shim.ErrNoHost) {
		return nil, errors.Join(ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	return h, nil
}

func (v supervised) End(ctx context.Context, c *spec.Container) error { return v.s.End(ctx, c) }

func (v supervised) Remove(ctx context.Context, c *spec.Container) error { return v.s.Remove(ctx, c) }
