// Package pod owns the PodSandboxes and Containers of a node: what exists, in
// which phase, under which name; how they are made and unmade; what is on disk
// about them; and how they are found again when the daemon starts.
//
// It takes and returns the messages of CRI and knows no gRPC. It starts no
// process itself (shim does), pulls nothing (image does) and makes no namespace
// (cri/network does). Every message it returns may be shared with other
// callers and must not be changed.
//
// # On disk
//
// Run/sandboxes/ID and Run/containers/ID hold an object's folder each. In it,
// "record" is the identity: written before anything is made, never changed;
// "state" is where its life stands: written before and after each act. Both
// outlive the daemon and not the machine, with which the processes end too, so
// nothing is flushed. A folder without an identity, an identity without a
// state, and a state that says Removed are unfinished business, which Recover
// ends by the functions that serve requests. Root/layers/ID holds what a
// container may write to its image's file system.
//
// # Locks
//
// Each sandbox and each container has a turn, which one operation at a time
// holds over its acts, files and processes included; whoever waits for one
// gives up when its context ends. A sandbox's turn is shared by those who only
// need it to stay as it is (create and start of its containers). Order: the
// sandbox's turn, then a container's turn, then index.mu, then bus.mu. The last
// two guard memory and are never held over anything that can wait. Nobody
// waits for a container to end while holding its turn, since the end has to be
// recorded under it.
package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/limpet-cri/limpet/image"
	"github.com/limpet-cri/limpet/shim"
	"github.com/limpet-cri/limpet/shim/cgroup"
	"github.com/limpet-cri/limpet/shim/spec"
)

// The promises of this package that callers act on.
var (
	// ErrNotFound: no sandbox or container has that id.
	ErrNotFound = errors.New("not found")
	// ErrAmbiguous: a shortened id fits several.
	ErrAmbiguous = errors.New("ambiguous id")
	// ErrInvalid: the request contradicts itself or lacks something.
	ErrInvalid = errors.New("invalid request")
	// ErrRefused: the request asks for something that is not offered; the
	// *FieldError in the chain names it.
	ErrRefused = errors.New("refused")
	// ErrNameInUse: another object has the same name and attempt.
	ErrNameInUse = errors.New("name is in use")
	// ErrBadPhase: the object exists, but its phase does not allow the act.
	ErrBadPhase = errors.New("wrong phase")
	// ErrUnknownHandler: no profile is configured for the runtime handler.
	ErrUnknownHandler = errors.New("unknown runtime handler")
	// ErrStillRunning: a container did not end although it was killed.
	ErrStillRunning = errors.New("container does not end")
	// ErrSlow: a subscriber of events did not keep up and was dropped.
	ErrSlow = errors.New("subscriber too slow")
	// ErrClosed: the manager is ending.
	ErrClosed = errors.New("pod manager is closed")
)

// Bounds that are not configurable.
const (
	// killBound is how long a killed container may take to be gone. The
	// kernel ends a process within milliseconds unless it hangs in it.
	killBound = 10 * time.Second
	// undoBound bounds what a failed request and recovery undo.
	undoBound = 30 * time.Second
	// recoverParallel is how many objects Recover works on at once.
	recoverParallel = 16
	// eventBuffer is how many events a subscriber may lag behind.
	eventBuffer = 1024
	// maxMounts is what a confined process can be given, less the three files
	// of the sandbox.
	maxMounts = 1000
	// maxListen bounds the listening sockets of a container.
	maxListen = 16
)

// Images is what this package needs of image.Service.
type Images interface {
	Status(ref string) (image.Image, bool, error)
	Prepare(ctx context.Context, ref, containerID, argv0 string, proposals []string) (*image.Prepared, error)
	Release(ctx context.Context, containerID string) error
	Leased(ctx context.Context) ([]string, error)
}

// Networks is what this package needs of network.Namespaces.
type Networks interface {
	Create(ctx context.Context, id string) (string, error)
	Remove(ctx context.Context, id string) error
	List() ([]string, error)
}

// Hosts is what this package needs of shim.Supervisor; see Supervised.
type Hosts interface {
	Create(ctx context.Context, c *spec.Container, root *os.File) (Host, error)
	// Adopt returns ErrNotFound when c never had a host.
	Adopt(ctx context.Context, c *spec.Container) (Host, error)
	// End ends the host of c and keeps what tells of it.
	End(ctx context.Context, c *spec.Container) error
	Remove(ctx context.Context, c *spec.Container) error
}

// Host is what this package needs of a shim.Host.
type Host interface {
	Start(ctx context.Context) error
	Stop(ctx context.Context, sig syscall.Signal) error
	Kill() error
	ReopenLog(ctx context.Context) error
	Resize(ctx context.Context, r *specs.LinuxResources, b shim.Bound) error
	SetOOMScoreAdj(n int) error
	Stats() (cgroup.Stats, error)
	Phase() spec.Phase
	Done() <-chan struct{}
	// Exit tells how it ended, once Done is closed.
	Exit() spec.Exit
	PID() int
}

// FieldError names a field of the request that is refused, says what is in it,
// if that is worth saying, and why.
type FieldError struct {
	Field, Found, Sentence string
}

func (e *FieldError) Error() string {
	if e.Found == "" {
		return fmt.Sprintf("%s is refused: %s", e.Field, e.Sentence)
	}
	return fmt.Sprintf("%s (%s) is refused: %s", e.Field, e.Found, e.Sentence)
}

// Is makes the error an ErrRefused.
func (e *FieldError) Is(target error) bool { return target == ErrRefused }

// invalid makes an ErrInvalid.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
