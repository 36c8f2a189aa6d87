package content

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The boot file says under which boot of the machine the store was last open
// and whether it was closed: "BOOTID open" or "BOOTID closed". Open under
// another boot means that the machine stopped beneath us, and that what the
// page cache had not written yet is lost.
const bootFile = "boot"

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// beginBoot writes that the store is open, and says whether it ended uncleanly
// the last time.
func beginBoot(root string) (unclean bool, err error) {
	id, err := bootID()
	if err != nil {
		return false, err
	}
	old, err := os.ReadFile(filepath.Join(root, bootFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("read boot file: %w", err)
	}
	before, state, _ := strings.Cut(strings.TrimSpace(string(old)), " ")
	switch {
	case err != nil: // no file: a new store
	case before == "": // torn: written when the machine stopped
		unclean = true
	default:
		unclean = before != id && state != "closed"
	}
	return unclean, writeBoot(root, id+" open\n")
}

func endBoot(root string) error {
	id, err := bootID()
	if err != nil {
		return err
	}
	return writeBoot(root, id+" closed\n")
}

func writeBoot(root, text string) error {
	tmp := filepath.Join(root, bootFile+".new")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write boot file: %w", err)
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, filepath.Join(root, bootFile))
	}
	if err != nil {
		return fmt.Errorf("write boot file: %w", err)
	}
	return nil
}

// Unclean is true when the machine stopped while the store was last open.
func (s *Store) Unclean() bool { return s.unclean }

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
	if err := s.Blobs().Delete(ctx, d); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("discard blob %s: %w", d, err)
	}
	if err := s.raw.Delete(ctx, d); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("discard blob %s: %w", d, err)
	}
	return nil
}

// ErrDamaged: a blob on disk is not what its digest says.
var ErrDamaged = errors.New("blob is damaged")

// Verify makes sure that a blob on disk is what its digest says, once per
// process, and only after an unclean end of the machine: a blob that got its
// name was whole then. A damaged one is discarded.
func (s *Store) Verify(ctx context.Context, d ocispec.Descriptor) error {
	if !s.unclean {
		return nil
	}
	s.mu.Lock()
	_, done := s.verified[d.Digest]
	s.mu.Unlock()
	if done {
		return nil
	}
	if err := s.rehash(Context(ctx), d); err != nil {
		return err
	}
	s.mu.Lock()
	s.verified[d.Digest] = struct{}{}
	s.mu.Unlock()
	return nil
}

func (s *Store) rehash(ctx context.Context, d ocispec.Descriptor) error {
	ra, err := s.Blobs().ReaderAt(ctx, d)
	if err != nil {
		return fmt.Errorf("verify blob %s: %w", d.Digest, err)
	}
	defer ra.Close()
	v := d.Digest.Verifier()
	if _, err := io.Copy(v, io.NewSectionReader(ra, 0, ra.Size())); err == nil && v.Verified() {
		return nil
	} else if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if err := s.Discard(ctx, d.Digest); err != nil {
		return err
	}
	return fmt.Errorf("%w: %s was thrown away; pull the image again", ErrDamaged, d.Digest)
}

func uvarint(b []byte) (uint64, bool) {
	n, w := binary.Uvarint(b)
	return n, w > 0
}
