package pod

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/shim/record"
	"github.com/limpet-cri/limpet/shim/spec"
)

// Names in an object's folder; those of a host are in shim/spec.
const (
	fileRecord     = "record"
	fileState      = "state"
	fileHostname   = "hostname"
	fileHosts      = "hosts"
	fileResolvConf = "resolv.conf"
	dirUpper       = "upper"
	dirWork        = "work"
)

// Folders of objects.
const (
	dirSandboxes  = "sandboxes"
	dirContainers = "containers"
	dirSockets    = "c"
	dirLayers     = "layers" // writable layers of containers
)

// The records of this package.
var (
	sandboxRecord   = record.Kind{Magic: [4]byte{'L', 'M', 'S', 'R'}, Version: 1}
	sandboxStates   = record.Kind{Magic: [4]byte{'L', 'M', 'S', 'S'}, Version: 1}
	containerRecord = record.Kind{Magic: [4]byte{'L', 'M', 'C', 'R'}, Version: 1}
	containerStates = record.Kind{Magic: [4]byte{'L', 'M', 'C', 'S'}, Version: 1}
)

// identity is what a sandbox or container was asked to be. Config is the
// message of the request in its wire form: fields of a newer CRI and bytes
// that are no text survive.
type identity struct {
	ID      string
	Sandbox string `json:",omitempty"` // of a container
	Handler string `json:",omitempty"` // of a sandbox
	// Cgroup is a container's group, so that it can be removed even if nothing
	// else can be read.
	Cgroup  string `json:",omitempty"`
	Boot    string
	Created int64
	Config  []byte
}

// sandboxState is where a sandbox's life stands.
type sandboxState struct {
	Boot  string
	Kind  Kind
	Netns string `json:",omitempty"`
}

// containerState is where a container's life stands.
type containerState struct {
	Boot    string
	Kind    Kind
	Started int64      `json:",omitempty"` // zero: never
	Exit    *spec.Exit `json:",omitempty"`
	Made    *made      `json:",omitempty"`
}

// made is what CreateContainer found and built.
type made struct {
	ImageID, ImageRef string
	StopSignal        int
	User              user
	// Resources are the limits as last asked for, in the wire form of CRI.
	Resources []byte
	Container *spec.Container
	Writable  bool // there is an upper folder to measure
}

// user is who the guest runs as.
type user struct {
	UID, GID int64
	Groups   []int64
}

// What is told of a pod is of this boot only, and lies below Config.Run, which
// on a node is memory: nothing of it runs after another boot. What a container
// writes into its root may be large, and lies below Config.Root.
func (m *Manager) sandboxDir(id string) string   { return filepath.Join(m.cfg.Run, dirSandboxes, id) }
func (m *Manager) containerDir(id string) string { return filepath.Join(m.cfg.Run, dirContainers, id) }
func (m *Manager) layerDir(id string) string     { return filepath.Join(m.cfg.Root, dirLayers, id) }

// socketName is how much of an id names a control socket: 128 bits are as
// unique as the whole, and a socket's path has only 107 bytes.
const socketName = 32

func (m *Manager) socket(id string) string {
	return filepath.Join(m.cfg.Run, dirSockets, id[:min(len(id), socketName)]+".sock")
}

// newID returns 64 hexadecimal digits, as other runtimes give them.
func newID() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// isID reports whether a folder's name can be one of ours.
func isID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32
}

// writeIdentity makes an object's folder with its identity in it. It is not
// flushed: after a power loss nothing of it runs, and a record that was lost
// makes its folder a stray.
func writeIdentity(dir string, k record.Kind, id identity, config proto.Message) error {
	b, err := proto.Marshal(config)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	id.Config = b
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o711); err != nil {
		return err
	}
	return record.Write(filepath.Join(dir, fileRecord), k, id, record.Killed)
}

// saveSandbox writes where a sandbox stands.
func (m *Manager) saveSandbox(s *sandbox, p SandboxPhase) error {
	st := sandboxState{Boot: m.boot, Kind: p.Kind()}
	if ready, ok := p.(SandboxReady); ok {
		st.Netns = ready.Netns
	}
	return record.Write(filepath.Join(m.sandboxDir(s.id), fileState), sandboxStates, st, record.Killed)
}

// saveContainer writes where a container stands.
func (m *Manager) saveContainer(c *container, p Phase, md *made) error {
	st := containerState{Boot: m.boot, Kind: p.Kind(), Made: md}
	if at := startedAt(p); !at.IsZero() {
		st.Started = at.UnixNano()
	}
	if x, ok := p.(Exited); ok {
		st.Exit = &x.Exit
	}
	return record.Write(filepath.Join(m.containerDir(c.id), fileState), containerStates, st, record.Killed)
}

// resources returns the limits as last asked for.
func (md *made) resources() *runtime.LinuxContainerResources {
	r := &runtime.LinuxContainerResources{}
	if err := proto.Unmarshal(md.Resources, r); err != nil {
		return nil // written by saveContainer under a checksum
	}
	return r
}

// unixTime is a time from a record.
func unixTime(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos)
}

// bootID returns what the kernel calls this boot.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
