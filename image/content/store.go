// Package content owns what the image service keeps on disk: blobs, their
// labels, the names of images, leases and snapshots, and the collection of
// what nothing refers to.
//
// The stores are containerd's, opened in one process under one folder and one
// namespace. This package decides what they leave to their user: how they are
// opened, what a start cleans after a crash, when the collector runs, what is
// checked after an unclean end of the machine. It knows no registries, and
// does not know what an image means.
//
// Lock order: Store.collecting is held over one collection and nothing else of
// this package; holds has an order of its own; a blob's lock in verifying comes
// before Store.mu, which guards the set of verified digests and is held for
// moments only.
package content

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	digest "github.com/opencontainers/go-digest"
)

// Namespace is the one namespace that everything is kept under.
const Namespace = "limpet"

// openTimeout bounds the wait for the database's file lock: a second process
// on the same folder fails with a sentence instead of waiting for ever.
const openTimeout = 2 * time.Second

// Snapshotters that can be asked for.
const (
	Overlay = "overlayfs"
	Native  = "native"
)

// ErrInUse: another process has the store open.
var ErrInUse = errors.New("image store is in use by another process")

// Config of a Store.
type Config struct {
	// Root is the folder; made if missing.
	Root string
	// Snapshotter is Overlay, Native, or "" for the best that works here.
	Snapshotter string
}

// Store is everything that is kept, open.
type Store struct {
	root    string
	log     *slog.Logger
	bolt    guardedDB
	db      *metadata.DB
	raw     content.Store
	rawSn   guardedSnapshots
	snName  string
	unclean atomic.Bool

	holds      holds
	collecting sync.Mutex
	every      time.Duration
	wake       chan struct{}
	stop       context.CancelFunc
	done       chan struct{}

	verifying locks
	mu        sync.Mutex
	verified  map[digest.Digest]struct{}
}

// Open opens the store under cfg.Root. Register follows, then Start.
// A database that is damaged beyond opening is set aside together with all it
// described, and an empty store is opened: the images are pulled again, and
// containers that run keep the files they use.
func Open(cfg Config, log *slog.Logger) (*Store, error) {
	if err := os.MkdirAll(cfg.Root, 0o700); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	s, err := open(cfg, log)
	if err == nil || !errors.Is(err, errDamaged) {
		return s, err
	}
	aside, moveErr := setAside(cfg.Root)
	if moveErr != nil {
		return nil, fmt.Errorf("%w; setting it aside: %w", err, moveErr)
	}
	log.Error("image store was damaged and set aside; images will be pulled again. The folder can be deleted once no container of before runs",
		"error", err, "aside", aside)
	return open(cfg, log)
}

func open(cfg Config, log *slog.Logger) (*Store, error) {
	bdb, err := openBolt(filepath.Join(cfg.Root, "meta.db"))
	if err != nil {
		return nil, err
	}
	s := &Store{root: cfg.Root, log: log, bolt: guardedDB{bdb, &guard{}}, every: collectEvery, wake: make(chan struct{}, 1), verified: map[digest.Digest]struct{}{}}
	s.verifying.held = map[digest.Digest]chan struct{}{}
	ok := false
	defer func() {
		if !ok {
			bdb.Close()
		}
	}()
	unclean, err := beginBoot(cfg.Root)
	if err != nil {
		return nil, err
	}
	s.unclean.Store(unclean)
	if unclean {
		if err := readAll(bdb); err != nil {
			return nil, err
		}
	}
	s.chooseSnapshotter(cfg)
	if err := s.checkSnapshotter(); err != nil {
		return nil, err
	}
	if s.raw, err = local.NewStore(filepath.Join(cfg.Root, "content")); err != nil {
		return nil, fmt.Errorf("open content store: %w", err)
	}
	if err := s.openSnapshotter(); err != nil {
		return nil, err
	}
	s.db = metadata.NewDB(s.bolt, s.raw, map[string]snapshots.Snapshotter{s.snName: s.rawSn})
	if err := initDB(s.db); err != nil {
		return nil, err
	}
	s.bolt.damaged = s.broken
	ok = true
	return s, nil
}

func (s *Store) chooseSnapshotter(cfg Config) {
	s.snName = cfg.Snapshotter
	if s.snName != "" {
		return
	}
	s.snName = Native
	if os.Geteuid() == 0 && overlayWorks(cfg.Root) == nil {
		s.snName = Overlay
	}
}

// snapshotFolders are the snapshotters' folders below the root.
var snapshotFolders = map[string]string{Overlay: "overlay", Native: "native"}

func (s *Store) openSnapshotter() (err error) {
	dir := filepath.Join(s.root, snapshotFolders[s.snName])
	s.rawSn = guardedSnapshots{path: filepath.Join(dir, "metadata.db"), guard: s.bolt.guard}
	switch s.snName {
	case Overlay:
		s.rawSn.of, err = overlay.NewSnapshotter(dir)
	case Native:
		s.rawSn.of, err = native.NewSnapshotter(dir)
	default:
		err = fmt.Errorf("unknown, wanted %s or %s", Overlay, Native)
	}
	if err != nil {
		return fmt.Errorf("open snapshotter %s: %w", s.snName, err)
	}
	return nil
}

// Register makes the collector look after a resource of another package.
// Preconditions: called before Start.
func (s *Store) Register(t gc.ResourceType, c metadata.Collector) {
	s.db.RegisterCollectibleResource(t, c)
}

// Context returns ctx with the store's namespace, which all stores need.
func Context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, Namespace)
}

// Root is the store's folder.
func (s *Store) Root() string { return s.root }

// Blobs is the content store.
func (s *Store) Blobs() content.Store { return s.db.ContentStore() }

// Names is the store of image names.
func (s *Store) Names() images.Store { return metadata.NewImageStore(s.db) }

// Leases is the lease manager.
func (s *Store) Leases() leases.Manager { return metadata.NewLeaseManager(s.db) }

// Snapshots is the snapshotter.
func (s *Store) Snapshots() snapshots.Snapshotter { return s.db.Snapshotter(s.snName) }

// Snapshotter is the name of the snapshotter in use.
func (s *Store) Snapshotter() string { return s.snName }

// BlobPath is where a blob's file is.
func (s *Store) BlobPath(d digest.Digest) string {
	return filepath.Join(s.root, "content", "blobs", d.Algorithm().String(), d.Encoded())
}

// Close ends the collector, marks the end as clean and closes the stores.
func (s *Store) Close() error {
	if s.stop != nil {
		s.stop()
		<-s.done
	}
	s.collecting.Lock()
	defer s.collecting.Unlock()
	return errors.Join(s.db.Close(), s.rawSn.Close(), s.bolt.Close(), endBoot(s.root, s.Unclean() || s.bolt.damage.Load() != nil))
}
