package shim

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/confine"
	"github.com/limpet-cri/limpet/shim/spec"
)

// DefaultRootSize bounds the memory-backed root of a container that names no
// bound of its own, in bytes.
const DefaultRootSize = 16 << 20

// maxSocketPath is what a unix socket's address holds, without its last zero.
const maxSocketPath = 107

// check refuses what no host could be made of.
func check(c *spec.Container) error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, a...)...)
	}
	switch {
	case c.ID == "" || strings.ContainsAny(c.ID, "/\x00"):
		return bad("id %q", c.ID)
	case !filepath.IsAbs(c.Dir) || filepath.Clean(c.Dir) != c.Dir || strings.Count(c.Dir, "/") < 2:
		return bad("folder %q is not a clean absolute path below a folder of ours", c.Dir)
	case !filepath.IsAbs(c.Socket) || len(c.Socket) > maxSocketPath:
		return bad("control socket %q: an absolute path of at most %d bytes is wanted", c.Socket, maxSocketPath)
	case c.OCI == nil || c.OCI.Process == nil:
		return bad("it has no process")
	case len(c.OCI.Process.Args) == 0:
		return bad("it has no arguments, not even the guest's name")
	}
	return nil
}

// inherited collects the descriptors of a new process.
type inherited struct{ fds []uintptr }

// add returns the number that f will have.
func (in *inherited) add(f *os.File) int {
	in.fds = append(in.fds, f.Fd())
	return len(in.fds) - 1
}

// launch is what a host is started with. Its files are ours until it started.
type launch struct {
	order confine.Order
	files inherited
	owned []*os.File // closed once the host has its copies
}

func (l *launch) own(f *os.File) *os.File {
	l.owned = append(l.owned, f)
	return f
}

func (l *launch) close() {
	for _, f := range l.owned {
		f.Close()
	}
	l.owned = nil
}

// orderOf fills the order in, from what the OCI spec says. The descriptors
// before spec.FDFirstFree have their places already.
func (s *Supervisor) orderOf(l *launch, c *spec.Container, root *os.File) error {
	p := c.OCI.Process
	l.order = confine.Order{
		Mode: confine.Run, EmptyNS: l.files.add(s.emptyNS),
		UID: p.User.UID, GID: p.User.GID, Groups: p.User.AdditionalGids,
		OOMScoreAdj: p.OOMScoreAdj, Filter: s.run, SealFilter: s.seal,
	}
	// Whether root is wanted was decided by whoever wrote the spec; a host
	// has no capabilities in any case.
	l.order.AllowRoot = p.User.UID == 0 || p.User.GID == 0 || slices.Contains(p.User.AdditionalGids, 0)
	l.order.Root = confine.Root{Size: c.Limpet.RootSize, ReadOnly: c.OCI.Root != nil && c.OCI.Root.Readonly}
	if l.order.Root.Size == 0 {
		l.order.Root.Size = DefaultRootSize
	}
	if root != nil {
		l.order.Root.FD = l.files.add(root)
	}
	code, err := confine.Clone(c.Limpet.Code, confine.Code)
	if err != nil {
		return fmt.Errorf("compiled code: %w", err)
	}
	l.order.Code = l.files.add(l.own(code))
	if err := addMounts(l, c.OCI.Mounts); err != nil {
		return err
	}
	if err := addNetwork(l, c.OCI.Linux); err != nil {
		return err
	}
	if l.order.Rlimits, err = rlimits(p.Rlimits); err != nil {
		return err
	}
	l.order.Ports, err = ports(c.Limpet.Listen)
	return err
}

// addMounts clones the volumes. One inside another comes after it, in whatever
// order they are listed, as container runtimes for Kubernetes do.
func addMounts(l *launch, mounts []specs.Mount) error {
	mounts = slices.Clone(mounts)
	slices.SortStableFunc(mounts, func(a, b specs.Mount) int { return depth(a) - depth(b) })
	for i := range mounts {
		m := &mounts[i]
		if m.Type != "" && m.Type != "bind" {
			return fmt.Errorf("%w: mount %s is of type %q; only binds are known", ErrInvalid, m.Destination, m.Type)
		}
		attr := uint64(confine.Volume)
		if readOnly(m) {
			attr = confine.ReadOnlyVolume
		}
		f, err := confine.Clone(m.Source, attr)
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
		l.own(f)
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
		l.order.Mounts = append(l.order.Mounts, confine.Mount{
			FD: l.files.add(f), Path: filepath.Clean(m.Destination),
			File: st.Mode&unix.S_IFMT != unix.S_IFDIR, Writable: !readOnly(m),
		})
	}
	return nil
}

