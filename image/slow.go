package image

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How long a registry may take. The watchdog over bodies ends those that
// stall; one that trickles just above it would hold one of the few pulls that
// run at once for months, and the turn of every other pull that wants the same
// blob. What came in time is kept, and the next pull goes on from there, so a
// link that is really this slow costs attempts and no bytes.
const (
	// slowest is the average rate, in bytes a second, below which a blob is
	// given up: a module of 10 MiB in less than three minutes.
	slowest = 64 << 10
	// slowGrace comes on top, whatever the size: mirrors that hang, and the
	// waits that a busy registry asks for, five of 30 s in a row.
	slowGrace = 15 * time.Minute
	// pullTime bounds a pull as a whole: its lease lasts this long at least,
	// and nothing protects what it fetched afterwards.
	pullTime = leaseRenew
)

// errSlow: a bound above was reached.
var errSlow = errors.New("too slow")

// slowAfter is what bytes of this number may take.
func slowAfter(size int64) time.Duration {
	return min(slowGrace+time.Duration(min(size/slowest, int64(pullTime/time.Second)))*time.Second, pullTime)
}

// within bounds work with a registry; the cause says what was waited for.
func within(ctx context.Context, t time.Duration, what string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, t, meant{
		fmt.Errorf("%w: %s did not come within %s; what came is kept, and the next pull goes on from there", ErrUnavailable, what, t), errSlow})
}
