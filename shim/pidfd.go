package shim

import (
	"encoding/binary"
	"errors"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reapTimeout bounds how long the end of a host that is not our child is kept
// back for the sake of its exit code.
const reapTimeout = 3 * time.Second

// pidfdFile puts a pidfd under the runtime's poller, and owns it.
func pidfdFile(fd int) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("pidfd", err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// ownPidfd is pidfdFile for a new child, which does not outlive a failure.
func ownPidfd(pid, fd int) (*os.File, error) {
	if fd < 0 { // a kernel that does not know CLONE_PIDFD ignores it
		var err error
		if fd, err = unix.PidfdOpen(pid, 0); err != nil {
			return nil, errors.Join(os.NewSyscallError("pidfd_open", err), abandon(pid))
		}
	}
	f, err := pidfdFile(fd)
	if err != nil {
		return nil, errors.Join(err, abandon(pid))
	}
	return f, nil
}

// abandon ends a child of which nothing else is known. Nobody else reaps it,
// so that its number is its own.
func abandon(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return err
	}
	_, err := unix.Wait4(pid, nil, 0, nil)
	return err
}

// awaitEnd waits for the end of the process, or the file's deadline.
func awaitEnd(pidfd *os.File) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return err == nil && n == 1
	})
}

// signalPidfd sends a signal to exactly this process.
func signalPidfd(pidfd *os.File, sig unix.Signal) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	return sent
}

// reap takes the wait status of a process that has ended, if it is our child.
func reap(pidfd *os.File) (ws unix.WaitStatus, ok bool) {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return 0, false
	}
	var si unix.Siginfo
	err = raw.Control(func(fd uintptr) {
		for {
			e := unix.Waitid(unix.P_PIDFD, int(fd), &si, unix.WEXITED|unix.WNOHANG, nil)
			if e != unix.EINTR {
				ok = e == nil && si.Code != 0
				return
			}
		}
	})
	if err != nil || !ok {
		return 0, false
	}
	// si_status follows si_pid and si_uid (linux/signal.h, 64 bits).
	const statusAt = 24
	status := binary.NativeEndian.Uint32((*[unsafe.Sizeof(si)]byte)(unsafe.Pointer(&si))[statusAt:])
	const cldExited = 1
	if si.Code == cldExited {
		return unix.WaitStatus(status&0xff) << 8, true
	}
	return unix.WaitStatus(status & 0x7f), true
}

// pidfdInfo is struct pidfd_info in its first size (linux/pidfd.h, 6.13).
type pidfdInfo struct {
	Mask, CgroupID                                                    uint64
	PID, TGID, PPID, RUID, RGID, EUID, EGID, SUID, SGID, FSUID, FSGID uint32
	ExitCode                                                          int32
}

const (
	pidfdGetInfo  = 0xc040ff0b // _IOWR(0xff, 11, 64 bytes)
	pidfdInfoExit = 1 << 3     // the exit code is wanted, or there (6.15)
)

// exitInfo asks for the wait status that the kernel keeps once the process was
// reaped. An error means that asking again is useless.
func exitInfo(pidfd *os.File) (ws unix.WaitStatus, ok bool, err error) {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return 0, false, err
	}
	info := pidfdInfo{Mask: pidfdInfoExit}
	var errno unix.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
	})
	switch {
	case err != nil:
		return 0, false, err
	case errors.Is(errno, unix.ESRCH): // dead, and not reaped yet or reaped by an older kernel
		return 0, false, nil
	case errno != 0:
		return 0, false, errno
	case info.Mask&pidfdInfoExit == 0:
		return 0, false, nil
	}
	return unix.WaitStatus(info.ExitCode), true, nil
}
