package shim_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/limpet-cri/limpet/shim"
)

// What hosts do without on a node is told when the daemon starts, and not
// again for each of them.
func TestMissingIsToldOnce(t *testing.T) {
	n := newNode(t)
	n.close()
	n.cfg.Cgroups = nil
	var told bytes.Buffer
	var err error
	if n.sup, err = shim.New(n.cfg, slog.New(slog.NewTextHandler(&told, nil))); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if x := n.ended(n.start(n.container(guestHello))); x.Code != 0 {
			t.Errorf("it ended with %+v", x)
		}
	}
	if got := strings.Count(told.String(), "no cgroups are used"); got != 1 {
		t.Errorf("told %d times:\n%s", got, told.String())
	}
}
