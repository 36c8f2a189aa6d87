package pod

import (
	"context"

	"golang.org/x/sync/semaphore"
)

// turn is a lock whose waiters can give up. Whoever holds it alone may change
// the object; those who share it keep it from being changed.
type turn struct{ w *semaphore.Weighted }

const turnSharers = 1 << 20

func newTurn() turn { return turn{w: semaphore.NewWeighted(turnSharers)} }

func (t turn) take(ctx context.Context) (release func(), err error) {
	return t.acquire(ctx, turnSharers)
}

func (t turn) share(ctx context.Context) (release func(), err error) { return t.acquire(ctx, 1) }

func (t turn) acquire(ctx context.Context, n int64) (func(), error) {
	if err := t.w.Acquire(ctx, n); err != nil {
		return nil, err
	}
	return func() { t.w.Release(n) }, nil
}

// undo is what an operation has done so far, newest last.
type undo struct{ steps []func(context.Context) error }

func (u *undo) add(f func(context.Context) error) { u.steps = append(u.steps, f) }

// run undoes in reverse, calls after after each step, and returns what could
// not be undone. It does so even when the request's own context has ended.
func (u *undo) run(ctx context.Context, after func()) []error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	var faults []error
	for i := len(u.steps) - 1; i >= 0; i-- {
		if err := u.steps[i](ctx); err != nil {
			faults = append(faults, err)
		}
		after()
	}
	u.steps = nil
	return faults
}
