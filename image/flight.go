package image

import (
	"context"
	"sync"
)

// flights are the pulls under way: one per reference, which all who asked for
// it wait for. A pull ends with the last of them.
type flights struct {
	mu     sync.Mutex
	byRef  map[string]*flight
	all    sync.WaitGroup
	closed bool
}

type flight struct {
	auth    string
	cancel  context.CancelFunc
	done    chan struct{}
	img     Image
	err     error
	waiters int  // guarded by flights.mu
	given   bool // up by the last of them; guarded by flights.mu

	mu       sync.Mutex
	watchers []func(Progress)
	last     Progress
}

// join adds a waiter to the pull of ref, starting it if there is none. Of one
// that was given up already a new waiter sees the end, and comes again.
func (fs *flights) join(ctx context.Context, ref, auth string, progress func(Progress), run func(context.Context, *flight)) (*flight, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.closed {
		return nil, ErrClosed
	}
	f, ok := fs.byRef[ref]
	if !ok {
		ctx, cancel := context.WithCancel(ctx)
		f = &flight{auth: auth, cancel: cancel, done: make(chan struct{})}
		if fs.byRef == nil {
			fs.byRef = map[string]*flight{}
		}
		fs.byRef[ref] = f
		fs.all.Add(1)
		go func() {
			defer fs.all.Done()
			defer cancel()
			run(ctx, f)
			fs.mu.Lock()
			delete(fs.byRef, ref)
			fs.mu.Unlock()
			close(f.done)
		}()
	}
	f.waiters++
	if !f.given {
		f.watch(progress)
	}
	return f, nil
}

// leave takes a waiter away. The last one ends the pull, and returns when it
// has ended; the others leave at once.
func (fs *flights) leave(f *flight) {
	fs.mu.Lock()
	f.waiters--
	last := f.waiters == 0
	f.given = f.given || last
	fs.mu.Unlock()
	if last {
		f.cancel()
		<-f.done
	}
}

// gaveUp says whether a pull was ended because nobody waited for it.
func (fs *flights) gaveUp(f *flight) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return f.given
}

// wait lets no new pull begin and waits for those under way.
func (fs *flights) wait() {
	fs.mu.Lock()
	fs.closed = true
	fs.mu.Unlock()
	fs.all.Wait()
}

func (f *flight) watch(fn func(Progress)) {
	if fn == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watchers = append(f.watchers, fn)
	if f.last.Stage != "" {
		fn(f.last)
	}
}

// tell calls the watchers, one after the other.
func (f *flight) tell(p Progress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = p
	for _, fn := range f.watchers {
		fn(p)
	}
}

// keyed is a lock per key that can be waited for with a context.
type keyed struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// lock returns when the key is the caller's, and how to give it back.
func (k *keyed) lock(ctx context.Context, key string) (unlock func(), err error) {
	for {
		k.mu.Lock()
		c, taken := k.held[key]
		if !taken {
			if k.held == nil {
				k.held = map[string]chan struct{}{}
			}
			c = make(chan struct{})
			k.held[key] = c
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				delete(k.held, key)
				k.mu.Unlock()
				close(c)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-c:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
