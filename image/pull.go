package image

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/limpet-cri/limpet/image/artifact"
	"github.com/limpet-cri/limpet/image/content"
	"github.com/limpet-cri/limpet/image/precompile"
	"github.com/limpet-cri/limpet/image/reference"
	"github.com/limpet-cri/limpet/image/registry"
	"github.com/limpet-cri/limpet/image/unpack"
)

// Leases of work that brings images. One that failed is kept, so that the
// next attempt goes on from what came.
const (
	pullLease  = "pull-"
	leaseFor   = 24 * time.Hour
	leaseRenew = 12 * time.Hour
	// undoTimeout bounds what is undone after the request is gone.
	undoTimeout = 30 * time.Second
)

// Pull brings an image: it resolves the reference, fetches and verifies what
// it needs, unpacks and compiles it, and names it last. Nothing of a pull
// that fails can be seen. Several that ask for one reference share one pull,
// which ends with the last of them.
func (s *Service) Pull(ctx context.Context, ref string, o PullOptions) (Image, error) {
	r, err := reference.Parse(ref)
	if err != nil {
		return Image{}, err
	}
	auth := fmt.Sprintf("%+v", o.Auth)
	if o.Auth != nil {
		auth = digest.FromString(fmt.Sprintf("%+v", *o.Auth)).String()
	}
	for {
		f, err := s.flights.join(s.ctx, r.String(), auth, o.Progress, func(ctx context.Context, f *flight) {
			f.img, f.err = s.fly(ctx, f, r, o.Auth)
		})
		if err != nil {
			return Image{}, err
		}
		img, again, err := s.await(ctx, f, auth)
		if !again {
			if err != nil {
				return Image{}, fmt.Errorf("pull %s: %w", r, err)
			}
			return img, nil
		}
	}
}

// await waits for a flight. A failure that may be another caller's
// (credentials, cancellation) is answered with another try.
func (s *Service) await(ctx context.Context, f *flight, auth string) (img Image, again bool, err error) {
	select {
	case <-f.done:
	case <-ctx.Done():
		s.flights.leave(f)
		return Image{}, false, context.Cause(ctx)
	}
	switch {
	case f.err == nil:
		return f.img, false, nil
	case s.ctx.Err() != nil:
		return Image{}, false, ErrClosed
	case s.flights.gaveUp(f):
		return Image{}, true, nil
	case errors.Is(f.err, ErrAccess) && f.auth != auth:
		return Image{}, true, nil
	}
	return Image{}, false, f.err
}

// fly makes a panic, which is a bug of ours, the end of that pull alone: it is
// part of a call, on another goroutine than the call's.
func (s *Service) fly(ctx context.Context, f *flight, r reference.Reference, auth *Auth) (img Image, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in a pull; please report it", "image", r.String(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error: %v; limpetd's log has the details", p)
		}
	}()
	return s.pull(ctx, f, r, auth)
}

func (s *Service) pull(ctx context.Context, f *flight, r reference.Reference, auth *Auth) (Image, error) {
	if err := s.pulls.Acquire(ctx, 1); err != nil {
		return Image{}, err
	}
	defer s.pulls.Release(1)
	started := time.Now()
	ctx, cancel := within(ctx, s.pullTime, "the image")
	defer cancel()
	img, err := s.leased(ctx, pullLeaseOf(r.String()), func(ctx context.Context) (Image, error) {
		im, err := s.transfer(ctx, f, r, auth)
		if err != nil {
			return Image{}, err
		}
		return s.finish(ctx, im, []string{r.At(im.target.Digest).String(), r.String()}, f.tell)
	})
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errSlow) {
		return Image{}, cause
	}
	if err != nil {
		return Image{}, err
	}
	f.tell(Progress{Stage: "done", Done: 1, Total: 1})
	s.log.Info("image pulled", "image", r.String(), "id", img.ID, "bytes", img.Size, "modules", len(img.Modules), "took", time.Since(started).String())
	return img, nil
}

// pullLeaseOf names the lease of pulls of an image's name.
func pullLeaseOf(name string) string {
	return pullLease + digest.FromString(name).Encoded()[:32]
}