func depth(m specs.Mount) int { return strings.Count(filepath.Clean(m.Destination), "/") }

func readOnly(m *specs.Mount) bool {
	ro := false
	for _, o := range m.Options {
		switch o {
		case "ro", "rro":
			ro = true
		case "rw":
			ro = false
		}
	}
	return ro
}

func addNetwork(l *launch, linux *specs.Linux) error {
	if linux == nil {
		return nil
	}
	for _, n := range linux.Namespaces {
		if n.Type != specs.NetworkNamespace {
			continue
		}
		if n.Path == "" {
			return fmt.Errorf("%w: a network namespace without a path", ErrInvalid)
		}
		f, err := os.Open(n.Path)
		if err != nil {
			return fmt.Errorf("network of the pod: %w", err)
		}
		l.order.NetNS = l.files.add(l.own(f))
	}
	return nil
}

// rlimitNumbers are the limits of the OCI runtime spec.
var rlimitNumbers = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU,
	"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE,
	"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}

// DefaultFiles is the number of descriptors of a host whose spec sets no
// RLIMIT_NOFILE: what a guest may have, and what the host needs beside.
const DefaultFiles = 4096 + 256

func rlimits(l []specs.POSIXRlimit) ([]confine.Rlimit, error) {
	out := append(make([]confine.Rlimit, 0, len(l)+1),
		confine.Rlimit{Resource: unix.RLIMIT_NOFILE, Soft: DefaultFiles, Hard: DefaultFiles})
	for _, r := range l {
		n, ok := rlimitNumbers[r.Type]
		if !ok {
			return nil, fmt.Errorf("%w: resource limit %q is unknown", ErrInvalid, r.Type)
		}
		out = append(out, confine.Rlimit{Resource: n, Soft: r.Soft, Hard: r.Hard})
	}
	return out, nil
}

// ports returns those that the host may bind.
func ports(listen []spec.Listen) ([]uint16, error) {
	l := make([]uint16, 0, len(listen))
	for _, a := range listen {
		p, err := port(a.Address)
		if err != nil {
			return nil, fmt.Errorf("%w: listening address %q: %w", ErrInvalid, a.Address, err)
		}
		l = append(l, p)
	}
	return l, nil
}

func port(address string) (uint16, error) {
	if rest, ok := strings.CutPrefix(address, ":"); ok {
		p, err := strconv.ParseUint(rest, 10, 16)
		if err != nil || p == 0 {
			return 0, errors.New("a port from 1 to 65535 is wanted")
		}
		return uint16(p), nil
	}
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return 0, err
	}
	if a.Port() == 0 {
		return 0, errors.New("port 0 is not one")
	}
	return a.Port(), nil
}

// inFull writes IPv6 addresses with all their digits, as the host reads them: it
// has no parser for the short forms.
func inFull(listen []spec.Listen) []spec.Listen {
	l := slices.Clone(listen)
	for i := range l {
		if a, err := netip.ParseAddrPort(l[i].Address); err == nil && a.Addr().Is6() {
			l[i].Address = "[" + a.Addr().WithZone("").StringExpanded() + "]:" + strconv.Itoa(int(a.Port()))
		}
	}
	return l
}

// payloadOf is what the host's Go half is told.
func payloadOf(c *spec.Container, order *confine.Order) *spec.Payload {
	p := &spec.Payload{
		Args: c.OCI.Process.Args, Env: c.OCI.Process.Env, Cwd: c.OCI.Process.Cwd,
		Module: c.Limpet.Module, MemoryLimit: c.Limpet.MemoryLimit, Proposals: c.Limpet.Proposals,
		Listen: inFull(c.Limpet.Listen), OnStop: c.Limpet.OnStop, Stdin: c.Limpet.Stdin,
		ReadonlyRoot: order.Root.ReadOnly,
	}
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	for _, m := range order.Mounts {
		if m.Writable {
			p.Writable = append(p.Writable, m.Path)
		} else {
			p.Readonly = append(p.Readonly, m.Path)
		}
	}
	return p
}
