package confine

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/limpet-cri/limpet/shim/spec"
	"github.com/limpet-cri/limpet/shim/thread"
	"golang.org/x/sys/unix"
)

// allowAll is the program "return ALLOW".
var allowAll = []byte{0x06, 0, 0, 0, 0, 0, 0xff, 0x7f}

func sample() *Order {
	score := 7
	return &Order{
		Mode: Run, EmptyNS: 8, NetNS: 9, Tasks: []int{10, 11}, Keep: []int{12},
		Root: Root{FD: 13, Size: 1 << 20, ReadOnly: true}, Code: 14,
		Mounts: []Mount{{FD: 15, Path: "/data", Writable: true}, {FD: 16, Path: "/etc/hosts", File: true}},
		UID:    65532, GID: 65532, Groups: []uint32{1, 2}, OOMScoreAdj: &score,
		Rlimits: []Rlimit{{unix.RLIMIT_NOFILE, 1024, 1024}}, Ports: []uint16{8080},
		Filter: allowAll, SealFilter: allowAll,
	}
}

func TestSampleIsValid(t *testing.T) {
	if err := sample().Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*Order){
		"mode":               func(o *Order) { o.Mode = 4 },
		"no empty namespace": func(o *Order) { o.EmptyNS = 0 },
		"no code":            func(o *Order) { o.Code = 0 },
		"code to compile":    func(o *Order) { o.Mode = Compile },
		"negative fd":        func(o *Order) { o.NetNS = -1 },
		"stdio":              func(o *Order) { o.NetNS = 2 },
		"large fd":           func(o *Order) { o.NetNS = MaxFD },
		"fd twice":           func(o *Order) { o.NetNS = o.EmptyNS },
		"uid 0":              func(o *Order) { o.UID = 0 },
		"gid 0":              func(o *Order) { o.GID = 0 },
		"group 0":            func(o *Order) { o.Groups = []uint32{5, 0} },
		"groups":             func(o *Order) { o.Groups = make([]uint32, MaxGroups+1); o.AllowRoot = true },
		"ports":              func(o *Order) { o.Ports = make([]uint16, MaxPorts+1) },
		"rlimits":            func(o *Order) { o.Rlimits = make([]Rlimit, MaxRlimits+1) },
		"no filter":          func(o *Order) { o.Filter = nil },
		"half a filter":      func(o *Order) { o.Filter = o.Filter[:7] },
		"long filter":        func(o *Order) { o.Filter = bytes.Repeat(allowAll, MaxFilter+1) },
		"no seal":            func(o *Order) { o.SealFilter = nil },
		"relative":           func(o *Order) { o.Mounts[0].Path = "data" },
		"root":               func(o *Order) { o.Mounts[0].Path = "/" },
		"dots":               func(o *Order) { o.Mounts[0].Path = "/a/../b" },
		"double slash":       func(o *Order) { o.Mounts[0].Path = "/a//b" },
		"trailing slash":     func(o *Order) { o.Mounts[0].Path = "/a/" },
		"zero byte":          func(o *Order) { o.Mounts[0].Path = "/a\x00b" },
		"long path":          func(o *Order) { o.Mounts[0].Path = "/" + strings.Repeat("a", MaxPath) },
		"mount without fd":   func(o *Order) { o.Mounts[0].FD = 1 },
	} {
		o := sample()
		change(o)
		if err := o.Validate(); !errors.Is(err, ErrOrder) {
			t.Errorf("%s: %v", name, err)
		}
		if f, err := o.File(nil); err == nil {
			f.Close()
			t.Errorf("%s: File makes it", name)
		}
	}
}

func TestRootAllowed(t *testing.T) {
	o := sample()
	o.UID, o.GID, o.Groups, o.AllowRoot = 0, 0, []uint32{0}, true
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
}