// leased runs work under a lease, which is kept when the work may be taken up
// again, and goes away otherwise.
func (s *Service) leased(ctx context.Context, id string, work func(context.Context) (Image, error)) (Image, error) {
	ctx = content.Context(ctx)
	again, err := s.lease(ctx, id)
	if err != nil {
		return Image{}, err
	}
	img, err := work(leases.WithLease(ctx, id))
	if err != nil && !final(err) {
		return Image{}, err
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if derr := s.store.Leases().Delete(undo, leases.Lease{ID: id}); derr != nil && !errdefs.IsNotFound(derr) {
		s.log.Warn("lease of a pull was not removed; it expires by itself", "lease", id, "error", derr)
	}
	switch {
	case err != nil:
		s.store.CollectSoon()
	case again:
		// What the attempts before left goes now, and not in an hour.
		if cerr := s.store.Collect(undo); cerr != nil {
			s.log.Warn("what earlier attempts of a pull left is not collected yet", "lease", id, "error", cerr)
		}
	}
	return img, err
}

// final failures come again, whatever is tried: what was fetched is of no use.
func final(err error) bool {
	for _, e := range []error{ErrRefused, ErrTooLarge, ErrInvalidImage, ErrCompile, ErrNoSuchImage, ErrAccess} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// lease makes sure that a lease of this name exists and lasts. again tells that
// an earlier attempt left it.
func (s *Service) lease(ctx context.Context, id string) (again bool, err error) {
	lm := s.store.Leases()
	for range 2 {
		_, err := lm.Create(ctx, leases.WithID(id), leases.WithExpiration(leaseFor))
		if err == nil {
			return again, nil
		}
		if !errdefs.IsAlreadyExists(err) {
			return false, fmt.Errorf("make lease: %w", err)
		}
		again = true
		ls, err := lm.List(ctx, "id=="+id)
		if err != nil {
			return false, fmt.Errorf("read lease: %w", err)
		}
		if len(ls) == 1 {
			until, err := time.Parse(time.RFC3339, ls[0].Labels["containerd.io/gc.expire"])
			if err == nil && time.Until(until) > leaseRenew {
				return true, nil
			}
		}
		if err := lm.Delete(ctx, leases.Lease{ID: id}); err != nil && !errdefs.IsNotFound(err) {
			return false, fmt.Errorf("renew lease: %w", err)
		}
	}
	return false, fmt.Errorf("lease %s cannot be renewed", id)
}

// transfer resolves and fetches. A token that the registry no longer takes
// may be in the cache, so a refusal is asked about once more without it.
func (s *Service) transfer(ctx context.Context, f *flight, r reference.Reference, auth *Auth) (fetched, error) {
	im, err := s.transferOnce(ctx, f, r, auth)
	if errors.Is(err, ErrAccess) {
		s.registry.Forget(r.Host())
		im, err = s.transferOnce(ctx, f, r, auth)
	}
	return im, mean(err)
}

func (s *Service) transferOnce(ctx context.Context, f *flight, r reference.Reference, auth *Auth) (fetched, error) {
	f.tell(Progress{Stage: "resolve"})
	session, err := s.registry.Session(r, auth)
	if err != nil {
		return fetched{}, err
	}
	rctx, cancel := within(ctx, s.slowAfter(artifact.MaxManifest), "the answer to what the reference stands for")
	defer cancel()
	target, err := session.Resolve(rctx)
	if err != nil {
		return fetched{}, err
	}
	if r.Digest != "" && target.Digest != r.Digest {
		return fetched{}, fmt.Errorf("%w: the registry answered with %s", ErrInvalidImage, target.Digest)
	}
	fetcher, err := session.Fetcher(ctx)
	if err != nil {
		return fetched{}, err
	}
	return s.fetch(ctx, source{fetcher, &progress{f: f}}, clean(target))
}

func clean(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// finish makes an image whose blobs are there ready and gives it its names.
func (s *Service) finish(ctx context.Context, im fetched, names []string, tell func(Progress)) (Image, error) {
	e, err := s.ready(ctx, im, tell)
	if err != nil {
		return Image{}, mean(err)
	}
	return s.name(ctx, e, im.target, names)
}

// ready unpacks, finds the modules, and compiles them.
func (s *Service) ready(ctx context.Context, im fetched, tell func(Progress)) (*entry, error) {
	e := newEntry(im.md, im.manifest, im.artifact)
	modules, user := layerModules(im.artifact), ""
	if layers := tarLayers(im.artifact); len(layers) > 0 {
		u, err := unpack.Unpack(ctx, s.store, layers, unpack.Limits{
			LayerBytes: s.cfg.MaxLayerBytes, TotalBytes: s.cfg.MaxUnpackedBytes,
			LayerEntries: s.cfg.MaxLayerEntries, TotalEntries: s.cfg.MaxEntries,
		}, func(n int) { tell(Progress{Stage: "unpack", Done: int64(n), Total: int64(len(layers))}) })
		if err != nil {
			return nil, err
		}
		e.view = u.View
		found, resolved, err := s.survey(ctx, u.View, im.artifact.Config.Config.User)
		if err != nil {
			return nil, err
		}
		modules, user = append(modules, found...), resolved
	}
	if len(modules) > MaxModules {
		modules = modules[:MaxModules]
	}
	if err := s.setLabels(ctx, im.md.Digest, s.keepLabels(im.artifact, modules, user)); err != nil {
		return nil, err
	}
	e.img.Modules, e.img.Config = modules, s.runConfig(im.artifact, user)
	return e, s.compileAll(ctx, e, tell)
}

// name gives an image its names. A crash between two of them leaves the first.
func (s *Service) name(ctx context.Context, e *entry, target ocispec.Descriptor, names []string) (Image, error) {
	s.naming.Lock()
	defer s.naming.Unlock()
	is := s.store.Names()
	for _, n := range slices.Compact(names) {
		im := images.Image{Name: n, Target: target}
		_, err := is.Create(ctx, im)
		if errdefs.IsAlreadyExists(err) {
			_, err = is.Update(ctx, im, "target")
		}
		if err != nil {
			return Image{}, fmt.Errorf("name image %s: %w", n, err)
		}
		s.mu.Lock()
		s.known.add(e, n, target.Digest, s.known.byName[n].pinned)
		s.mu.Unlock()
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.known.shown[e.img.ID], nil
}

// meant gives an error a sentinel of this package without changing its text.
type meant struct {
	error
	as error
}

// Unwrap implements what errors.Is asks for.
func (m meant) Unwrap() []error { return []error{m.error, m.as} }

func mean(err error) error {
	switch {
	case (errors.Is(err, unpack.ErrTooLarge) || errors.Is(err, registry.ErrTooLarge)) && !errors.Is(err, ErrTooLarge):
		return meant{err, ErrTooLarge}
	case errors.Is(err, unpack.ErrInvalid) && !errors.Is(err, ErrInvalidImage):
		return meant{err, ErrInvalidImage}
	case errors.Is(err, content.ErrDamaged), errors.Is(err, precompile.ErrDamaged):
		return meant{err, ErrDamaged}
	}
	return err
}
