package content

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
)

// guard is around every use of the store's databases. bbolt panics on pages
// that make no sense, and reading beyond the end of a file that got shorter
// under it, or a page that the disk does not give, is a fault of memory: either
// would end the process, whichever goroutine reads. Here it is an error, and
// the last use of both databases: they tell of each other, and bbolt's locks
// may be held for ever then.
type guard struct {
	damage atomic.Pointer[error]
	// damaged hears of it, once; nil while the store is being opened, which
	// sets a damaged one aside itself.
	damaged func(err error, stack []byte)
}

func (g *guard) do(path string, use func() error) (err error) {
	if e := g.damage.Load(); e != nil {
		return *e
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s: %v; restart limpetd, which sets it aside, and pull the images again", errDamaged, path, p)
			if g.damage.CompareAndSwap(nil, &err) && g.damaged != nil {
				g.damaged(err, debug.Stack())
			}
		}
	}()
	return use()
}

// end closes what is guarded; damaged, it stays open until the process ends.
func (g *guard) end(closing func() error) error {
	if g.damage.Load() != nil {
		return nil
	}
	return closing()
}

// guardedDB is the store's own database.
type guardedDB struct {
	*bolt.DB
	*guard
}

func (g guardedDB) View(f func(*bolt.Tx) error) error {
	return g.do(g.Path(), func() error { return g.DB.View(f) })
}

func (g guardedDB) Update(f func(*bolt.Tx) error) error {
	return g.do(g.Path(), func() error { return g.DB.Update(f) })
}

func (g guardedDB) Close() error { return g.end(g.DB.Close) }

// guardedSnapshots is a snapshotter, which has a database of its own.
type guardedSnapshots struct {
	of   snapshots.Snapshotter
	path string
	*guard
}

// Cleanup answers as snapshots.Cleaner wants it of one that cannot.
func (g guardedSnapshots) Cleanup(ctx context.Context) error {
	c, ok := g.of.(snapshots.Cleaner)
	if !ok {
		return errdefs.ErrNotImplemented
	}
	return g.do(g.path, func() error { return c.Cleanup(ctx) })
}

func (g guardedSnapshots) Stat(ctx context.Context, key string) (i snapshots.Info, err error) {
	err = g.do(g.path, func() error { i, err = g.of.Stat(ctx, key); return err })
	return i, err
}

func (g guardedSnapshots) Update(ctx context.Context, info snapshots.Info, fields ...string) (i snapshots.Info, err error) {
	err = g.do(g.path, func() error { i, err = g.of.Update(ctx, info, fields...); return err })
	return i, err
}

func (g guardedSnapshots) Usage(ctx context.Context, key string) (u snapshots.Usage, err error) {
	err = g.do(g.path, func() error { u, err = g.of.Usage(ctx, key); return err })
	return u, err
}

func (g guardedSnapshots) Mounts(ctx context.Context, key string) (m []mount.Mount, err error) {
	err = g.do(g.path, func() error { m, err = g.of.Mounts(ctx, key); return err })
	return m, err
}

func (g guardedSnapshots) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) (m []mount.Mount, err error) {
	err = g.do(g.path, func() error { m, err = g.of.Prepare(ctx, key, parent, opts...); return err })
	return m, err
}

func (g guardedSnapshots) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) (m []mount.Mount, err error) {
	err = g.do(g.path, func() error { m, err = g.of.View(ctx, key, parent, opts...); return err })
	return m, err
}

func (g guardedSnapshots) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	return g.do(g.path, func() error { return g.of.Commit(ctx, name, key, opts...) })
}

func (g guardedSnapshots) Remove(ctx context.Context, key string) error {
	return g.do(g.path, func() error { return g.of.Remove(ctx, key) })
}

func (g guardedSnapshots) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	return g.do(g.path, func() error { return g.of.Walk(ctx, fn, filters...) })
}

func (g guardedSnapshots) Close() error { return g.end(g.of.Close) }

// broken notes what was found, so that the next start looks at all of it.
func (s *Store) broken(err error, stack []byte) {
	s.unclean.Store(true)
	if id, bootErr := bootID(); bootErr == nil {
		bootErr = writeBoot(s.root, id, "open", true)
		if bootErr != nil {
			s.log.Error("could not note that the image database is damaged", "error", bootErr)
		}
	}
	s.log.Error("image database is damaged; pods run on, and no image can be pulled or used for a new container until limpetd is restarted",
		"error", err, "stack", string(stack))
}
