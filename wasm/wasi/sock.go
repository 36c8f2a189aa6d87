package wasi

import "golang.org/x/sys/unix"

// Accept takes a connection from a listening socket and returns the new
// descriptor's number.
func (s *System) Accept(fd uint32, flags FDFlags) (uint32, error) {
	d, err := s.table.get(fd)
	if err != nil {
		return 0, err
	}
	switch d.kind {
	case kindListener:
	case kindStream:
		return 0, unix.EINVAL
	default:
		return 0, unix.ENOTSOCK
	}
	if d.base&RightSockAccept == 0 {
		return 0, ErrNotCapable
	}
	if flags&^FlagNonblock != 0 {
		return 0, unix.EINVAL
	}
	if !s.table.room() {
		return 0, unix.EMFILE
	}
	for {
		conn, _, err := unix.Accept4(d.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			c := newStream(conn, d.inherit&rightsStream)
			c.flags = flags
			return s.table.add(c)
		case err == unix.EINTR || err == unix.ECONNABORTED:
			continue
		case err != unix.EAGAIN || d.flags&FlagNonblock != 0:
			return 0, err
		}
		if err := s.waitFor(d.fd, unix.POLLIN); err != nil {
			return 0, err
		}
	}
}

// stream returns a connected socket that has all rights of need.
func (s *System) stream(fd uint32, need Rights) (*Descriptor, error) {
	d, err := s.table.get(fd)
	if err != nil {
		return nil, err
	}
	switch d.kind {
	case kindStream:
	case kindListener:
		return nil, unix.ENOTCONN
	default:
		return nil, unix.ENOTSOCK
	}
	if d.base&need != need {
		return nil, ErrNotCapable
	}
	return d, nil
}

// Receive reads from a connection. peek leaves the bytes there; all waits
// until the buffers are full or the connection's end.
func (s *System) Receive(fd uint32, b *Buffers, peek, all bool) (n int, truncated bool, err error) {
	d, err := s.stream(fd, RightFDRead)
	if err != nil {
		return 0, false, err
	}
	flags := unix.MSG_DONTWAIT
	if peek {
		flags |= unix.MSG_PEEK
	}
	want := b.total()
	v := b.v[:b.n]
	for {
		h := unix.Msghdr{}
		if len(v) > 0 {
			h.Iov = &v[0]
			h.SetIovlen(len(v))
		}
		m, err := message(unix.SYS_RECVMSG, d.fd, &h, flags)
		switch {
		case err == unix.EAGAIN && d.flags&FlagNonblock == 0:
			if err := s.waitFor(d.fd, unix.POLLIN); err != nil {
				return 0, false, err
			}
			continue
		case err != nil && n > 0:
			return n, false, nil
		case err != nil:
			return 0, false, err
		}
		n += m
		if !all || peek || m == 0 || uint64(n) >= want {
			return n, h.Flags&unix.MSG_TRUNC != 0, nil
		}
		v = advance(v, m)
	}
}

// advance drops the first n bytes of v, in place.
func advance(v []unix.Iovec, n int) []unix.Iovec {
	for len(v) > 0 && uint64(n) >= uint64(v[0].Len) {
		n -= int(v[0].Len)
		v = v[1:]
	}
	if len(v) > 0 && n > 0 {
		v[0].Base = at(v[0].Base, n)
		v[0].SetLen(int(v[0].Len) - n)
	}
	return v
}

// Send writes to a connection.
func (s *System) Send(fd uint32, b *Buffers) (int, error) {
	d, err := s.stream(fd, RightFDWrite)
	if err != nil {
		return 0, err
	}
	return s.send(d, b)
}

func (s *System) send(d *Descriptor, b *Buffers) (int, error) {
	h := unix.Msghdr{}
	if b.n > 0 {
		h.Iov = &b.v[0]
		h.SetIovlen(b.n)
	}
	for {
		n, err := message(unix.SYS_SENDMSG, d.fd, &h, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if err != unix.EAGAIN || d.flags&FlagNonblock != 0 {
			return n, err
		}
		if err := s.waitFor(d.fd, unix.POLLOUT); err != nil {
			return 0, err
		}
	}
}

// Shutdown ends a connection's directions.
func (s *System) Shutdown(fd uint32, read, write bool) error {
	d, err := s.table.get(fd)
	if err != nil {
		return err
	}
	switch {
	case d.kind != kindStream && d.kind != kindListener:
		return unix.ENOTSOCK
	case d.base&RightSockShutdown == 0:
		return ErrNotCapable
	case d.kind == kindListener:
		return unix.ENOTCONN
	case read && write:
		return unix.Shutdown(d.fd, unix.SHUT_RDWR)
	case read:
		return unix.Shutdown(d.fd, unix.SHUT_RD)
	case write:
		return unix.Shutdown(d.fd, unix.SHUT_WR)
	}
	return unix.EINVAL
}
