package pod

import "fmt"

// Event is what happens to a container or a sandbox.
type Event string

// The events of a container.
const (
	EventReady   Event = "ready"   // its host waits
	EventStart   Event = "start"   // StartContainer
	EventStarted Event = "started" // the host runs the guest
	EventStop    Event = "stop"    // StopContainer
	EventLose    Event = "lose"    // found after a restart, does not answer
	EventExit    Event = "exit"    // the process is gone
	EventRemove  Event = "remove"  // RemoveContainer, or undone
)

// The events of a sandbox.
const (
	EventSandboxReady  Event = "ready"  // set up
	EventSandboxStop   Event = "stop"   // StopPodSandbox, or its ground is gone
	EventSandboxRemove Event = "remove" // RemovePodSandbox, or undone
)

// outcome is what an event does in a phase: an edge to another one, nothing
// (stays), or a refusal.
type outcome struct {
	to    Kind
	stays bool
	err   error
}

func edge(k Kind) outcome         { return outcome{to: k} }
func stays() outcome              { return outcome{stays: true} }
func refuse(reason error) outcome { return outcome{err: reason} }

// graph is every phase with every event.
type graph map[Kind]map[Event]outcome

// containerEdges is the life of a container. Stopping a created container ends
// it without a phase between, as no guest is there to hear a signal.
func containerEdges() graph {
	no := refuse(ErrBadPhase)
	gone := refuse(ErrNotFound)
	return graph{
		KindPreparing: {
			EventReady: edge(KindCreated), EventStart: gone, EventStarted: no, EventStop: gone,
			EventLose: edge(KindLost), EventExit: edge(KindExited), EventRemove: edge(KindRemoved),
		},
		KindCreated: {
			EventReady: no, EventStart: edge(KindStarting), EventStarted: no, EventStop: stays(),
			EventLose: no, EventExit: edge(KindExited), EventRemove: no,
		},
		KindStarting: {
			EventReady: no, EventStart: no, EventStarted: edge(KindRunning), EventStop: no,
			EventLose: no, EventExit: edge(KindExited), EventRemove: no,
		},
		KindRunning: {
			EventReady: no, EventStart: no, EventStarted: no, EventStop: edge(KindStopping),
			EventLose: no, EventExit: edge(KindExited), EventRemove: no,
		},
		KindStopping: {
			EventReady: no, EventStart: no, EventStarted: no, EventStop: stays(),
			EventLose: no, EventExit: edge(KindExited), EventRemove: no,
		},
		KindLost: {
			EventReady: no, EventStart: no, EventStarted: no, EventStop: stays(),
			EventLose: no, EventExit: edge(KindExited), EventRemove: edge(KindRemoved),
		},
		KindExited: {
			EventReady: no, EventStart: no, EventStarted: no, EventStop: stays(),
			EventLose: no, EventExit: stays(), EventRemove: edge(KindRemoved),
		},
		KindRemoved: {
			EventReady: no, EventStart: gone, EventStarted: no, EventStop: stays(),
			EventLose: no, EventExit: stays(), EventRemove: stays(),
		},
	}
}

// sandboxEdges is the life of a sandbox.
func sandboxEdges() graph {
	no := refuse(ErrBadPhase)
	return graph{
		KindSandboxPreparing: {
			EventSandboxReady: edge(KindSandboxReady), EventSandboxStop: edge(KindSandboxNotReady), EventSandboxRemove: edge(KindSandboxRemoved),
		},
		KindSandboxReady: {
			EventSandboxReady: no, EventSandboxStop: edge(KindSandboxNotReady), EventSandboxRemove: no,
		},
		KindSandboxNotReady: {
			EventSandboxReady: no, EventSandboxStop: stays(), EventSandboxRemove: edge(KindSandboxRemoved),
		},
		KindSandboxRemoved: {
			EventSandboxReady: no, EventSandboxStop: stays(), EventSandboxRemove: stays(),
		},
	}
}

// apply tells where an event leads from a phase. Staying is from itself.
func (g graph) apply(from Kind, e Event) (Kind, error) {
	o, ok := g[from][e]
	switch {
	case !ok:
		return from, fmt.Errorf("%w: %s has no event %q", ErrBadPhase, from, e)
	case o.err != nil:
		return from, fmt.Errorf("%w: it is %s, which does not allow to %s", o.err, from, e)
	case o.stays:
		return from, nil
	}
	return o.to, nil
}

// joins reports whether the graph has an edge.
func (g graph) joins(from, to Kind) bool {
	for _, o := range g[from] {
		if o.to == to {
			return true
		}
	}
	return false
}
