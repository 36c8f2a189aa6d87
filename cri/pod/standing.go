package pod

import (
	"context"
	"errors"
	"time"

	"github.com/limpet-cri/limpet/shim/spec"
)

// standing finds out where a container stands, by the edges of its graph: what
// the record says, corrected by what its host says. A start that was recorded
// but not heard by the host did not happen, since its caller was told nothing;
// the container is Created again.
func (m *Manager) standing(ctx context.Context, c *container, st containerState) (Phase, Host) {
	from := Preparing{}
	started := unixTime(st.Started)
	if st.Kind == KindExited && st.Exit != nil {
		return toExited(from, started, *st.Exit), nil
	}
	h, err := m.hosts.Adopt(ctx, c.made.Container)
	switch {
	case errors.Is(err, ErrNotFound):
		return toExited(from, started, m.unseen(c, st)), nil
	case err != nil:
		m.logOf(c).Error("a container's process does not answer", "error", err)
		return toLost(from, started, err), nil
	}
	select {
	case <-h.Done():
		x := h.Exit()
		if x.Reason == spec.ReasonUnknown && st.Boot != m.boot {
			x.Message = rebooted
		}
		m.logOf(c).Info("container exited while the daemon was down", "code", x.Code, "reason", string(x.Reason))
		return toExited(from, started, x), nil
	default:
	}
	created := toCreated(from, h)
	if h.Phase() == spec.PhaseReady || st.Kind == KindCreated {
		// The latter: a host that did not answer. It was not told to start,
		// for that would have been recorded first.
		return created, h
	}
	if started.IsZero() {
		started = unixTime(c.created)
	}
	running := toRunning(toStarting(created, h, started), h, started)
	if st.Kind == KindStopping {
		return toStopping(running, h, started), h
	}
	return running, h
}

// rebooted is what can be said of a container that the node's end took along.
const rebooted = "the node was restarted or lost power while the container existed; its exit code is not known"

// unseen is the end of a container of whose host there is no trace.
func (m *Manager) unseen(c *container, st containerState) spec.Exit {
	x := spec.Exit{Code: spec.CodeKilled, Reason: spec.ReasonUnknown, At: time.Now(), Message: "no trace of the container's process is left; its exit code is not known"}
	if st.Boot != m.boot {
		x.Message = rebooted
	}
	return x
}
