package cgroup

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Containers of a pod are made at the same time.
func TestRaces(t *testing.T) {
	h := hierarchy(t)
	path := scratch(t, h)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			g, err := h.Create(fmt.Sprintf("%s/c%d", filepath.Dir(path), i), &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(5))}})
			if err != nil {
				t.Error(err)
				return
			}
			if err := g.Remove(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
