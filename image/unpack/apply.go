package unpack

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/image/content"
)

// zstdWindow bounds the memory of a zstd frame: what the tool's --long asks
// for at most.
const zstdWindow = 128 << 20

// apply writes a layer into the snapshot that mounts describe, checks that it
// is the one its diff id names, and makes it durable.
func apply(ctx context.Context, s *content.Store, l Layer, mounts []mount.Mount, lim used) (used, error) {
	root, opts, err := target(mounts)
	if err != nil {
		return used{}, err
	}
	ra, err := s.Blobs().ReaderAt(ctx, l.Descriptor)
	if err != nil {
		return used{}, fmt.Errorf("open: %w", err)
	}
	defer ra.Close()
	q, err := applyTar(ctx, io.NewSectionReader(ra, 0, ra.Size()), root, opts, l.DiffID, lim)
	if err != nil {
		return used{}, err
	}
	return q, syncfs(root)
}

// applyTar reads a layer, compressed or not, into the folder root.
func applyTar(ctx context.Context, r io.Reader, root string, opts []archive.ApplyOpt, diffID digest.Digest, lim used) (used, error) {
	dec, err := Decompress(r)
	if err != nil {
		return used{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	defer dec.Close()
	v := diffID.Algorithm().Digester()
	q := &quota{ctx: ctx, r: io.TeeReader(dec, v.Hash()), lim: lim, folders: map[uint64]struct{}{}}
	opts = append(opts, archive.WithFilter(q.filter))
	if os.Geteuid() != 0 {
		opts = append(opts, archive.WithNoSameOwner())
	}
	if _, err := archive.Apply(ctx, root, q, opts...); err != nil {
		return used{}, q.explain(err)
	}
	// What follows the archive's end counts for digest and bounds too.
	if _, err := io.Copy(io.Discard, q); err != nil {
		return used{}, q.explain(err)
	}
	if got := v.Digest(); got != diffID {
		return used{}, fmt.Errorf("%w: it unpacks to %s, and the config says %s", ErrInvalid, got, diffID)
	}
	return used{bytes: max(q.n.bytes, q.declared), entries: q.n.entries}, nil
}

// target finds the folder to write into, so that nothing needs to be mounted.
func target(mounts []mount.Mount) (root string, opts []archive.ApplyOpt, err error) {
	if len(mounts) != 1 {
		return "", nil, fmt.Errorf("snapshot has %d mounts, one is known how to write to", len(mounts))
	}
	m := mounts[0]
	switch m.Type {
	case "bind":
		// The lowest layer, or a copy of its parent: whiteouts are applied.
		return m.Source, nil, nil
	case "overlay":
		for _, o := range m.Options {
			if v, ok := strings.CutPrefix(o, "upperdir="); ok {
				root = v
			}
			if v, ok := strings.CutPrefix(o, "lowerdir="); ok {
				opts = append(opts, archive.WithParents(strings.Split(v, ":")))
			}
		}
		if root == "" {
			break
		}
		return root, append(opts, archive.WithConvertWhiteout(archive.OverlayConvertWhiteout)), nil
	}
	return "", nil, fmt.Errorf("snapshot is a mount of type %q, which cannot be written to directly", m.Type)
}

// Decompress reads gzip, zstd, or what is neither as it is.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(b)
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}

// quota stands between decompressor and archive: it counts what comes, and
// changes what must not be written.
type quota struct {
	ctx context.Context
	r   io.Reader
	n   used
	lim used
	// declared counts the sizes in headers: holes of sparse files take no
	// bytes of the archive, and are written out.
	declared int64
	// folders are those that the archive's paths make, by hash: one entry
	// may make as many as its path has parts.
	folders map[uint64]struct{}
	over    error
	readErr error
}

// Read implements io.Reader.
func (q *quota) Read(p []byte) (int, error) {
	if err := q.ctx.Err(); err != nil {
		return 0, err
	}
	if q.n.bytes > q.lim.bytes {
		return 0, q.exceed("it unpacks to more than %d bytes", q.lim.bytes)
	}
	n, err := q.r.Read(p)
	q.n.bytes += int64(n)
	if err != nil && err != io.EOF {
		q.readErr = err
	}
	return n, err
}

func (q *quota) exceed(format string, n int64) error {
	q.over = fmt.Errorf("%w: "+format, ErrTooLarge, n)
	return q.over
}

// filter decides about each entry, and changes it.
func (q *quota) filter(h *tar.Header) (bool, error) {
	q.n.entries++
	q.countFolders(h)
	if q.n.entries > q.lim.entries {
		return false, q.exceed("it has more than %d entries", q.lim.entries)
	}
	switch h.Typeflag {
	case tar.TypeBlock, tar.TypeChar, tar.TypeFifo, tar.TypeXGlobalHeader:
		return false, nil
	case tar.TypeReg, tar.TypeGNUSparse:
		if h.Size < 0 {
			return false, fmt.Errorf("entry %.100q has a negative size", h.Name)
		}
		if q.declared += h.Size; q.declared > q.lim.bytes || q.declared < 0 {
			return false, q.exceed("its files have more than %d bytes", q.lim.bytes)
		}
	}
	h.Mode &^= 0o6000 // setuid and setgid; nobody gains rights by running a file here
	for k := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, "SCHILY.xattr.")
		if ok && (!strings.HasPrefix(name, "user.") || strings.Contains(name, "overlay.")) {
			delete(h.PAXRecords, k)
		}
	}
	return true, nil
}

// pathSeed is that of the hashes of folders.
var pathSeed = maphash.MakeSeed()

// countFolders counts the folders that an entry's path needs and no entry
// before it made: they are made with it.
func (q *quota) countFolders(h *tar.Header) {
	name := path.Clean("/" + h.Name)
	if h.Typeflag == tar.TypeDir {
		q.folders[maphash.String(pathSeed, name)] = struct{}{} // counted as an entry
	}
	for name = path.Dir(name); name != "/" && q.n.entries <= q.lim.entries; name = path.Dir(name) {
		key := maphash.String(pathSeed, name)
		if _, ok := q.folders[key]; ok {
			return
		}
		q.folders[key] = struct{}{}
		q.n.entries++
	}
}

// explain finds the reason behind an error of the archive reader.
func (q *quota) explain(err error) error {
	var sys unix.Errno
	switch {
	case q.over != nil:
		return q.over
	case q.ctx.Err() != nil:
		return q.ctx.Err()
	case errors.As(err, &sys) && (sys == unix.ENOSPC || sys == unix.EDQUOT || sys == unix.EIO || sys == unix.EROFS):
		return fmt.Errorf("write: %w", err)
	case q.readErr != nil:
		return fmt.Errorf("%w: %w", ErrInvalid, q.readErr)
	}
	return fmt.Errorf("%w: %w", ErrInvalid, err)
}

// syncfs makes what was written durable: a snapshot that is committed is
// never looked at again.
func syncfs(root string) error {
	f, err := os.Open(root)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("syncfs: %w", err)
	}
	return nil
}
