//go:build e2e

package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/limpet-cri/limpet/test/node"
)

// guests that the tests push; each becomes REGISTRY/NAME:1.
var guests = []string{"hello", "exit3", "copy", "trap", "hog", "forever", "http", "flood", "chatty"}

// startNode starts limpetd with every guest in its registry.
func startNode(t *testing.T) *node.Node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute*slowness(t))
	defer cancel()
	n, err := node.Start(ctx, node.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of limpetd's log:\n%s", n.LogTail())
		}
		if err := n.Close(); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
	})
	if err := node.MakeCgroup(n.Cgroup); err != nil {
		t.Fatal(err)
	}
	for _, g := range guests {
		if _, err := n.PushGuest(ctx, g); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// peer is a program that test/peers.sh has built.
func peer(t *testing.T, n *node.Node, name string) string {
	t.Helper()
	p := filepath.Join(filepath.Dir(n.Bin), "build", "peers", name)
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("%v: run test/peers.sh build/peers %s", err, name)
	}
	return p
}

// slowness is how many times slower than usual this machine is said to be
// (LIMPET_SLOW=10 under emulation); waits are that much longer.
func slowness(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("LIMPET_SLOW")
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("LIMPET_SLOW=%q: want a whole number from 1", text)
	}
	return time.Duration(n)
}

// eventually asks until the answer is nil, and fails with the last one.
func eventually(t *testing.T, limit time.Duration, ask func() error) {
	t.Helper()
	limit *= slowness(t)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	end := time.After(limit)
	for {
		err := ask()
		if err == nil {
			return
		}
		if errors.Is(err, errNever) {
			t.Fatal(err)
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("after %s: %v", limit, err)
		}
	}
}

// errNever says that waiting longer is of no use.
var errNever = errors.New("this cannot become right any more")
