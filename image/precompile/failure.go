package precompile

import (
	"fmt"
	"time"

	digest "github.com/opencontainers/go-digest"
)

// Bounds of what is remembered about modules that do not compile.
const (
	// badFor is how long a failure is answered from memory. A pull that the
	// kubelet repeats must not start a compiler each time; a failure that was
	// the machine's must pass.
	badFor = 2 * time.Minute
	// maxBad bounds how many are remembered.
	maxBad = 256
	// maxReason bounds the text of one.
	maxReason = 4 << 10
)

type failure struct {
	err   error
	until time.Time
}

// failed is the error that a name's compilation ended with not long ago.
func (c *Cache) failed(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.bad[name]
	if !ok || !c.now().Before(f.until) {
		delete(c.bad, name)
		return nil
	}
	return f.err
}

func (c *Cache) remember(name string, module digest.Digest, err error) error {
	text := err.Error()
	if len(text) > maxReason {
		text = text[:maxReason] + "…"
	}
	err = fmt.Errorf("%w: %s: %s", ErrCompile, module, text)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.bad) >= maxBad {
		clear(c.bad)
	}
	c.bad[name] = failure{err, c.now().Add(badFor)}
	return err
}
