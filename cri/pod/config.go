package pod

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/limpet-cri/limpet/shim/spec"
)

// Config of the manager.
type Config struct {
	// Root keeps what may be large (writable layers); Run what the daemon must
	// find again after its own end and not after another boot: the records of
	// sandboxes and containers, the files of hosts, control sockets. Run
	// belongs on a tmpfs, where each of the many small files costs a tenth of
	// what it costs on a disk.
	Root, Run string
	// Handlers are the profiles by runtime handler; DefaultHandler is the one
	// that the empty handler means.
	Handlers       map[string]Profile
	DefaultHandler string
	// ResolvConf is the node's resolver configuration, copied for a sandbox
	// that brings none.
	ResolvConf string
	// Checkpoint, if not nil, is called between every two steps of an
	// operation with the step's name. Tests end the process in it.
	Checkpoint func(step string)
}

// Profile is what the node's owner grants to the pods of a handler. A pod can
// ask for less, never for more.
type Profile struct {
	// MemoryDefault bounds a container that asks for no limit, in bytes; zero
	// leaves it unbounded but for MemoryMax. A container that asks for more
	// than MemoryMax is refused; zero means no maximum.
	MemoryDefault, MemoryMax uint64
	// PidsLimit bounds the threads of a container's host; zero means no limit.
	PidsLimit int64
	// RootSize bounds the memory-backed root of a container whose image has
	// no file system, in bytes.
	RootSize uint64
	// Proposals are the Wasm proposals beyond the default set.
	Proposals []string
	// AllowRoot lets a container run as user or group 0 (without capabilities).
	AllowRoot bool
	// AllowHostListen lets a container of a pod with the node's network have
	// listening sockets.
	AllowHostListen bool
}

// Defaults of a profile.
const (
	// DefaultPidsLimit: an idle host has 5 threads; a thread per blocking
	// call of the guest comes on top.
	DefaultPidsLimit = 256
	// DefaultRootSize is room for temporary files, paid by the container's
	// own memory limit when used.
	DefaultRootSize = 64 << 20
)

// DefaultProfile is the profile of the handlers that exist by default.
func DefaultProfile() Profile {
	return Profile{PidsLimit: DefaultPidsLimit, RootSize: DefaultRootSize, AllowRoot: true}
}

// DefaultConfig has the handlers limpet, wasm and wasmtime, all alike.
func DefaultConfig() Config {
	c := Config{
		Root: "/var/lib/limpet", Run: "/run/limpet", ResolvConf: "/etc/resolv.conf",
		Handlers: map[string]Profile{}, DefaultHandler: "limpet",
	}
	for _, h := range []string{"limpet", "wasm", "wasmtime"} {
		c.Handlers[h] = DefaultProfile()
	}
	return c
}

// maxSocketDir keeps Run/c/ID.sock within the 107 bytes of a socket's path.
const maxSocketDir = 107 - len("/c/") - socketName - len(".sock")

// folders are where the manager keeps things.
func (c Config) folders() []string {
	return []string{
		filepath.Join(c.Run, dirSandboxes), filepath.Join(c.Run, dirContainers), filepath.Join(c.Run, dirSockets),
		filepath.Join(c.Root, dirLayers),
	}
}

// Validate says what is wrong with the configuration.
func (c Config) Validate() error {
	for _, p := range []struct{ name, path string }{{"root", c.Root}, {"run", c.Run}} {
		if !filepath.IsAbs(p.path) {
			return fmt.Errorf("pods: %s %q is not an absolute path", p.name, p.path)
		}
	}
	if len(c.Run) > maxSocketDir {
		return fmt.Errorf("pods: run %q is %d bytes long; at most %d fit before the name of a control socket", c.Run, len(c.Run), maxSocketDir)
	}
	if c.ResolvConf != "" && !filepath.IsAbs(c.ResolvConf) {
		return fmt.Errorf("pods: resolv_conf %q is not an absolute path", c.ResolvConf)
	}
	if len(c.Handlers) == 0 {
		return fmt.Errorf("pods: no handler is configured; name at least one, such as limpet")
	}
	if _, ok := c.Handlers[c.DefaultHandler]; !ok {
		return fmt.Errorf("pods: the default handler %q is not among the handlers %s", c.DefaultHandler, c.known())
	}
	for _, name := range slices.Sorted(maps.Keys(c.Handlers)) {
		if !isLabel(name) {
			return fmt.Errorf("pods: handlers: %q is no name that a RuntimeClass can have as its handler; use at most %d lower-case letters, digits and dashes, no dash at either end", name, maxHandler)
		}
		if err := c.Handlers[name].Validate(); err != nil {
			return fmt.Errorf("pods: handler %q: %w", name, err)
		}
	}
	return nil
}

// maxHandler is the length of a DNS label, which the API server wants of a
// RuntimeClass's handler.
const maxHandler = 63

func isLabel(s string) bool {
	other := strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' })
	return s != "" && len(s) <= maxHandler && !other && s[0] != '-' && s[len(s)-1] != '-'
}

// Validate says what is wrong with the profile.
func (p Profile) Validate() error {
	for _, m := range []struct {
		name string
		v    uint64
	}{{"memory_default", p.MemoryDefault}, {"memory_max", p.MemoryMax}} {
		if m.v != 0 && m.v < MinMemory {
			return fmt.Errorf("%s is %d bytes; a container needs at least %d", m.name, m.v, MinMemory)
		}
	}
	if p.MemoryMax != 0 && p.MemoryDefault > p.MemoryMax {
		return fmt.Errorf("memory_default %d is above memory_max %d", p.MemoryDefault, p.MemoryMax)
	}
	if p.PidsLimit != 0 && p.PidsLimit < minPids {
		return fmt.Errorf("pids_limit is %d; a host needs at least %d threads", p.PidsLimit, minPids)
	}
	if p.PidsLimit > maxPids {
		return fmt.Errorf("pids_limit is %d; the kernel counts up to %d: 0 leaves a container unbounded", p.PidsLimit, int64(maxPids))
	}
	for _, name := range p.Proposals {
		if !slices.Contains(spec.Proposals(), name) {
			return fmt.Errorf("proposals has %q; known beyond what is always on are %s", name, strings.Join(spec.Proposals(), ", "))
		}
	}
	return nil
}

// profile returns the profile of a handler as a request names it.
func (c Config) profile(handler string) (Profile, error) {
	name := handler
	if name == "" {
		name = c.DefaultHandler
	}
	p, ok := c.Handlers[name]
	if !ok {
		return Profile{}, fmt.Errorf("%w %q: this node has %s (RuntimeClass.handler must be one of them)", ErrUnknownHandler, handler, c.known())
	}
	return p, nil
}

func (c Config) known() string {
	return strings.Join(slices.Sorted(maps.Keys(c.Handlers)), ", ")
}
