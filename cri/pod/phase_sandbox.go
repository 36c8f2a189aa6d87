package pod

// SandboxPhase is where a PodSandbox's life stands; see Phase.
type SandboxPhase interface {
	Kind() Kind
	sandboxPhase()
}

// The phases of a sandbox.
const (
	KindSandboxPreparing Kind = "SandboxPreparing"
	KindSandboxReady     Kind = "SandboxReady"
	KindSandboxNotReady  Kind = "SandboxNotReady"
	KindSandboxRemoved   Kind = "SandboxRemoved"
)

// SandboxPreparing: the name and the folder exist; nothing is promised yet.
type SandboxPreparing struct{}

// SandboxReady: containers can be created.
type SandboxReady struct {
	// Netns is the pinned network namespace; empty with the node's network.
	Netns string
}

// SandboxNotReady: stopped, or what it stood on is gone.
type SandboxNotReady struct{}

// SandboxRemoved: what is left on disk is going away.
type SandboxRemoved struct{}

// Kind and sandboxPhase make the types phases.
func (SandboxPreparing) Kind() Kind { return KindSandboxPreparing }
func (SandboxReady) Kind() Kind     { return KindSandboxReady }
func (SandboxNotReady) Kind() Kind  { return KindSandboxNotReady }
func (SandboxRemoved) Kind() Kind   { return KindSandboxRemoved }

func (SandboxPreparing) sandboxPhase() {}
func (SandboxReady) sandboxPhase()     {}
func (SandboxNotReady) sandboxPhase()  {}
func (SandboxRemoved) sandboxPhase()   {}

type (
	becomesSandboxReady    interface{ becomesSandboxReady() }
	becomesSandboxNotReady interface{ becomesSandboxNotReady() }
	becomesSandboxRemoved  interface{ becomesSandboxRemoved() }
)

func (SandboxPreparing) becomesSandboxReady() {}

func (SandboxPreparing) becomesSandboxNotReady() {}
func (SandboxReady) becomesSandboxNotReady()     {}

func (SandboxPreparing) becomesSandboxRemoved() {}
func (SandboxNotReady) becomesSandboxRemoved()  {}

func toSandboxReady(_ becomesSandboxReady, netns string) SandboxReady {
	return SandboxReady{Netns: netns}
}

func toSandboxNotReady(becomesSandboxNotReady) SandboxNotReady { return SandboxNotReady{} }

func toSandboxRemoved(becomesSandboxRemoved) SandboxRemoved { return SandboxRemoved{} }
