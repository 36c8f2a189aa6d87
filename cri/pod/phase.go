package pod

import (
	"time"

	"github.com/limpet-cri/limpet/shim/spec"
)

// Phase is where a container's life stands. Each phase is a type that holds
// what exists in it and nothing else: a host cannot be asked of a container
// that has none.
//
// A constructor toX takes the marker interface becomesX, which only the phases
// that may turn into X implement, so that an edge outside the graph does not
// compile. containerEdges is the same graph as a value.
type Phase interface {
	Kind() Kind
	phase()
}

// Kind is a phase without its data, as records and tables name it.
type Kind string

// The phases of a container.
const (
	KindPreparing Kind = "Preparing"
	KindCreated   Kind = "Created"
	KindStarting  Kind = "Starting"
	KindRunning   Kind = "Running"
	KindStopping  Kind = "Stopping"
	KindLost      Kind = "Lost"
	KindExited    Kind = "Exited"
	KindRemoved   Kind = "Removed"
)

// Preparing: the name and the folder exist; nothing is promised yet.
type Preparing struct{}

// Created: the host waits for the word to start.
type Created struct{ Host Host }

// Starting: the host has been told to start, or is about to be.
type Starting struct {
	Host    Host
	Started time.Time
}

// Running: the guest runs.
type Running struct {
	Host    Host
	Started time.Time
}

// Stopping: the guest has been sent its stop signal.
type Stopping struct {
	Host    Host
	Started time.Time
}

// Lost: after a restart of the daemon there is a process which does not
// answer. Started is zero if it is not known to have started.
type Lost struct {
	Started time.Time
	Why     error
}

// Exited: no process is left. Started is zero if the guest never ran.
type Exited struct {
	Started time.Time
	Exit    spec.Exit
}

// Removed: what is left on disk is going away.
type Removed struct{}

// Kind and phase make the types phases.
func (Preparing) Kind() Kind { return KindPreparing }
func (Created) Kind() Kind   { return KindCreated }
func (Starting) Kind() Kind  { return KindStarting }
func (Running) Kind() Kind   { return KindRunning }
func (Stopping) Kind() Kind  { return KindStopping }
func (Lost) Kind() Kind      { return KindLost }
func (Exited) Kind() Kind    { return KindExited }
func (Removed) Kind() Kind   { return KindRemoved }

func (Preparing) phase() {}
func (Created) phase()   {}
func (Starting) phase()  {}
func (Running) phase()   {}
func (Stopping) phase()  {}
func (Lost) phase()      {}
func (Exited) phase()    {}
func (Removed) phase()   {}

// The markers: who may turn into what.
type (
	becomesCreated  interface{ becomesCreated() }
	becomesStarting interface{ becomesStarting() }
	becomesRunning  interface{ becomesRunning() }
	becomesStopping interface{ becomesStopping() }
	becomesLost     interface{ becomesLost() }
	becomesExited   interface{ becomesExited() }
	becomesRemoved  interface{ becomesRemoved() }
)

func (Preparing) becomesCreated() {}

func (Created) becomesStarting() {}

func (Starting) becomesRunning() {}

func (Running) becomesStopping() {}

func (Preparing) becomesLost() {}

func (Preparing) becomesExited() {}
func (Created) becomesExited()   {}
func (Starting) becomesExited()  {}
func (Running) becomesExited()   {}
func (Stopping) becomesExited()  {}
func (Lost) becomesExited()      {}

func (Preparing) becomesRemoved() {}
func (Lost) becomesRemoved()      {}
func (Exited) becomesRemoved()    {}

func toCreated(_ becomesCreated, h Host) Created { return Created{Host: h} }

func toStarting(_ becomesStarting, h Host, at time.Time) Starting {
	return Starting{Host: h, Started: at}
}

func toRunning(_ becomesRunning, h Host, at time.Time) Running { return Running{Host: h, Started: at} }

func toStopping(_ becomesStopping, h Host, at time.Time) Stopping {
	return Stopping{Host: h, Started: at}
}

func toLost(_ becomesLost, started time.Time, why error) Lost {
	return Lost{Started: started, Why: why}
}

func toExited(_ becomesExited, started time.Time, x spec.Exit) Exited {
	return Exited{Started: started, Exit: x}
}

func toRemoved(becomesRemoved) Removed { return Removed{} }

// hostOf returns the host of a phase that has one.
func hostOf(p Phase) (Host, bool) {
	switch p := p.(type) {
	case Created:
		return p.Host, true
	case Starting:
		return p.Host, true
	case Running:
		return p.Host, true
	case Stopping:
		return p.Host, true
	case Preparing, Lost, Exited, Removed:
	}
	return nil, false
}

// startedAt returns when the guest started, or zero.
func startedAt(p Phase) time.Time {
	switch p := p.(type) {
	case Starting:
		return p.Started
	case Running:
		return p.Started
	case Stopping:
		return p.Started
	case Lost:
		return p.Started
	case Exited:
		return p.Started
	case Preparing, Created, Removed:
	}
	return time.Time{}
}
