package confine

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
)

// ErrOrder is what every fault of an Order wraps.
var ErrOrder = errors.New("confinement order")

// Bounds of an order. The C half holds the same ones.
const (
	MaxOrder   = 4 << 20  // bytes of an encoded order, payload apart
	MaxPayload = 16 << 20 // bytes of the payload
	MaxFD      = 4096     // descriptors are below
	MaxMounts  = 1024
	MaxPath    = 4095 // bytes of a mount point
	MaxGroups  = 1024
	MaxTasks   = 16
	MaxKeep    = 64
	MaxRlimits = 16
	MaxPorts   = 64
	MaxFilter  = 4096 // instructions of a filter
)

// Mode says what the confined process is for.
type Mode uint32

// The modes of a host. Run gets the guest's root and mounts; Compile and Key
// get an empty, read-only root and nothing in it.
const (
	Run     Mode = 1
	Compile Mode = 2
	Key     Mode = 3
)

// Order tells the constructor what to do. Every descriptor is a number in the
// new process, and zero means that there is none.
type Order struct {
	Mode Mode
	// EmptyNS is the mount namespace that EmptyMountNS makes. Always needed:
	// no host starts from the node's mounts.
	EmptyNS int
	// NetNS is the network namespace to join; none leaves the process in the
	// one it was started in.
	NetNS int
	// Tasks are the `tasks` files of version 1 cgroups, opened for writing.
	// With version 2 the process is born in its cgroup.
	Tasks []int
	// Keep are descriptors that stay open besides those of the mode
	// (spec.FDOrder to spec.FDLog, or to spec.FDCompileOut).
	Keep []int
	// Root is the guest's root (Run).
	Root Root
	// Code is the detached mount of the compiled code, a single file, which
	// appears at spec.CodePath beside the guest's root (Run).
	Code int
	// Mounts are moved to their places in this order: what lies inside
	// another one comes after it (Run).
	Mounts []Mount
	// UID, GID and Groups are those of the guest. AllowRoot must be true for
	// any of them to be 0; capabilities are dropped in any case.
	UID, GID  uint32
	Groups    []uint32
	AllowRoot bool
	// OOMScoreAdj is set when it is not nil; where the kernel refuses to go
	// so low, the value of the parent stays.
	OOMScoreAdj *int
	// Rlimits are set in this order. RLIMIT_CORE is 0 whatever stands here.
	Rlimits []Rlimit
	// Ports are the TCP ports that the process may bind (0: any free one);
	// it may connect to none. Enforced where Landlock can (kernel 6.7).
	Ports []uint16
	// Filter is the seccomp program that is installed last, before the Go
	// runtime starts; SealFilter the one that Seal installs (Run). See
	// package filter.
	Filter, SealFilter []byte
}

// Root is the guest's root file system.
type Root struct {
	// FD is a detached mount; none means a memory-backed root of Size bytes,
	// with a /tmp for everybody if it is writable.
	FD       int
	Size     uint64
	ReadOnly bool
}

// Mount is a detached mount, already made read-only, nosuid, nodev and noexec
// (Clone does), and its place.
type Mount struct {
	FD int
	// Path is absolute in the guest's root, cleaned, and not "/".
	Path string
	// File is true when the mount is a single file; Writable when the guest
	// may write below it.
	File, Writable bool
}

// Rlimit is a resource limit: RLIMIT_NOFILE and so on.
type Rlimit struct {
	Resource   int
	Soft, Hard uint64
}

// The wire form: a header of eight fields, then the records in a fixed order.
// Integers are little-endian; a string is its length, its bytes and a zero
// byte that the length does not count. Offsets count from the file's start.
//
//	0 magic   8 version  12 order's length (header included)
//	16 seal filter's offset  20 its bytes  24 payload's offset  28 its bytes
const (
	orderMagic   = "LIMPETC1"
	orderVersion = 1
	headerSize   = 32
)

const (
	flagReadOnly  = 1
	flagAllowRoot = 2
	flagOOMScore  = 4

	mountFile     = 1
	mountWritable = 2
)

// Encode returns the content of the memory file: the order, then the payload.
// The order is not checked; Validate does that, and File does both.
func (o *Order) Encode(payload []byte) []byte {
	w := wire{b: make([]byte, headerSize, headerSize+1024+len(o.Filter)+len(o.SealFilter)+len(payload))}
	w.u32(uint32(o.Mode))
	w.u32(o.flags())
	w.fd(o.EmptyNS)
	w.fd(o.NetNS)
	w.fd(o.Root.FD)
	w.u64(o.Root.Size)
	w.fd(o.Code)
	w.u32(o.UID)
	w.u32(o.GID)
	w.u32(uint32(int32(o.oomScoreAdj())))
	w.fds(o.Tasks)
	w.fds(o.Keep)
	w.u32(uint32(len(o.Groups)))
	for _, g := range o.Groups {
		w.u32(g)
	}
	w.u32(uint32(len(o.Rlimits)))
	for _, l := range o.Rlimits {
		w.u32(uint32(l.Resource))
		w.u64(l.Soft)
		w.u64(l.Hard)
	}
	w.u32(uint32(len(o.Ports)))
	for _, p := range o.Ports {
		w.u32(uint32(p))
	}
	w.u32(uint32(len(o.Mounts)))
	for _, m := range o.Mounts {
		w.mount(m)
	}
	w.u32(uint32(len(o.Filter)))
	w.b = append(w.b, o.Filter...)
	return w.finish(o.SealFilter, payload)
}

