package content

import (
	"fmt"
	"runtime/debug"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"
)

// guarded is the database as the stores see it. bbolt panics on pages that make
// no sense, and reading beyond the end of a file that got shorter under it is a
// fault of memory: either would end the process, whichever goroutine reads.
// Here it is an error, and the last use of the database: bbolt's locks may be
// held for ever then.
type guarded struct {
	*bolt.DB
	damage atomic.Pointer[error]
	// damaged hears of it, once; nil while the store is being opened, which
	// sets a damaged one aside itself.
	damaged func(err error, stack []byte)
}

func (g *guarded) View(f func(*bolt.Tx) error) error   { return g.do(g.DB.View, f) }
func (g *guarded) Update(f func(*bolt.Tx) error) error { return g.do(g.DB.Update, f) }

// Close leaves a damaged database open until the process ends.
func (g *guarded) Close() error {
	if g.damage.Load() != nil {
		return nil
	}
	return g.DB.Close()
}

func (g *guarded) do(run func(func(*bolt.Tx) error) error, f func(*bolt.Tx) error) (err error) {
	if e := g.damage.Load(); e != nil {
		return *e
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s: %v; restart limpetd, which sets it aside, and pull the images again", errDamaged, g.Path(), p)
			if g.damage.CompareAndSwap(nil, &err) && g.damaged != nil {
				g.damaged(err, debug.Stack())
			}
		}
	}()
	return run(f)
}

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
