package image

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	blobs "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/limpet-cri/limpet/image/content"
)

// Remove takes away all names of the image that ref means, and what only they
// kept. What containers hold stays until they give it back. Removing what is
// not there is no error.
func (s *Service) Remove(ctx context.Context, ref string) error {
	ctx = content.Context(ctx)
	gone, err := s.unname(ctx, ref)
	if err != nil || !gone {
		return err
	}
	return s.store.Collect(ctx)
}

func (s *Service) unname(ctx context.Context, ref string) (bool, error) {
	s.naming.Lock()
	defer s.naming.Unlock()
	s.mu.RLock()
	e, err := s.known.find(ref)
	var names []string
	if e != nil {
		names = s.known.names(e.img.ID)
	}
	s.mu.RUnlock()
	if err != nil || e == nil {
		return false, err
	}
	for _, n := range names {
		if err := s.store.Names().Delete(ctx, n); err != nil && !errdefs.IsNotFound(err) {
			return false, fmt.Errorf("remove image %s: %w", n, err)
		}
		s.mu.Lock()
		s.known.dropName(n)
		s.mu.Unlock()
	}
	return true, nil
}

// Usage measures what the images take: blobs, unpacked layers, compiled code.
func (s *Service) Usage(ctx context.Context) (Usage, error) {
	ctx = content.Context(ctx)
	u := Usage{Mountpoint: s.cfg.Root}
	err := s.store.Blobs().Walk(ctx, func(i blobs.Info) error {
		u.Bytes += uint64(i.Size)
		u.Inodes++
		return nil
	})
	if err != nil {
		return u, fmt.Errorf("measure blobs: %w", err)
	}
	sn := s.store.Snapshots()
	err = sn.Walk(ctx, func(ctx context.Context, i snapshots.Info) error {
		su, err := sn.Usage(ctx, i.Name)
		if errdefs.IsNotFound(err) {
			return nil
		}
		u.Bytes += uint64(max(su.Size, 0))
		u.Inodes += uint64(max(su.Inodes, 0))
		return err
	})
	if err != nil {
		return u, fmt.Errorf("measure unpacked layers: %w", err)
	}
	if err := u.addFolder(s.code.Dir()); err != nil {
		return u, fmt.Errorf("measure compiled code: %w", err)
	}
	return u, nil
}

// addFolder counts the blocks of a folder's files.
func (u *Usage) addFolder(dir string) error {
	es, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range es {
		fi, err := os.Lstat(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // gone meanwhile
		}
		u.Inodes++
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && fi.Mode()&fs.ModeType == 0 {
			u.Bytes += uint64(st.Blocks) * 512
		}
	}
	return nil
}
