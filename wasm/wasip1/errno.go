package wasip1

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm/wasi"
)

// Errno is an error number of preview 1.
type Errno uint16

// The numbers that are given here.
const (
	errnoSuccess     Errno = 0
	errno2big        Errno = 1
	errnoAcces       Errno = 2
	errnoAgain       Errno = 6
	errnoBadf        Errno = 8
	errnoBusy        Errno = 10
	errnoConnaborted Errno = 13
	errnoConnrefused Errno = 14
	errnoConnreset   Errno = 15
	errnoDeadlk      Errno = 16
	errnoDquot       Errno = 19
	errnoExist       Errno = 20
	errnoFault       Errno = 21
	errnoFbig        Errno = 22
	errnoHostunreach Errno = 23
	errnoIntr        Errno = 27
	errnoInval       Errno = 28
	errnoIo          Errno = 29
	errnoIsdir       Errno = 31
	errnoLoop        Errno = 32
	errnoMfile       Errno = 33
	errnoMlink       Errno = 34
	errnoNametoolong Errno = 37
	errnoNetdown     Errno = 38
	errnoNetreset    Errno = 39
	errnoNetunreach  Errno = 40
	errnoNfile       Errno = 41
	errnoNobufs      Errno = 42
	errnoNodev       Errno = 43
	errnoNoent       Errno = 44
	errnoNomem       Errno = 48
	errnoNospc       Errno = 51
	errnoNosys       Errno = 52
	errnoNotconn     Errno = 53
	errnoNotdir      Errno = 54
	errnoNotempty    Errno = 55
	errnoNotsock     Errno = 57
	errnoNotsup      Errno = 58
	errnoNxio        Errno = 60
	errnoOverflow    Errno = 61
	errnoPerm        Errno = 63
	errnoPipe        Errno = 64
	errnoRange       Errno = 68
	errnoRofs        Errno = 69
	errnoSpipe       Errno = 70
	errnoStale       Errno = 72
	errnoTimedout    Errno = 73
	errnoTxtbsy      Errno = 74
	errnoXdev        Errno = 75
	errnoNotcapable  Errno = 76
)

// ErrnoOf is the one place where an error becomes a number that a guest sees.
// What has no number of its own is EIO.
func ErrnoOf(err error) Errno {
	switch e := err.(type) {
	case nil:
		return errnoSuccess
	case unix.Errno:
		return errnoOfKernel(e)
	}
	var e unix.Errno
	if errors.As(err, &e) {
		return errnoOfKernel(e)
	}
	if errors.Is(err, wasi.ErrNotCapable) {
		return errnoNotcapable
	}
	return errnoIo
}

// errnoOfKernel translates a number of Linux.
func errnoOfKernel(e unix.Errno) Errno {
	switch e {
	case unix.E2BIG:
		return errno2big
	case unix.EACCES:
		return errnoAcces
	case unix.EAGAIN:
		return errnoAgain
	case unix.EBADF:
		return errnoBadf
	case unix.EBUSY:
		return errnoBusy
	case unix.ECONNABORTED:
		return errnoConnaborted
	case unix.ECONNREFUSED:
		return errnoConnrefused
	case unix.ECONNRESET:
		return errnoConnreset
	case unix.EDEADLK:
		return errnoDeadlk
	case unix.EDQUOT:
		return errnoDquot
	case unix.EEXIST:
		return errnoExist
	case unix.EFAULT:
		return errnoFault
	case unix.EFBIG:
		return errnoFbig
	case unix.EHOSTUNREACH:
		return errnoHostunreach
	case unix.EINTR:
		return errnoIntr
	case unix.EINVAL:
		return errnoInval
	case unix.EISDIR:
		return errnoIsdir
	case unix.ELOOP:
		return errnoLoop
	case unix.EMFILE:
		return errnoMfile
	case unix.EMLINK:
		return errnoMlink
	case unix.ENAMETOOLONG:
		return errnoNametoolong
	}
	return errnoOfKernelRest(e)
}

func errnoOfKernelRest(e unix.Errno) Errno {
	switch e {
	case unix.ENETDOWN:
		return errnoNetdown
	case unix.ENETRESET:
		return errnoNetreset
	case unix.ENETUNREACH:
		return errnoNetunreach
	case unix.ENFILE:
		return errnoNfile
	case unix.ENOBUFS:
		return errnoNobufs
	case unix.ENODEV:
		return errnoNodev
	case unix.ENOENT:
		return errnoNoent
	case unix.ENOMEM:
		return errnoNomem
	case unix.ENOSPC:
		return errnoNospc
	case unix.ENOSYS:
		return errnoNosys
	case unix.ENOTCONN:
		return errnoNotconn
	case unix.ENOTDIR:
		return errnoNotdir
	case unix.ENOTEMPTY:
		return errnoNotempty
	case unix.ENOTSOCK:
		return errnoNotsock
	case unix.EOPNOTSUPP:
		return errnoNotsup
	case unix.ENXIO:
		return errnoNxio
	case unix.EOVERFLOW:
		return errnoOverflow
	case unix.EPERM:
		return errnoPerm
	case unix.EPIPE:
		return errnoPipe
	case unix.ERANGE:
		return errnoRange
	case unix.EROFS:
		return errnoRofs
	case unix.ESPIPE:
		return errnoSpipe
	case unix.ESTALE:
		return errnoStale
	case unix.ETIMEDOUT:
		return errnoTimedout
	case unix.ETXTBSY:
		return errnoTxtbsy
	case unix.EXDEV:
		return errnoXdev
	}
	return errnoIo
}
