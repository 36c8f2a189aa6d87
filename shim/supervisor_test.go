package shim_test

import (
	"testing"

	"github.com/limpet-cri/limpet/shim/logs"
	"github.com/limpet-cri/limpet/shim/spec"
)

func TestHello(t *testing.T) {
	n := newNode(t)
	c := n.container(guestHello)
	x := n.ended(n.start(c))
	if x.Code != 0 || x.Reason != spec.ReasonCompleted || x.Message != "" {
		t.Errorf("ended with %+v", x)
	}
	if got := n.output(c, logs.Stdout); got != "Hello\n" {
		t.Errorf("log has %q", got)
	}
}
