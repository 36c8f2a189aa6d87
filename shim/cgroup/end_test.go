package cgroup

import (
	"context"
	"errors"
	"testing"
	"time"
)

// Remove waits for what is on its way out, and is bounded by its context.
func TestRemoveWaits(t *testing.T) {
	h := hierarchy(t)
	g, err := h.Create(scratch(t, h), nil)
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, g, "wait")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := g.Remove(ctx); !errors.Is(err, ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Remove of a group in use: %v", err)
	}
	done := make(chan error)
	go func() { done <- g.Remove(context.Background()) }()
	p.in.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := g.Remove(context.Background()); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := g.Kill(); err != nil {
		t.Errorf("Kill of a group that is gone: %v", err)
	}
	if _, err := g.Stats(); !errors.Is(err, ErrNotFound) {
		t.Errorf("Stats of a group that is gone: %v", err)
	}
	if _, err := g.OOMKills(); !errors.Is(err, ErrNotFound) {
		t.Errorf("OOMKills of a group that is gone: %v", err)
	}
	if _, _, err := g.Join(); !errors.Is(err, ErrNotFound) {
		t.Errorf("Join of a group that is gone: %v", err)
	}
}
