package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/spec"
)

// Bound is a change of Limpet.MemoryLimit.
type Bound struct{ From, To uint64 }

// Resize changes the limits of the container's cgroup, and the bound of the
// guest's own memory with them: a guest whose memory.grow failed may grow again
// once the bound has risen, and one that has more than a lower bound keeps that
// and gets no more.
//
// The bound is never above what the cgroup has room for: it rises after the
// cgroup's limit and falls before it. If the cgroup refuses, the bound is as it
// was; if the host does, a limit that has risen stays so.
func (h *Host) Resize(ctx context.Context, r *specs.LinuxResources, b Bound) error {
	if b.From == b.To {
		return h.Update(ctx, r)
	}
	if b.To == 0 || b.From != 0 && b.To > b.From {
		if err := h.Update(ctx, r); err != nil {
			return err
		}
		return h.bound(ctx, b.To)
	}
	if err := h.bound(ctx, b.To); err != nil {
		return err
	}
	err := h.Update(ctx, r)
	if err == nil {
		return nil
	}
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), replyTimeout)
	defer cancel()
	return errors.Join(err, h.bound(back, b.From))
}

// SetOOMScoreAdj changes how early the kernel ends the host when the node runs
// out of memory. Where the kernel refuses to go so low, the value stays, as when
// the host is made.
func (h *Host) SetOOMScoreAdj(n int) error {
	f, err := os.OpenFile(filepath.Join("/proc", strconv.Itoa(h.pid), "oom_score_adj"), os.O_WRONLY, 0)
	if err == nil {
		defer f.Close()
		// Opened before the host was seen to live: the file is this process's,
		// whoever has its number later.
		if h.Phase() != spec.PhaseEnding {
			_, err = f.WriteString(strconv.Itoa(n))
		}
	}
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		h.s.log.Warn("oom_score_adj stays as it is: the kernel lets this daemon go no lower", "container", h.id, "wanted", n)
		return nil
	case h.Phase() == spec.PhaseEnding:
		return fmt.Errorf("update container %s: %w", h.id, ErrEnded)
	case err != nil:
		return fmt.Errorf("update container %s: %w", h.id, err)
	}
	return nil
}

// bound tells the host the new bound.
func (h *Host) bound(ctx context.Context, bytes uint64) error {
	k, err := h.connect(ctx)
	if err == nil {
		defer k.close()
		if k.version < spec.VersionBound {
			return fmt.Errorf("update container %s: %w: its host is of an earlier Limpet and cannot change its guest's memory; restart the container", h.id, ErrInvalid)
		}
		err = k.request(ctx, &spec.Message{Op: spec.OpBound, Bytes: bytes}, -1)
	}
	if err != nil {
		return fmt.Errorf("update container %s: %w", h.id, h.because(ctx, err))
	}
	return nil
}
