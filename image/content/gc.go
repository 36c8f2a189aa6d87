package content

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// collectEvery is how often the collector runs without being asked: leases of
// pulls that were given up expire, and somebody has to notice.
const collectEvery = time.Hour

// Start cleans what a crash left, checks sizes after an unclean end of the
// machine, and starts the collector. It returns the digests of the blobs that
// it threw away because they were damaged.
//
// The collector of containerd visits a store only if something was removed
// from it since the last time, so strays of a crash would stay for ever: a
// blob and a snapshot are made and removed to mark both.
func (s *Store) Start(ctx context.Context) (damaged []digest.Digest, err error) {
	ctx = Context(ctx)
	if err := s.cleanSnapshots(ctx); err != nil {
		return nil, fmt.Errorf("clean snapshots: %w", err)
	}
	if err := s.cleanIngests(); err != nil {
		return nil, fmt.Errorf("clean ingests: %w", err)
	}
	if s.Unclean() {
		if damaged, err = s.checkSizes(ctx); err != nil {
			return nil, fmt.Errorf("check blobs after an unclean end: %w", err)
		}
	}
	if err := s.touch(ctx); err != nil {
		return nil, fmt.Errorf("mark stores for collection: %w", err)
	}
	if err := s.Collect(ctx); err != nil {
		return nil, err
	}
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.done = make(chan struct{})
	go s.collector(ctx)
	return damaged, nil
}

// cleanSnapshots removes folders that the snapshotter does not know. Overlay's
// own cleaning does nothing on a snapshotter that never committed anything:
// then all of its folders are strays.
func (s *Store) cleanSnapshots(ctx context.Context) error {
	err := s.rawSn.Cleanup(ctx)
	switch {
	case errdefs.IsNotImplemented(err):
		return s.cleanNative(ctx)
	case !errdefs.IsNotFound(err):
		return err
	}
	return removeAll(filepath.Join(s.root, "overlay", "snapshots"), func(string) bool { return true })
}

// cleanNative does for the native snapshotter what it does not do itself. Its
// folders are named by numbers that only its database knows; a folder that no
// committed or active snapshot mounts is a stray.
func (s *Store) cleanNative(ctx context.Context) error {
	known := map[string]bool{}
	err := s.rawSn.Walk(ctx, func(ctx context.Context, i snapshots.Info) error {
		if i.Kind == snapshots.KindCommitted {
			return nil
		}
		ms, err := s.rawSn.Mounts(ctx, i.Name)
		for _, m := range ms {
			known[filepath.Base(m.Source)] = true
		}
		return err
	})
	// Never used, it has no bucket yet: then all is stray.
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	ids, err := nativeIDs(filepath.Join(s.root, "native", "metadata.db"))
	if err != nil {
		return err
	}
	return removeAll(filepath.Join(s.root, "native", "snapshots"), func(name string) bool {
		return !known[name] && !ids[name]
	})
}

// nativeIDs reads the numbers of all snapshots from the snapshotter's database.
func nativeIDs(path string) (map[string]bool, error) {
	ids := map[string]bool{}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return ids, nil
	}
	// The snapshotter holds the file open and locked; a reader in the same
	// process must not wait for the lock, so a copy is read.
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	tmp := path + ".read"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(tmp)
	db, err := bolt.Open(tmp, 0o600, &bolt.Options{Timeout: openTimeout, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		v1 := tx.Bucket([]byte("v1"))
		if v1 == nil || v1.Bucket([]byte("snapshots")) == nil {
			return nil
		}
		sn := v1.Bucket([]byte("snapshots"))
		return sn.ForEachBucket(func(k []byte) error {
			if n, w := uvarint(sn.Bucket(k).Get([]byte("id"))); w {
				ids[strconv.FormatUint(n, 10)] = true
			}
			return nil
		})
	})
	return ids, err
}

func removeAll(dir string, stray func(name string) bool) error {
	es, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range es {
		if stray(e.Name()) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// cleanIngests removes ingest folders that a kill left before they got their
// reference: the collector never takes those.
func (s *Store) cleanIngests() error {
	dir := filepath.Join(s.root, "content", "ingest")
	return removeAll(dir, func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name, "ref"))
		return errors.Is(err, os.ErrNotExist)
	})
}

// touch makes and removes a blob and a snapshot.
func (s *Store) touch(ctx context.Context) error {
	b := []byte("limpet start " + strconv.FormatInt(time.Now().UnixNano(), 10))
	d := ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}
	// A kill may have left this very one half written.
	if err := s.Blobs().Abort(ctx, "start"); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if err := content.WriteBlob(ctx, s.Blobs(), "start", bytes.NewReader(b), d); err != nil {
		return err
	}
	if err := s.Blobs().Delete(ctx, d.Digest); err != nil {
		return err
	}
	if _, err := s.Snapshots().Prepare(ctx, "start", ""); err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	return s.Snapshots().Remove(ctx, "start")
}

// Collect removes everything that nothing refers to, and returns when it is
// gone.
func (s *Store) Collect(ctx context.Context) error {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	if _, err := s.db.GarbageCollect(Context(ctx)); err != nil {
		return fmt.Errorf("collect garbage: %w", err)
	}
	return nil
}

// CollectSoon asks for a collection and does not wait.
func (s *Store) CollectSoon() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Store) collector(ctx context.Context) {
	defer close(s.done)
	t := time.NewTicker(s.every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-t.C:
		}
		if err := s.Collect(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("garbage of images was not collected", "error", err)
		}
	}
}

func uvarint(b []byte) (uint64, bool) {
	n, w := binary.Uvarint(b)
	return n, w > 0
}
