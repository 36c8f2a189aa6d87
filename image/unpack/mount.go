package unpack

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// readOnly is how an image's files appear: nothing in them is executed
// natively, nobody gains rights by them, and nobody writes.
const readOnly = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// maxOption is what fsconfig takes in one string.
const maxOption = 255

// Open makes a detached mount of the snapshot that mounts describe: it is in
// no mount table, and ends with its last descriptor. With an upper and a work
// folder it can be written to, and what is written is in upper.
func Open(mounts []mount.Mount, upper, work string) (*os.File, error) {
	if len(mounts) != 1 {
		return nil, fmt.Errorf("open root: snapshot has %d mounts, one is known how to open", len(mounts))
	}
	m := mounts[0]
	lower, rest := overlayParts(m)
	if len(lower) == 0 {
		return nil, fmt.Errorf("open root: snapshot is a mount of type %q without a folder", m.Type)
	}
	var fd int
	var err error
	switch {
	case upper == "" && len(lower) == 1:
		fd, err = bind(lower[0])
	default:
		fd, err = overlay(lower, rest, upper, work)
	}
	if err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	return os.NewFile(uintptr(fd), "root"), nil
}

// Folder opens the snapshot for looking at it. It is Open without a clone
// where the snapshot is a single folder, so that it needs no privilege.
func Folder(mounts []mount.Mount) (*os.File, error) {
	if len(mounts) == 1 {
		if lower, _ := overlayParts(mounts[0]); len(lower) == 1 {
			return os.OpenFile(lower[0], unix.O_PATH|unix.O_DIRECTORY, 0)
		}
	}
	return Open(mounts, "", "")
}

func overlayParts(m mount.Mount) (lower, rest []string) {
	if m.Type == "bind" {
		return []string{m.Source}, nil
	}
	for _, o := range m.Options {
		if v, ok := strings.CutPrefix(o, "lowerdir="); ok {
			lower = strings.Split(v, ":")
		} else if !strings.HasPrefix(o, "upperdir=") && !strings.HasPrefix(o, "workdir=") && o != "ro" && o != "rw" {
			rest = append(rest, o)
		}
	}
	return lower, rest
}

// bind clones the folder of a single layer.
func bind(dir string) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open_tree %s: %w", dir, err)
	}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: readOnly, Propagation: unix.MS_PRIVATE})
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("mount_setattr %s: %w", dir, err)
	}
	return fd, nil
}

// overlay makes a detached overlay. Kernels before 6.5 take all lower folders
// in one string of at most 255 bytes; there a mount in a namespace of its own
// is cloned instead.
func overlay(lower, rest []string, upper, work string) (int, error) {
	fd, err := fsOverlay(lower, rest, upper, work)
	if err == nil || !errors.Is(err, errNoLowerPlus) {
		return fd, err
	}
	return mountedOverlay(lower, rest, upper, work)
}

var errNoLowerPlus = errors.New("the kernel does not know lowerdir+")

func fsOverlay(lower, rest []string, upper, work string) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	var held paths
	defer held.close()
	for i, l := range lower {
		p, err := held.short(l)
		if err != nil {
			return -1, err
		}
		err = unix.FsconfigSetString(fs, "lowerdir+", p)
		if i == 0 && errors.Is(err, unix.EINVAL) {
			return -1, errNoLowerPlus
		}
		if err != nil {
			return -1, fmt.Errorf("overlay of %d layers: lowerdir+: %w", len(lower), err)
		}
	}
	opts := rest
	if upper != "" {
		u, err := held.short(upper)
		if err != nil {
			return -1, err
		}
		w, err := held.short(work)
		if err != nil {
			return -1, err
		}
		opts = append(append([]string(nil), rest...), "upperdir="+u, "workdir="+w)
	}
	for _, o := range opts {
		k, v, pair := strings.Cut(o, "=")
		if pair {
			err = unix.FsconfigSetString(fs, k, v)
		} else {
			err = unix.FsconfigSetFlag(fs, k)
		}
		if err != nil {
			return -1, fmt.Errorf("overlay option %s: %w", k, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("overlay of %d layers: %w", len(lower), err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes(upper))
	if err != nil {
		return -1, fmt.Errorf("fsmount overlay: %w", err)
	}
	return fd, nil
}

func attributes(upper string) int {
	if upper == "" {
		return readOnly
	}
	return readOnly &^ unix.MOUNT_ATTR_RDONLY
}

// paths makes long paths short by descriptors, held until they are used.
type paths struct{ fds []int }

func (p *paths) short(dir string) (string, error) {
	if len(dir) <= maxOption-len("upperdir=") {
		return dir, nil
	}
	return p.fd(dir)
}

func (p *paths) fd(dir string) (string, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open layer %s: %w", dir, err)
	}
	p.fds = append(p.fds, fd)
	return "/proc/thread-self/fd/" + strconv.Itoa(fd), nil
}

func (p *paths) close() {
	for _, fd := range p.fds {
		unix.Close(fd)
	}
}

// mountedOverlay mounts in a mount namespace that only one thread ever sees,
// and clones the mount out of it. The thread ends with the namespace.
func mountedOverlay(lower, rest []string, upper, work string) (int, error) {
	type result struct {
		fd  int
		err error
	}
	c := make(chan result, 1)
	var attempt func()
	attempt = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The process's first thread stands for it in /proc and does not
			// end with its goroutine: it waits here while another is used.
			done := make(chan struct{})
			go func() { defer close(done); attempt() }()
			<-done
			runtime.UnlockOSThread()
			return
		}
		// Never unlocked: the thread is fit for nobody else, and ends.
		fd, err := mountAndClone(lower, rest, upper, work)
		c <- result{fd, err}
	}
	go attempt()
	r := <-c
	return r.fd, r.err
}

func mountAndClone(lower, rest []string, upper, work string) (int, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return -1, fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, fmt.Errorf("make mounts private: %w", err)
	}
	var held paths
	defer held.close()
	short := make([]string, len(lower))
	for i, l := range lower {
		p, err := held.fd(l)
		if err != nil {
			return -1, err
		}
		short[i] = p
	}
	opts := append(append([]string(nil), rest...), "lowerdir="+strings.Join(short, ":"))
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if upper == "" {
		flags |= unix.MS_RDONLY
	} else {
		opts = append(opts, "upperdir="+upper, "workdir="+work)
	}
	const at = "/proc"
	// The layers are named through /proc, so it is covered only by the mount
	// itself, which the kernel does after it has looked the names up.
	if err := unix.Mount("overlay", at, "overlay", flags, strings.Join(opts, ",")); err != nil {
		return -1, fmt.Errorf("mount overlay of %d layers: %w", len(lower), err)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, at, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open_tree: %w", err)
	}
	return fd, nil
}
