package shim_test

import (
	"context"
	"path/filepath"
	"runtime"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// After 100 containers nothing is left: no process, cgroup, mount, descriptor,
// file, socket or goroutine.
func TestNothingIsLeft(t *testing.T) {
	n := newNode(t)
	ctx := context.Background()
	before, goroutines := n.census(), runtime.NumGoroutine()
	guests := []string{guestHello, guestExit3, guestTrap, guestSpin, guestSleep}
	for i := range 100 {
		c := n.container(guests[i%len(guests)])
		c.OCI.Mounts = []specs.Mount{{Destination: "/data", Source: filepath.Dir(n.compile(guestHello))}}
		h, err := n.sup.Create(ctx, c, nil)
		if err != nil {
			t.Fatal(err)
		}
		if i%7 != 0 { // some are never started
			if err := h.Start(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if i%3 == 0 { // some are stopped, the others killed by Remove
			if err := h.Stop(ctx, unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			n.ended(h)
		}
		for range 2 {
			if err := n.sup.Remove(ctx, c); err != nil {
				t.Fatal(err)
			}
		}
	}
	n.compare(before, n.census())
	n.close()
	if now := runtime.NumGoroutine(); now > goroutines {
		t.Errorf("%d goroutines, before there were %d", now, goroutines)
	}
}
