package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/spec"
)

// backlog is the number of supervisors that may wait to be accepted.
const backlog = 16

// listen makes the control socket of a host, which inherits it. It is bound
// and listening before the host exists: whoever can connect knows that a host
// lives, or is about to.
func listen(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// Whatever the umask is: who may write to the socket may stop the guest.
	if err := unix.Fchmod(fd, 0o600); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "fchmod", Path: path, Err: err}
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "bind", Path: path, Err: err}
	}
	if err := unix.Listen(fd, backlog); err != nil {
		unix.Close(fd)
		os.Remove(path)
		return nil, &os.PathError{Op: "listen", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// conn is a connection to a host.
type conn struct {
	f       *os.File
	version uint8 // of the protocol that the host speaks, once hello has returned
}

// dial connects to a host. It never waits: the kernel connects to whatever
// listens, and refuses when nothing does or too many wait already.
func dial(path string) (*conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "connect", Path: path, Err: err}
	}
	return &conn{f: os.NewFile(uintptr(fd), path)}, nil
}

func (c *conn) close() { c.f.Close() }

// receive waits for a message, at most for the time given.
func (c *conn) receive(ctx context.Context, wait time.Duration) (*spec.Message, error) {
	if err := c.f.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b := make([]byte, spec.MaxControlMessage)
	n, err := c.f.Read(b)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("host did not answer within %v: %w", wait, err)
	case err == nil && n == 0, errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return nil, io.EOF
	case err != nil:
		return nil, err
	}
	return spec.DecodeMessage(b[:n])
}

// hello reads the host's first message.
func (c *conn) hello(ctx context.Context, wait time.Duration) (spec.Phase, error) {
	m, err := c.receive(ctx, wait)
	if err != nil {
		return 0, err
	}
	if m.Op != spec.OpHello {
		return 0, fmt.Errorf("host spoke with message %d before its hello: %w", m.Op, spec.ErrMalformed)
	}
	if m.Version > spec.ProtocolVersion {
		return 0, fmt.Errorf("%w: it speaks version %d of the control protocol, this daemon %d; upgrade the daemon first",
			ErrHostFailed, m.Version, spec.ProtocolVersion)
	}
	c.version = m.Version
	return m.Phase, nil
}

// request sends m, with a descriptor if it is not negative, and waits for the
// reply.
func (c *conn) request(ctx context.Context, m *spec.Message, fd int) error {
	if err := c.send(m, fd); err != nil {
		return err
	}
	r, err := c.receive(ctx, replyTimeout)
	switch {
	case err != nil:
		return err
	case r.Op == spec.OpError:
		return fmt.Errorf("%w: %s", ErrHostFailed, r.Text)
	case r.Op != spec.OpDone:
		return fmt.Errorf("host replied with message %d: %w", r.Op, spec.ErrMalformed)
	}
	return nil
}

func (c *conn) send(m *spec.Message, fd int) error {
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	raw, err := c.f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(s uintptr) bool {
		sent = unix.Sendmsg(int(s), m.Encode(), rights, nil, unix.MSG_NOSIGNAL)
		return !errors.Is(sent, unix.EAGAIN)
	})
	if err == nil {
		err = sent
	}
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return io.EOF
	}
	return err
}
