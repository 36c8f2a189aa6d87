package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/limpet-cri/limpet/image/artifact"
	"github.com/limpet-cri/limpet/image/content"
	"github.com/limpet-cri/limpet/image/registry"
)

// Bounds of fetching one blob, above what the transport repeats by itself.
const (
	fetchTries = 3
	fetchWait  = 500 * time.Millisecond
	labelRef   = "containerd.io/gc.ref.content."
)

// fetched is an image whose blobs are all in the store.
type fetched struct {
	target, md ocispec.Descriptor
	manifest   ocispec.Manifest
	artifact   artifact.Artifact
}

// source is where blobs come from.
type source struct {
	fetcher  remotes.Fetcher
	progress *progress
}

// progress counts bytes and tells of them at most every so often.
type progress struct {
	f           *flight
	done, total atomic.Int64
	next        atomic.Int64 // time of the next report, unix nanoseconds
}

const tellEvery = 100 * time.Millisecond

func (p *progress) add(n int64) {
	done := p.done.Add(n)
	now := time.Now().UnixNano()
	if next := p.next.Load(); now >= next && p.next.CompareAndSwap(next, now+int64(tellEvery)) {
		p.f.tell(Progress{Stage: "fetch", Done: done, Total: p.total.Load()})
	}
}

// fetch brings an image's blobs: index, manifest, config and layers, each
// bound checked before what it bounds is asked for, and each parent labelled
// before its children come.
func (s *Service) fetch(ctx context.Context, src source, target ocispec.Descriptor) (fetched, error) {
	im := fetched{target: target, md: target}
	if err := artifact.CheckTarget(target); err != nil {
		return im, err
	}
	if err := s.fetchBlob(ctx, src, target); err != nil {
		return im, err
	}
	if artifact.IsIndex(target.MediaType) {
		b, err := s.read(ctx, target)
		if err != nil {
			return im, err
		}
		ix, err := artifact.ParseIndex(b)
		if err == nil {
			im.md, err = artifact.Choose(ix)
		}
		if err != nil {
			return im, err
		}
		if err := s.setLabels(ctx, target.Digest, map[string]string{labelRef + "m.0": im.md.Digest.String()}); err != nil {
			return im, err
		}
		if err := s.fetchBlob(ctx, src, im.md); err != nil {
			return im, err
		}
	}
	b, err := s.read(ctx, im.md)
	if err != nil {
		return im, err
	}
	if im.manifest, err = artifact.ParseManifest(b); err != nil {
		return im, err
	}
	if err := s.fetchLeaves(ctx, src, im); err != nil {
		return im, err
	}
	im.artifact, err = s.classify(ctx, im.manifest)
	return im, err
}

func (s *Service) fetchLeaves(ctx context.Context, src source, im fetched) error {
	m := im.manifest
	size := artifact.Size(m)
	if size > s.cfg.MaxImageBytes {
		return fmt.Errorf("%w: its blobs have %d bytes, at most %d are accepted", ErrTooLarge, size, s.cfg.MaxImageBytes)
	}
	labels := map[string]string{labelRef + "config": m.Config.Digest.String()}
	for i, l := range m.Layers {
		labels[labelRef+"l."+strconv.Itoa(i)] = l.Digest.String()
	}
	if err := s.setLabels(ctx, im.md.Digest, labels); err != nil {
		return err
	}
	src.progress.total.Add(size)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(s.cfg.Parallel)
	seen := map[digest.Digest]bool{}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		g.Go(func() error { return s.fetchBlob(ctx, src, d) })
	}
	return g.Wait()
}

