package host

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/logs"
	"github.com/limpet-cri/limpet/shim/spec"
	"github.com/limpet-cri/limpet/wasm"
	"github.com/limpet-cri/limpet/wasm/wasmtime"
)

const (
	// messageLines bounds the lines of a backtrace in a container's message:
	// the trap, the heading, and the innermost frames. The log has them all.
	messageLines = 8
	// maxMessageLine bounds one of them, in bytes.
	maxMessageLine = 256
	// flushBound is how long an end that was asked for waits for a write to
	// the log that is under way.
	flushBound = 20 * time.Millisecond
)

// guest instantiates the module and runs it to its end.
func (h *host) guest(c *control) {
	instance, err := h.store()
	if err == nil {
		err = instance.Instantiate()
	}
	var engine *wasmtime.Error
	if errors.As(err, &engine) {
		c.started(err)
	} else {
		// The module's start function may have ended it; it did run.
		c.started(nil)
	}
	if err == nil {
		err = instance.Call(entry)
	}
	h.end(h.outcome(err))
}

// store makes the guest's store under the bound of memory as it is now, and
// lets bound reach it.
func (h *host) store() (*wasmtime.Instance, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i, err := h.linked.Store(wasm.Limits{Memory: h.p.MemoryLimit, TableElements: maxTableElements})
	h.instance = i
	return i, err
}

// bound changes the bound of the guest's memory, whether it runs or not. The
// guest itself never waits for the lock: growth reads the bound in its store.
func (h *host) bound(bytes uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.p.MemoryLimit = bytes
	if h.instance != nil {
		h.instance.BoundMemory(bytes)
	}
}

// outcome says what the end of the guest means for the container.
func (h *host) outcome(err error) spec.Exit {
	var exit *wasm.Exit
	var trap *wasm.Trap
	switch {
	case err == nil:
		return spec.Exit{Reason: spec.ReasonCompleted}
	case errors.As(err, &exit):
		x := spec.Exit{Code: int32(exit.Code & 0xff), Reason: spec.ReasonError}
		if x.Code == 0 {
			x.Reason = spec.ReasonCompleted
		}
		return x
	case errors.As(err, &trap):
		text := wasmtime.Backtrace(h.name(), trap)
		h.complain(text)
		return spec.Exit{Code: spec.CodeTrap, Reason: spec.ReasonTrap, Message: shorten(text)}
	}
	h.complain(err.Error())
	return spec.Exit{Code: spec.CodeHostFailed, Reason: spec.ReasonHostFailed, Message: h.name() + " cannot run: " + err.Error()}
}

// complain writes lines of ours to the guest's stderr in the log.
func (h *host) complain(text string) {
	h.log.Flush() // lines that the guest left unfinished come first
	_, _ = h.log.Stream(logs.Stderr).Write([]byte(text + "\n"))
}

// shorten keeps the first lines of a backtrace.
func shorten(text string) string {
	var b strings.Builder
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		if n == messageLines {
			b.WriteString("\n  ... (all frames are in the log)")
			break
		}
		if n > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(strings.ToValidUTF8(line[:min(len(line), maxMessageLine)], "")) // the cut may be inside of a character
		n++
	}
	return b.String()
}

// stop does what the stop signal means for this container.
func (h *host) stop(sig uint8) {
	running := spec.Phase(h.phase.Load()) == spec.PhaseRunning
	switch {
	case h.p.OnStop == spec.OnStopKill:
		h.end(spec.Exit{Code: spec.CodeKilled, Reason: spec.ReasonKilled, Message: "ended at once when it was to stop, as its on-stop annotation says"})
	case running && h.p.OnStop == spec.OnStopWait:
	case running && h.p.OnStop == spec.OnStopCloseStdin:
		h.sys.CloseStdin()
	case running && len(h.p.Listen) > 0:
		h.sys.StopListening()
	default:
		h.end(spec.Exit{
			Code: (spec.CodeSignalBase + int32(sig)) & 0xff, Reason: spec.ReasonStopped,
			Message: "ended for the stop signal, " + strconv.Itoa(int(sig)) + " (" + unix.SignalName(unix.Signal(sig)) + ")",
		})
	}
}

// end writes what is left of the log and the exit record, and leaves the
// process. Only the first caller does; others wait for the process's end.
func (h *host) end(x spec.Exit) {
	if !h.ending.CompareAndSwap(false, true) {
		select {}
	}
	h.phase.Store(uint32(spec.PhaseEnding))
	// The guest's thread may be in a write to a disk that hangs.
	for deadline := time.Now().Add(flushBound); !h.log.TryFlush() && time.Now().Before(deadline); {
		time.Sleep(flushBound / 100)
	}
	x.At = time.Now()
	if _, err := unix.Write(spec.FDExit, x.Encode()); err != nil {
		say(2, "limpet-host: exit record: "+err.Error()+"; it ended with "+strconv.Itoa(int(x.Code))+", "+string(x.Reason)+": "+x.Message+"\n")
	}
	unix.Exit(int(x.Code))
}
