package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/spec"
)

// watch waits for the host's end and tells it. It runs in a goroutine of its
// own, which holds no thread while it waits.
func (h *Host) watch() {
	defer h.pidfd.Close()
	if err := awaitEnd(h.pidfd); err != nil {
		if !errors.Is(err, os.ErrDeadlineExceeded) { // that is Close
			h.s.log.Error("host is not watched any more", "container", h.id, "host", h.pid, "error", err)
		}
		h.dropReady()
		return
	}
	h.exit = h.tell()
	h.restore()
	h.dropReady()
	h.s.forget(h)
	close(h.done)
}

// wake ends the watching without an end of the host.
func (h *Host) wake() { _ = h.pidfd.SetReadDeadline(time.Unix(1, 0)) }

func (h *Host) dropReady() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ready != nil {
		h.ready.close()
		h.ready = nil
	}
}

// tell derives how a host that is dead has ended.
func (h *Host) tell() spec.Exit {
	status, known := reap(h.pidfd)
	if x, ok := recorded(h.dir); ok {
		return x
	}
	if x, ok := h.outOfMemory(); ok {
		return x
	}
	h.mu.Lock()
	killed := h.killed
	h.mu.Unlock()
	if !known && !killed {
		status, known = h.askKernel()
	}
	switch {
	case known:
		return fromStatus(status, h.dir)
	case killed:
		return killedExit()
	}
	return unknownExit(h.dir)
}

// recorded reads the host's own record, if it is whole.
func recorded(dir string) (spec.Exit, bool) {
	b, err := readHead(dir, spec.FileExit, 2*spec.MaxMessage)
	if err != nil {
		return spec.Exit{}, false
	}
	x, err := spec.DecodeExit(b)
	if err != nil {
		return spec.Exit{}, false
	}
	return *x, true
}

func (h *Host) outOfMemory() (spec.Exit, bool) {
	if h.group == nil {
		return spec.Exit{}, false
	}
	if n, err := h.group.OOMKills(); err != nil || n == 0 {
		return spec.Exit{}, false
	}
	return spec.Exit{
		Code: spec.CodeKilled, Reason: spec.ReasonOOMKilled, At: time.Now(),
		Message: "the container's processes together outgrew its memory limit and were ended by the kernel",
	}, true
}

func killedExit() spec.Exit {
	return spec.Exit{Code: spec.CodeKilled, Reason: spec.ReasonKilled, At: time.Now(), Message: "the host was ended by signal 9 (SIGKILL)"}
}

// fromStatus reads a wait status of a host that left no record.
func fromStatus(ws unix.WaitStatus, dir string) spec.Exit {
	x := spec.Exit{Code: spec.CodeHostFailed, Reason: spec.ReasonHostFailed, At: time.Now()}
	switch {
	case ws.Signaled() && ws.Signal() == unix.SIGKILL:
		return killedExit()
	case ws.Signaled():
		sig := ws.Signal()
		x.Code = spec.CodeSignalBase + int32(sig)
		x.Message = fmt.Sprintf("the host was ended by signal %d (%s)", int(sig), unix.SignalName(sig))
		if sig == unix.SIGSYS {
			x.Message += ": it made a system call that its filter forbids"
		}
	default:
		x.Message = fmt.Sprintf("the host ended with status %d and without a record", ws.ExitStatus())
	}
	if said := diagnostics(dir); said != "" {
		x.Message += "; it said: " + said
	}
	return x
}

// unknownExit is for a host whose end nobody saw.
func unknownExit(dir string) spec.Exit {
	x := spec.Exit{
		Code: spec.CodeKilled, Reason: spec.ReasonUnknown, At: time.Now(),
		Message: "the host ended while nothing watched it and left no record: it was killed, or the node went down; its exit code is not known",
	}
	if said := diagnostics(dir); said != "" {
		x.Message += "; it said: " + said
	}
	return x
}

// failed ends a host that did not become ready, and returns why it did not.
func (s *Supervisor) failed(h *Host, cause error) error {
	h.dropReady()
	_ = signalPidfd(h.pidfd, unix.SIGKILL) // it may be dead already
	_ = h.pidfd.SetReadDeadline(time.Now().Add(removeTimeout))
	defer h.pidfd.Close()
	if err := awaitEnd(h.pidfd); err != nil {
		return errors.Join(cause, fmt.Errorf("host %d does not end: %w", h.pid, err))
	}
	x := h.tell()
	if !errors.Is(cause, io.EOF) {
		return cause
	}
	return fmt.Errorf("%w: %s", ErrHostFailed, x.Message)
}

// askKernel asks what the kernel keeps of a process that somebody else reaps
// (6.15). It keeps it from the moment of the reaping, which init may put off.
func (h *Host) askKernel() (unix.WaitStatus, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), reapTimeout)
	defer cancel()
	tick := time.NewTicker(reapTimeout / 100)
	defer tick.Stop()
	for {
		ws, ok, err := exitInfo(h.pidfd)
		if ok {
			return ws, true
		}
		if err != nil {
			return 0, false
		}
		select {
		case <-ctx.Done():
			return 0, false
		case <-h.s.closing:
			return 0, false
		case <-tick.C:
		}
	}
}