// fetchBlob brings one blob, going on where an earlier attempt stopped. Two
// pulls that want the same blob take turns: the second finds it.
func (s *Service) fetchBlob(ctx context.Context, src source, d ocispec.Descriptor) (err error) {
	unlock, err := s.blobs.lock(ctx, d.Digest.String())
	if err != nil {
		return err
	}
	defer unlock()
	ctx, cancel := within(ctx, s.slowAfter(d.Size), "all of it")
	defer cancel()
	defer func() {
		if err != nil {
			// It may have been there, damaged, and other images need it.
			s.dropDamaged(d.Digest)
		}
	}()
	for try := 1; ; try++ {
		err := s.fetchOnce(ctx, src, d)
		if err == nil {
			return nil
		}
		if try >= fetchTries || ctx.Err() != nil || !errors.Is(err, registry.ErrUnavailable) {
			return err
		}
		t := time.NewTimer(fetchWait << (try - 1))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

func (s *Service) fetchOnce(ctx context.Context, src source, d ocispec.Descriptor) error {
	err := s.bring(ctx, src, d)
	if !errdefs.IsAlreadyExists(err) {
		return s.brought(ctx, d, err)
	}
	found := s.present(ctx, d)
	if !errors.Is(found, content.ErrDamaged) && !errdefs.IsNotFound(found) {
		return found
	}
	err = s.brought(ctx, d, s.bring(ctx, src, d))
	if err != nil && errors.Is(found, content.ErrDamaged) {
		err = fmt.Errorf("%w (%w)", err, found)
	}
	return err
}

// brought says what came of bringing a blob.
func (s *Service) brought(ctx context.Context, d ocispec.Descriptor, err error) error {
	switch {
	case err == nil:
		s.store.Trust(d.Digest)
		return nil
	case errdefs.IsAlreadyExists(err):
		return nil
	case errdefs.IsFailedPrecondition(err), errdefs.IsOutOfRange(err):
		// What came is not what was promised. It must not stay: every later
		// attempt would go on from it, and fail.
		if err := s.abort(ctx, d); err != nil {
			return err
		}
		return fmt.Errorf("%w: the registry sent something else than blob %s of %d bytes: %w", ErrInvalidImage, d.Digest, d.Size, err)
	case registry.RangeRefused(err):
		if err := s.abort(ctx, d); err != nil {
			return err
		}
	}
	return fmt.Errorf("fetch blob %s of %d bytes: %w", d.Digest, d.Size, registry.Classify(ctx, err))
}

// bring fetches a blob that is not there.
func (s *Service) bring(ctx context.Context, src source, d ocispec.Descriptor) error {
	return remotes.Fetch(ctx, s.store.Blobs(), counting{src.fetcher, src.progress}, d)
}

// present makes sure that a blob that is there already is what was asked for.
// What a disk did to it since it came would else be compiled, or refused, at
// every pull from now on.
func (s *Service) present(ctx context.Context, d ocispec.Descriptor) error {
	if err := s.store.Verify(ctx, d.Digest); err != nil {
		return err
	}
	i, err := s.store.Blobs().Info(ctx, d.Digest)
	if err != nil {
		return err
	}
	if i.Size != d.Size {
		return fmt.Errorf("%w: blob %s has %d bytes, and its descriptor says %d", ErrInvalidImage, d.Digest, i.Size, d.Size)
	}
	return nil
}

// abort throws away what came of a blob.
func (s *Service) abort(ctx context.Context, d ocispec.Descriptor) error {
	err := s.store.Blobs().Abort(context.WithoutCancel(ctx), remotes.MakeRefKey(ctx, d))
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("throw away what came of blob %s: %w", d.Digest, err)
	}
	return nil
}

// counting counts what a fetcher brings, and keeps its readers seekable:
// without that a resumed download would begin again.
type counting struct {
	remotes.Fetcher
	p *progress
}

// Fetch implements remotes.Fetcher.
func (c counting) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := c.Fetcher.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	if s, ok := rc.(io.ReadSeekCloser); ok {
		return &countedSeeker{counted{rc, c.p}, s}, nil
	}
	return &counted{rc, c.p}, nil
}

type counted struct {
	io.ReadCloser
	p *progress
}

// Read implements io.Reader.
func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.p.add(int64(n))
	return n, err
}

type countedSeeker struct {
	counted
	s io.Seeker
}

// Seek implements io.Seeker.
func (c *countedSeeker) Seek(offset int64, whence int) (int64, error) {
	return c.s.Seek(offset, whence)
}
