package content

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// Hold makes a lease, if it is not there, and puts a blob and all that the
// blob refers to under it.
func (s *Store) Hold(ctx context.Context, lease string, blob digest.Digest) error {
	l := leases.Lease{ID: lease}
	return s.holds.commit(s.db, func(tx *bolt.Tx, lm leases.Manager) error {
		ctx := boltutil.WithTransaction(Context(ctx), tx)
		if _, err := lm.Create(ctx, leases.WithID(l.ID)); err != nil && !errdefs.IsAlreadyExists(err) {
			return fmt.Errorf("make lease: %w", err)
		}
		if err := lm.AddResource(ctx, l, leases.Resource{ID: blob.String(), Type: "content"}); err != nil {
			return fmt.Errorf("lease %s: %w", blob, err)
		}
		return nil
	})
}

// LetGo deletes a lease. One that is not there is no error.
func (s *Store) LetGo(ctx context.Context, lease string) error {
	return s.holds.commit(s.db, func(tx *bolt.Tx, lm leases.Manager) error {
		err := lm.Delete(boltutil.WithTransaction(Context(ctx), tx), leases.Lease{ID: lease})
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		return nil
	})
}

// holdOp is one change of leases inside a transaction.
type holdOp func(*bolt.Tx, leases.Manager) error

// holds lets changes that come at the same time share one commit: a commit
// waits for the disk twice, and a burst of containers brings a change each.
// committing is held over a commit, mu for moments; committing comes first.
type holds struct {
	committing sync.Mutex
	mu         sync.Mutex
	next       *holdBatch
}

type holdBatch struct {
	ops  []holdOp
	errs []error
	done chan struct{}
}

// commit returns when op is on disk. Whoever opens a batch commits it, as soon
// as the one before is done; the others wait for that.
func (h *holds) commit(db *metadata.DB, op holdOp) error {
	h.mu.Lock()
	b, first := h.next, h.next == nil
	if first {
		b = &holdBatch{done: make(chan struct{})}
		h.next = b
	}
	mine := len(b.ops)
	b.ops = append(b.ops, op)
	h.mu.Unlock()
	if !first {
		<-b.done
		return b.errs[mine]
	}
	h.committing.Lock()
	defer h.committing.Unlock()
	h.mu.Lock()
	h.next = nil
	h.mu.Unlock()
	b.run(db)
	return b.errs[mine]
}

// run commits a batch that nobody adds to any more.
func (b *holdBatch) run(db *metadata.DB) {
	defer close(b.done)
	b.errs = make([]error, len(b.ops))
	lm := metadata.NewLeaseManager(db)
	err := db.Update(func(tx *bolt.Tx) error {
		for i, op := range b.ops {
			b.errs[i] = op(tx, lm)
		}
		return nil
	})
	for i := range b.errs {
		if b.errs[i] == nil {
			b.errs[i] = err
		}
	}
}
