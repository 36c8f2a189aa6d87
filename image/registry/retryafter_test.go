package registry

import (
	"testing"
	"time"
)

// TestRetryAfterHuge: a wait longer than we would keep is still a wish to be
// left alone, and not taken for a header that says nothing.
func TestRetryAfterHuge(t *testing.T) {
	for _, v := range []string{"4294967296", "99999999999", "99999999999999999999999999"} {
		if d, ok := retryAfter(v, time.Now()); !ok || d < maxWait {
			t.Errorf("Retry-After %s: %v, %v; want %v or more", v, d, ok, maxWait)
		}
	}
	for _, v := range []string{"", "-1", "soon", "1.5", "+3"} {
		if d, ok := retryAfter(v, time.Now()); ok {
			t.Errorf("Retry-After %q: %v; want it ignored", v, d)
		}
	}
}
