package network

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/thread"
)

// makeAt makes a namespace and mounts it at path.
func makeAt(path string) error {
	return thread.Own(func() error { return makeOnThread(path) })
}

// makeOnThread moves the calling thread into a new namespace.
func makeOnThread(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return refused(err)
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	own := "/proc/self/task/" + strconv.Itoa(unix.Gettid()) + "/ns/net"
	return os.NewSyscallError("bind mount", unix.Mount(own, path, "", unix.MS_BIND, ""))
}

// refused says why the kernel gives no namespace. Its word for a bound that is
// reached is the one for a full disk, which would send people looking there.
func refused(err error) error {
	if err == unix.ENOSPC {
		return errors.New("the node has as many network namespaces as it may have: raise the sysctl user.max_net_namespaces")
	}
	return os.NewSyscallError("unshare", err)
}

// loopbackUp brings up `lo` of the calling thread's namespace, with the two
// ioctls that do it: a netlink library has nothing to add.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, lo); err != nil {
		return os.NewSyscallError("read the flags of lo", err)
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP)
	return os.NewSyscallError("bring lo up", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo))
}
