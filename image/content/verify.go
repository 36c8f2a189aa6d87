package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
)

// ErrDamaged: a blob on disk is not what its digest says.
var ErrDamaged = errors.New("blob is damaged")

// Unclean is true while blobs may be damaged: the machine stopped while the
// store was open, in this boot or one before, and not every blob was verified
// since.
func (s *Store) Unclean() bool { return s.unclean.Load() }

// checkSizes compares the size of every blob's file with what is recorded and
// throws those away that differ: a pull brings them back.
func (s *Store) checkSizes(ctx context.Context) (bad []digest.Digest, err error) {
	err = s.Blobs().Walk(ctx, func(i content.Info) error {
		fi, err := os.Stat(s.BlobPath(i.Digest))
		if err == nil && fi.Size() == i.Size {
			return nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		bad = append(bad, i.Digest)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, d := range bad {
		s.log.Warn("blob is damaged after an unclean end and was thrown away", "digest", d.String())
		if err := s.Discard(ctx, d); err != nil {
			return nil, err
		}
	}
	return bad, nil
}

// Discard removes a blob and its file, whoever refers to it. The next pull
// fetches it again.
func (s *Store) Discard(ctx context.Context, d digest.Digest) error {
	ctx = Context(ctx)
	s.mu.Lock()
	delete(s.verified, d)
	s.mu.Unlock()
	if err := s.Blobs().Delete(ctx, d); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("discard blob %s: %w", d, err)
	}
	if err := s.raw.Delete(ctx, d); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("discard blob %s: %w", d, err)
	}
	return nil
}

// Trust notes that a blob's bytes were just compared with its digest.
func (s *Store) Trust(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verified[d] = struct{}{}
}

func (s *Store) trusted(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.verified[d]
	return ok
}

// Verify makes sure that a blob on disk is what its digest says, reading it
// once per process. A damaged one is discarded: the error is ErrDamaged then,
// and errdefs.ErrNotFound where there is no such blob.
func (s *Store) Verify(ctx context.Context, d digest.Digest) error {
	// One at a time for each blob: who found it damaged must not discard what
	// another has already brought back.
	unlock, err := s.verifying.lock(ctx, d)
	if err != nil {
		return err
	}
	defer unlock()
	if s.trusted(d) {
		return nil
	}
	if err := s.rehash(Context(ctx), d); err != nil {
		return err
	}
	s.Trust(d)
	return nil
}

func (s *Store) rehash(ctx context.Context, d digest.Digest) error {
	i, err := s.Blobs().Info(ctx, d)
	if err != nil {
		return fmt.Errorf("verify blob %s: %w", d, err)
	}
	f, err := os.Open(s.BlobPath(d))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("verify blob %s: %w", d, err)
	}
	found := "its file is gone"
	if err == nil {
		found = s.compare(ctx, f, i)
		f.Close()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if found == "" {
		return nil
	}
	s.log.Warn("blob is damaged and was thrown away; a pull brings it back", "digest", d.String(), "found", found)
	if err := s.Discard(ctx, d); err != nil {
		return err
	}
	return fmt.Errorf("%w: %s: %s; it was thrown away; pull or import the image again", ErrDamaged, d, found)
}

// compare says what is wrong with a blob's file, "" if nothing.
func (s *Store) compare(ctx context.Context, f *os.File, i content.Info) string {
	v := i.Digest.Verifier()
	n, err := io.Copy(v, reader{ctx, f})
	switch {
	case err != nil:
		return err.Error()
	case n != i.Size:
		return fmt.Sprintf("it has %d bytes, and %d were stored", n, i.Size)
	case !v.Verified():
		return "its bytes have another digest"
	}
	return ""
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// VerifyAll looks at every blob after an unclean end, taking at most half of
// the disk's and one processor's time, and calls damaged for each that was
// thrown away. When all were looked at, the store is clean; cut short, it goes
// on in the next process. Preconditions: it has returned before Close.
func (s *Store) VerifyAll(ctx context.Context, damaged func(digest.Digest)) error {
	if !s.Unclean() {
		return nil
	}
	ctx = Context(ctx)
	var all []digest.Digest
	err := s.Blobs().Walk(ctx, func(i content.Info) error {
		all = append(all, i.Digest)
		return nil
	})
	if err != nil {
		return fmt.Errorf("verify blobs: %w", err)
	}
	for _, d := range all {
		started := time.Now()
		err := s.Verify(ctx, d)
		switch {
		case errors.Is(err, ErrDamaged):
			damaged(d)
		case err != nil && !errdefs.IsNotFound(err): // collected meanwhile
			return err
		}
		if err := rest(ctx, time.Since(started)); err != nil {
			return err
		}
	}
	id, err := bootID()
	if err != nil {
		return err
	}
	s.unclean.Store(false)
	if err := writeBoot(s.root, id, "open", false); err != nil {
		return err
	}
	s.log.Info("all blobs were verified after an unclean end of the machine", "blobs", len(all))
	return nil
}

func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// locks are one for each blob that is being verified, waited for with a
// context.
type locks struct {
	mu   sync.Mutex
	held map[digest.Digest]chan struct{} // closed when given back
}

func (l *locks) lock(ctx context.Context, d digest.Digest) (unlock func(), err error) {
	for {
		l.mu.Lock()
		c, taken := l.held[d]
		if !taken {
			c = make(chan struct{})
			l.held[d] = c
		}
		l.mu.Unlock()
		if !taken {
			return func() { l.unlock(d, c) }, nil
		}
		select {
		case <-c:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (l *locks) unlock(d digest.Digest, c chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, d)
	close(c)
}
