package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Errors of this package.
var (
	// ErrUnsupported is returned by Detect when neither version offers what
	// containers need, and for a limit that the node cannot enforce.
	ErrUnsupported = errors.New("cgroup: not supported on this node")
	// ErrNotFound is returned for a group that does not exist (any more).
	ErrNotFound = errors.New("cgroup: no such group")
	// ErrPath is returned for a path that would leave the hierarchy.
	ErrPath = errors.New("cgroup: bad path")
	// ErrLimit is returned for a limit that the kernel refuses.
	ErrLimit = errors.New("cgroup: limit refused")
	// ErrBusy is returned by Remove when processes do not go away in time.
	ErrBusy = errors.New("cgroup: still in use")
)

// Bounds.
const (
	maxFile  = 1 << 20 // bytes read of a control file
	maxPath  = 1024    // bytes of a group's path
	maxPids  = 1 << 16 // processes listed of a group
	maxDepth = 8       // folders below a group that Remove and Kill walk
)

// leaf is the group below a container's group on version 2 in which the guest
// lives: a group with children may hold no processes there, and a container
// may get more of them than its guest.
const leaf = "guest"

// Hierarchy is the node's cgroup file system.
type Hierarchy struct {
	root string
	v2   bool
	// dirs maps a version 1 controller to its mount point; controllers that
	// are mounted together share one.
	dirs map[string]string
	// swap is true when memory and swap can be limited together.
	swap bool
	// missing names what containers would use and the node lacks.
	missing []string

	// mu orders who raises a pod's CPU quota and who lowers it again.
	mu sync.Mutex
}

// Version returns 1 or 2.
func (h *Hierarchy) Version() int {
	if h.v2 {
		return 2
	}
	return 1
}

// Missing names what the node lacks of what containers can use, for the log;
// limits that need it are refused.
func (h *Hierarchy) Missing() []string { return h.missing }

// Group is one container's group.
type Group struct {
	h    *Hierarchy
	path string
}

// Path returns the path that the group was made with.
func (g *Group) Path() string { return g.path }

// Stats is what a group used, as of At. What the node cannot tell is zero.
type Stats struct {
	At time.Time
	// MemoryUsage counts everything charged, MemoryWorkingSet what the kernel
	// cannot easily take back (usage less inactive file pages), MemoryRSS
	// anonymous memory, MemoryLimit the limit in force (0: none).
	MemoryUsage, MemoryWorkingSet, MemoryRSS, MemoryLimit uint64
	PageFaults, MajorPageFaults                           uint64
	SwapUsage                                             uint64
	CPUNanoseconds                                        uint64
	Pids                                                  uint64
}

// Open returns the group at path without touching it.
func (h *Hierarchy) Open(path string) *Group { return &Group{h: h, path: clean(path)} }

// Create makes the group at path and sets its limits; a group that exists
// keeps what r does not name. What was made is removed again when a limit is
// refused.
func (h *Hierarchy) Create(path string, r *specs.LinuxResources) (*Group, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	g := h.Open(path)
	made, err := g.mkdirs()
	if err == nil {
		err = g.Update(r)
	}
	if err != nil {
		for _, dir := range made {
			_ = os.Remove(dir) // the folders are empty: nothing was started yet
		}
		return nil, fmt.Errorf("create cgroup %s: %w", g.path, err)
	}
	return g, nil
}

func clean(path string) string { return filepath.Clean("/" + path) }

// checkPath refuses what Clean would silently change the meaning of.
func checkPath(path string) error {
	if path == "" || len(path) > maxPath || strings.IndexByte(path, 0) >= 0 || clean(path) == "/" {
		return fmt.Errorf("%w: %q", ErrPath, path)
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == ".." || part == "." {
			return fmt.Errorf("%w: %q holds %q", ErrPath, path, part)
		}
		if strings.Contains(part, ".slice:") {
			return fmt.Errorf("%w: %q is written as the systemd driver does, and this is the cgroupfs driver: set cgroupDriver: cgroupfs in the kubelet's configuration", ErrPath, path)
		}
	}
	return nil
}
