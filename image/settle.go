package image

import (
	"context"
	"slices"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
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
// kubelet has it pulled again.
func (s *Service) dropDamaged(d digest.Digest) {
	ctx, cancel := context.WithTimeout(content.Context(context.Background()), undoTimeout)
	defer cancel()
	s.naming.Lock()
	defer s.naming.Unlock()
	if _, err := s.store.Blobs().Info(ctx, d); err == nil {
		return // a pull has brought it back already
	}
	s.mu.Lock()
	dropped := map[string]named{}
	for name, n := range s.known.byName {
		if slices.Contains(n.blobs(), d) {
			dropped[name] = n
			s.known.dropName(name)
		}
	}
	s.mu.Unlock()
	for name, n := range dropped {
		s.log.Warn("image is damaged and must be pulled again", "image", name, "blob", d.String())
		s.giveUp(ctx, name, n.blobs())
	}
}

// giveUp takes a name away whose image is no longer whole. What is left of it
// waits for a pull of that name as what came of a pull that failed does, and is
// collected when none comes: nobody can see it, or ask for its removal.
func (s *Service) giveUp(ctx context.Context, name string, left []digest.Digest) {
	id := pullLeaseOf(name)
	_, err := s.lease(ctx, id)
	for _, d := range left {
		if err == nil {
			err = s.store.Leases().AddResource(ctx, leases.Lease{ID: id}, leases.Resource{ID: d.String(), Type: "content"})
		}
	}
	if err == nil {
		err = s.store.Names().Delete(ctx, name)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		s.log.Warn("name of a damaged image stays until it is pulled, or the next start", "image", name, "error", err)
	}
}

// blobs are those that an image cannot do without.
func (n named) blobs() []digest.Digest {
	ds := []digest.Digest{n.target, n.manifest.Digest, n.config.Digest}
	for _, l := range n.layers {
		ds = append(ds, l.Digest)
	}
	return ds
}
