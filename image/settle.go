package image

import (
	"context"
	"slices"

	digest "github.com/opencontainers/go-digest"

	"github.com/limpet-cri/limpet/image/content"
)

// settle does after a start what nobody should wait for. Close waits for it.
func (s *Service) settle(ctx context.Context) {
	if n, err := s.code.Retire(ctx, s.cfg.Proposals); err != nil && ctx.Err() == nil {
		s.log.Warn("compiled code of other engines, if there is any, stays on disk until the next start", "error", err)
	} else if n > 0 {
		s.log.Info("compiled code of other engines is dropped", "references", n)
		s.store.CollectSoon()
	}
	if err := s.store.VerifyAll(ctx, s.dropDamaged); err != nil && ctx.Err() == nil {
		s.log.Warn("not all blobs were verified after an unclean end of the machine; the next start goes on", "error", err)
	}
}

// dropDamaged takes every image that needs a blob off the list, so that the
// kubelet has it pulled again. Its names stay on disk until then.
func (s *Service) dropDamaged(d digest.Digest) {
	if _, err := s.store.Blobs().Info(content.Context(context.Background()), d); err == nil {
		return // a pull has brought it back already
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, n := range s.known.byName {
		if n.needs(d) {
			s.log.Warn("image is damaged and must be pulled again", "image", name, "blob", d.String())
			s.known.dropName(name)
		}
	}
}

// needs says whether an image cannot do without a blob.
func (n named) needs(d digest.Digest) bool {
	ds := []digest.Digest{n.target, n.manifest.Digest, n.config.Digest}
	for _, l := range n.layers {
		ds = append(ds, l.Digest)
	}
	return slices.Contains(ds, d)
}
