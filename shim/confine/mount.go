package confine

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/thread"
)

// Attributes of a clone. Volume is what every volume gets; compiled code alone
// is cloned with Code, because the engine maps it executable.
const (
	Volume         = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	ReadOnlyVolume = Volume | unix.MOUNT_ATTR_RDONLY
	Code           = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_RDONLY
)

// Clone returns a detached clone of what stands at path, with all mounts below
// it and the attributes given (Volume, ReadOnlyVolume, Code). It is private: a
// mount made on the node later never shows in it.
func Clone(path string, attr uint64) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	a := unix.MountAttr{Attr_set: attr, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &a); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "mount_setattr", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// EmptyMountNS makes a mount namespace with an empty, read-only root. It lives
// as long as the descriptor. Every host starts its own from it, whatever is
// mounted on the node.
func EmptyMountNS() (*os.File, error) {
	var ns *os.File
	err := thread.Own(func() (err error) {
		ns, err = emptyMountNS()
		return err
	})
	return ns, err
}

// emptyMountNS moves the calling thread into the new namespace.
func emptyMountNS() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return nil, os.NewSyscallError("unshare mount namespace", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, os.NewSyscallError("make mounts private", err)
	}
	ns, err := os.Open("/proc/self/task/" + strconv.Itoa(unix.Gettid()) + "/ns/mnt")
	if err != nil {
		return nil, err
	}
	if err := pivotToEmpty(); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// pivotToEmpty replaces the root of the calling thread's namespace by an empty
// tmpfs and drops all else. The tmpfs is put over /proc, which stands on every
// node, so that no folder has to be made.
func pivotToEmpty() error {
	const place = "/proc"
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RDONLY)
	if err := unix.Mount("limpet-empty", place, "tmpfs", flags, "size=4k,nr_inodes=2,mode=555"); err != nil {
		return os.NewSyscallError("mount tmpfs", err)
	}
	if err := unix.Chdir(place); err != nil {
		return os.NewSyscallError("chdir", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	return os.NewSyscallError("unmount the old root", unix.Unmount(".", unix.MNT_DETACH))
}