func TestFile(t *testing.T) {
	payload := []byte("arguments and environment")
	f, err := sample().File(payload)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := Payload(int(f.Fd()))
	if err != nil || !bytes.Equal(got, payload) {
		t.Errorf("Payload = %q, %v", got, err)
	}
	prog, err := section(int(f.Fd()), 16, MaxFilter*8)
	if err != nil || !bytes.Equal(prog, allowAll) {
		t.Errorf("seal filter = %x, %v", prog, err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("a sealed file can be written")
	}
	if have, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || have&seals != seals {
		t.Errorf("seals %x, %v", have, err)
	}
	if _, err := sample().File(make([]byte, MaxPayload+1)); !errors.Is(err, ErrOrder) {
		t.Errorf("a large payload: %v", err)
	}
}

func TestPayloadOfForeignFiles(t *testing.T) {
	path := t.TempDir() + "/f"
	for name, content := range map[string]string{
		"empty": "", "short": "LIMPETC1", "text": strings.Repeat("x", 64),
		"version":    "LIMPETC1\x02" + strings.Repeat("\x00", 23),
		"ends early": "LIMPETC1\x01" + strings.Repeat("\x00", 15) + "\x20\x00\x00\x00\x09\x00\x00\x00",
		"too large":  "LIMPETC1\x01" + strings.Repeat("\x00", 15) + "\x20\x00\x00\x00\xff\xff\xff\xff",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Payload(int(f.Fd())); err == nil {
			t.Errorf("%s: no error", name)
		}
		f.Close()
	}
}

// The C half knows the descriptors and paths of package spec by number.
func TestContractWithSpec(t *testing.T) {
	h, err := os.ReadFile("confine.h")
	if err != nil {
		t.Fatal(err)
	}
	if fdOrder != spec.FDOrder || spec.FDFirstFree != spec.FDLog+1 {
		t.Error("descriptors differ from package spec")
	}
	for _, want := range []string{
		cEnum("FD_ORDER", spec.FDOrder), cEnum("FD_LOCK", spec.FDLock),
		cEnum("FD_LAST_RUN", spec.FDLog), cEnum("FD_LAST_COMPILE", spec.FDCompileOut),
		cEnum("MAX_FD", MaxFD), cEnum("MAX_MOUNTS", MaxMounts), cEnum("MAX_PATH", MaxPath),
		cEnum("MAX_GROUPS", MaxGroups), cEnum("MAX_TASKS", MaxTasks), cEnum("MAX_KEEP", MaxKeep),
		cEnum("MAX_RLIMITS", MaxRlimits), cEnum("MAX_PORTS", MaxPorts), cEnum("MAX_FILTER", MaxFilter),
		"MAX_ORDER = 4 << 20", "MAX_PAYLOAD = 16 << 20",
		cEnum("FLAG_READONLY", flagReadOnly), cEnum("FLAG_ALLOW_ROOT", flagAllowRoot),
		cEnum("FLAG_OOM_SCORE", flagOOMScore), cEnum("MOUNT_FILE", mountFile), cEnum("MOUNT_WRITABLE", mountWritable),
	} {
		if !bytes.Contains(h, []byte(want)) {
			t.Errorf("confine.h lacks %q", want)
		}
	}
	if spec.GuestRoot != "/guest" || spec.CodePath != "/code" || MaxOrder != 4<<20 || MaxPayload != 16<<20 {
		t.Error("confine.c makes /guest and /code, with other bounds")
	}
}

func cEnum(name string, n int) string {
	return name + " = " + string(appendInt(nil, n))
}

func appendInt(b []byte, n int) []byte {
	if n >= 10 {
		b = appendInt(b, n/10)
	}
	return append(b, byte('0'+n%10))
}

// The C half stays small enough to be read in one sitting: lines of code,
// without blank ones and comments.
func TestSizeOfTheConstructor(t *testing.T) {
	lines := 0
	for _, name := range []string{"order.c", "confine.c", "confine.h"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			if line = bytes.TrimSpace(line); len(line) > 0 && !bytes.HasPrefix(line, []byte("//")) {
				lines++
			}
		}
	}
	if lines >= 700 {
		t.Errorf("%d lines of C, at most 699 are promised", lines)
	}
	t.Logf("%d lines of C", lines)
}

func TestClonesArePrivate(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := Clone(dir, ReadOnlyVolume)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Mount("later", dir+"/sub", "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir+"/sub", unix.MNT_DETACH)
	fd, err := unix.Openat(int(f.Fd()), "sub/x", unix.O_CREAT|unix.O_WRONLY, 0o600)
	if !errors.Is(err, unix.EROFS) {
		t.Errorf("a mount made later can be written through the clone: %d, %v", fd, err)
	}
	if _, err := Clone(dir+"/absent", Volume); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

func TestEmptyMountNS(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	ns, err := EmptyMountNS()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var names []os.DirEntry
	err = thread.Own(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mkdir("/x", 0o755); !errors.Is(err, unix.EROFS) {
			t.Errorf("mkdir in the empty root: %v", err)
		}
		names, err = os.ReadDir("/")
		return err
	})
	if err != nil || len(names) != 0 {
		t.Errorf("the empty root holds %v (%v)", names, err)
	}
	if now, err := os.Readlink("/proc/self/ns/mnt"); err != nil || now != own {
		t.Errorf("the process is in %s now, was in %s (%v)", now, own, err)
	}
	if slices.Contains([]string{own}, ns.Name()) {
		t.Error("it is the own namespace")
	}
}

// FuzzSection reads parts of any file without a panic or a large allocation.
func FuzzSection(f *testing.F) {
	f.Add(sample().Encode([]byte("payload")))
	f.Add([]byte("LIMPETC1"))
	path := f.TempDir() + "/f"
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		b, err := Payload(int(file.Fd()))
		if err == nil && len(b) > len(content) {
			t.Errorf("%d bytes of a file of %d", len(b), len(content))
		}
	})
}