func (o *Order) flags() uint32 {
	var f uint32
	if o.Root.ReadOnly {
		f |= flagReadOnly
	}
	if o.AllowRoot {
		f |= flagAllowRoot
	}
	if o.OOMScoreAdj != nil {
		f |= flagOOMScore
	}
	return f
}

func (o *Order) oomScoreAdj() int {
	if o.OOMScoreAdj == nil {
		return 0
	}
	return *o.OOMScoreAdj
}

// wire appends the records.
type wire struct{ b []byte }

func (w *wire) u32(v uint32) { w.b = binary.LittleEndian.AppendUint32(w.b, v) }
func (w *wire) u64(v uint64) { w.b = binary.LittleEndian.AppendUint64(w.b, v) }
func (w *wire) fd(v int)     { w.u32(uint32(v)) }

func (w *wire) fds(l []int) {
	w.u32(uint32(len(l)))
	for _, fd := range l {
		w.fd(fd)
	}
}

func (w *wire) mount(m Mount) {
	var f uint32
	if m.File {
		f |= mountFile
	}
	if m.Writable {
		f |= mountWritable
	}
	w.fd(m.FD)
	w.u32(f)
	w.u32(uint32(len(m.Path)))
	w.b = append(w.b, m.Path...)
	w.b = append(w.b, 0)
}

// finish appends the seal filter and the payload and fills the header in.
func (w *wire) finish(seal, payload []byte) []byte {
	length := len(w.b)
	w.b = append(w.b, seal...)
	w.b = append(w.b, payload...)
	copy(w.b, orderMagic)
	for i, v := range []int{orderVersion, length, length, len(seal), length + len(seal), len(payload)} {
		binary.LittleEndian.PutUint32(w.b[8+4*i:], uint32(v))
	}
	return w.b
}

// Validate returns the first fault of the order, or nil.
func (o *Order) Validate() error {
	if o.Mode != Run && o.Mode != Compile && o.Mode != Key {
		return o.fault("mode ", strconv.Itoa(int(o.Mode)), " is unknown")
	}
	if err := o.validateDescriptors(); err != nil {
		return err
	}
	if err := o.validateIDs(); err != nil {
		return err
	}
	for _, c := range []struct {
		what     string
		n, limit int
	}{
		{"groups", len(o.Groups), MaxGroups}, {"tasks files", len(o.Tasks), MaxTasks},
		{"kept descriptors", len(o.Keep), MaxKeep}, {"rlimits", len(o.Rlimits), MaxRlimits},
		{"ports", len(o.Ports), MaxPorts}, {"mounts", len(o.Mounts), MaxMounts},
	} {
		if c.n > c.limit {
			return o.fault(strconv.Itoa(c.n), " ", c.what, ", at most ", strconv.Itoa(c.limit), " are possible")
		}
	}
	if !validFilter(o.Filter) {
		return o.fault("a seccomp filter of ", strconv.Itoa(len(o.Filter)), " bytes")
	}
	if o.Mode == Run && !validFilter(o.SealFilter) {
		return o.fault("a seal filter of ", strconv.Itoa(len(o.SealFilter)), " bytes")
	}
	for i := range o.Mounts {
		if !validPlace(o.Mounts[i].Path) {
			return o.fault("mount point ", strconv.Quote(o.Mounts[i].Path), " is not a clean absolute path below /")
		}
	}
	return nil
}

func (o *Order) validateDescriptors() error {
	all := append([]int{o.EmptyNS, o.NetNS, o.Root.FD, o.Code}, o.Tasks...)
	all = append(all, o.Keep...)
	for _, m := range o.Mounts {
		all = append(all, m.FD)
	}
	seen := make(map[int]bool, len(all))
	for _, fd := range all {
		if fd == 0 {
			continue
		}
		if fd < 3 || fd >= MaxFD {
			return o.fault("descriptor ", strconv.Itoa(fd), " is out of range")
		}
		if seen[fd] {
			return o.fault("descriptor ", strconv.Itoa(fd), " stands twice")
		}
		seen[fd] = true
	}
	if o.EmptyNS == 0 {
		return o.fault("the empty mount namespace is missing")
	}
	if o.Mode == Run && o.Code == 0 {
		return o.fault("the compiled code is missing")
	}
	if o.Mode != Run && (o.Code != 0 || o.Root.FD != 0 || len(o.Mounts) != 0) {
		return o.fault("root, code and mounts belong to mode Run")
	}
	return nil
}

func (o *Order) validateIDs() error {
	if o.AllowRoot {
		return nil
	}
	zero := o.UID == 0 || o.GID == 0
	for _, g := range o.Groups {
		zero = zero || g == 0
	}
	if zero {
		return o.fault("user or group 0, which it does not allow")
	}
	return nil
}

func (o *Order) fault(text ...string) error {
	return &orderError{strings.Join(text, "")}
}

// orderError is ErrOrder with a text.
type orderError struct{ text string }

func (e *orderError) Error() string { return ErrOrder.Error() + ": " + e.text }
func (e *orderError) Unwrap() error { return ErrOrder }

// validFilter reports whether f is a program of whole instructions.
func validFilter(f []byte) bool {
	return len(f) > 0 && len(f)%8 == 0 && len(f)/8 <= MaxFilter
}

// validPlace reports whether p is absolute, below the root and without empty
// or dotted parts.
func validPlace(p string) bool {
	if len(p) < 2 || len(p) > MaxPath || p[0] != '/' || strings.IndexByte(p, 0) >= 0 {
		return false
	}
	for part := range strings.SplitSeq(p[1:], "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}
