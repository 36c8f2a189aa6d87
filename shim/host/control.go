package host

import (
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/spec"
)

// maxConns is the number of supervisors served at a time; one more takes the
// place of the oldest.
const maxConns = 4

// maxRequest is more than any request has bytes; a longer one is cut, and not
// understood.
const maxRequest = 64

// control answers the control socket.
type control struct {
	h     *host
	conns []int // oldest first
	// spare is a descriptor that is given up to accept a supervisor when the
	// guest has used up all others.
	spare int
	// starter is the connection that waits for the guest's start.
	starter int
}

func newControl(h *host) *control {
	_ = unix.SetNonblock(spec.FDControl, true) // it was made so
	return &control{h: h, spare: spare(), starter: -1}
}

func spare() int {
	fd, err := unix.FcntlInt(spec.FDControl, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// serve answers until a request asks for the guest's start, or for ever.
func (c *control) serve() {
	var polled [1 + maxConns]unix.PollFd
	for {
		p := append(polled[:0], unix.PollFd{Fd: spec.FDControl, Events: unix.POLLIN})
		for _, fd := range c.conns {
			p = append(p, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
		if _, err := unix.Poll(p, -1); err != nil {
			continue // EINTR: a signal of the runtime's own
		}
		start := false
		for _, e := range p[1:] {
			if e.Revents != 0 && c.answer(int(e.Fd)) {
				start = true
			}
		}
		if p[0].Revents != 0 {
			c.accept()
		}
		if start {
			return
		}
	}
}

// accept takes a new connection and says hello.
func (c *control) accept() {
	fd, _, err := unix.Accept4(spec.FDControl, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err == unix.EMFILE && c.spare >= 0 {
		unix.Close(c.spare)
		c.spare = -1
		fd, _, err = unix.Accept4(spec.FDControl, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	}
	if err != nil {
		if err == unix.EMFILE && len(c.conns) > 0 {
			c.drop(c.conns[0])
		}
		return
	}
	if len(c.conns) == maxConns {
		c.drop(c.conns[0])
	}
	c.conns = append(c.conns, fd)
	c.send(fd, &spec.Message{Op: spec.OpHello, Version: spec.ProtocolVersion, Phase: spec.Phase(c.h.phase.Load())})
}

func (c *control) drop(fd int) {
	unix.Close(fd)
	for i, have := range c.conns {
		if have == fd {
			c.conns = append(c.conns[:i], c.conns[i+1:]...)
			break
		}
	}
	if c.spare < 0 {
		c.spare = spare()
	}
}

// send never waits: a supervisor has one request under way, and its socket
// holds more than one reply.
func (c *control) send(fd int, m *spec.Message) {
	_, _ = unix.SendmsgN(fd, m.Encode(), nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
}

// answer reads one request and carries it out. It reports whether the guest is
// to start.
func (c *control) answer(fd int) (start bool) {
	var b [maxRequest]byte
	var rights [32]byte // one descriptor
	n, nr, _, _, err := unix.Recvmsg(fd, b[:], rights[:], unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	switch {
	case err == unix.EAGAIN, err == unix.EINTR:
		return false
	case err != nil, n == 0:
		c.drop(fd)
		return false
	}
	sent := received(rights[:nr])
	m, err := spec.DecodeMessage(b[:n])
	if err != nil {
		closeAll(sent)
		c.refuse(fd, err.Error())
		return false
	}
	if m.Op == spec.OpReopenLog {
		c.reopen(fd, sent)
		return false
	}
	closeAll(sent)
	switch m.Op {
	case spec.OpStart:
		return c.start(fd)
	case spec.OpStop:
		c.send(fd, &spec.Message{Op: spec.OpDone})
		c.h.stop(m.Signal)
	case spec.OpBound:
		c.h.bound(m.Bytes)
		c.send(fd, &spec.Message{Op: spec.OpDone})
	default:
		c.refuse(fd, "this request is not known to the host")
	}
	return false
}

func (c *control) refuse(fd int, why string) {
	c.send(fd, &spec.Message{Op: spec.OpError, Text: why})
}

// start lets the guest run; the reply is given once it is instantiated, by its
// own goroutine, on a descriptor of its own: this one may be closed meanwhile.
func (c *control) start(fd int) bool {
	if !c.h.phase.CompareAndSwap(uint32(spec.PhaseReady), uint32(spec.PhaseRunning)) {
		c.refuse(fd, "the guest runs already")
		return false
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		c.starter = own
	}
	return true
}

// started replies to the request for the start.
func (c *control) started(err error) {
	m := &spec.Message{Op: spec.OpDone}
	if err != nil {
		m = &spec.Message{Op: spec.OpError, Text: err.Error()}
	}
	c.send(c.starter, m)
	unix.Close(c.starter)
}

// reopen lets the log go on in the descriptor that came along.
func (c *control) reopen(fd int, sent []int) {
	if len(sent) != 1 {
		closeAll(sent)
		c.refuse(fd, "a log to go on in did not arrive: the guest may have used up its descriptors")
		return
	}
	if err := c.h.log.Reopen(sent[0]); err != nil {
		c.refuse(fd, err.Error())
		return
	}
	c.send(fd, &spec.Message{Op: spec.OpDone})
}

// received returns the descriptors of a control message.
func received(b []byte) []int {
	msgs, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		return nil
	}
	var l []int
	for i := range msgs {
		if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			l = append(l, fds...)
		}
	}
	return l
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
