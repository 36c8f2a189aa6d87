package confine_test

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// What a daemon's thread may hand down to a host, and must not matter there.

// ownMounts gives the thread a private copy of the node's mounts.
func ownMounts(p *pod) (err error) {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	ns := fmt.Sprintf("/proc/self/task/%d/ns/mnt", unix.Gettid())
	f, err := os.Open(ns) // while it is open its number is not used again
	if err != nil {
		return err
	}
	p.t.Cleanup(func() { f.Close() })
	p.startedIn, err = os.Readlink(ns)
	return err
}

// blockSignals leaves the thread's processes with a blocked signal.
func blockSignals(*pod) error {
	return unix.PthreadSigmask(unix.SIG_BLOCK, &unix.Sigset_t{Val: [16]uint64{1 << (unix.SIGUSR1 - 1)}}, nil)
}

// withoutResource leaves the thread's processes without CAP_SYS_RESOURCE.
func withoutResource(*pod) error {
	return unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_RESOURCE, 0, 0, 0)
}
