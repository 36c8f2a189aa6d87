package wasi

import "golang.org/x/sys/unix"

// stream is a standard stream that the guest writes to.
type stream struct {
	out   Output
	dirty bool // written to since the last flush
}

func (o *stream) write(b *Buffers) (int, error) {
	n := 0
	for i := range b.n {
		p := b.bytes(i)
		if o.out == nil || len(p) == 0 {
			n += len(p)
			continue
		}
		o.dirty = true
		m, err := o.out.Write(p)
		n += min(max(m, 0), len(p))
		if err != nil {
			if n > 0 {
				return n, nil
			}
			return 0, unix.EIO
		}
		if m < len(p) {
			break
		}
	}
	return n, nil
}

func (o *stream) flush() error {
	if !o.dirty {
		return nil
	}
	o.dirty = false
	if o.out.Flush() != nil {
		return unix.EIO
	}
	return nil
}

// Flush passes on what the guest wrote to its standard streams.
func (s *System) Flush() error {
	err := s.stdout.flush()
	if e := s.stderr.flush(); err == nil {
		err = e
	}
	return err
}

func (s *System) addStdio() {
	in := &Descriptor{kind: kindStdin, fd: s.stdin, from: -1, base: rightsStdin}
	if s.stdin >= 0 {
		in.filetype = typeOf(s.stdin)
		if in.filetype == TypeRegularFile || in.filetype == TypeCharacterDevice {
			in.filetype = TypeUnknown // a stream, and no terminal
		}
	}
	s.table.add(in)
	// Neither is a terminal: what is written there ends in a log.
	s.table.add(&Descriptor{kind: kindOutput, fd: -1, from: -1, base: rightsOutput, out: &s.stdout})
	s.table.add(&Descriptor{kind: kindOutput, fd: -1, from: -1, base: rightsOutput, out: &s.stderr})
}

func typeOf(fd int) Filetype {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return TypeUnknown
	}
	return typeOfMode(st.Mode)
}

// readStdin reads from standard input. Its open file may be shared with
// others and blocking, so it is read only once it is ready.
func (s *System) readStdin(d *Descriptor, b *Buffers) (int, error) {
	if b.total() == 0 {
		return 0, nil
	}
	for {
		ended := s.stdinEnded.Load()
		if d.fd < 0 {
			return 0, nil
		}
		s.pair[1] = unix.PollFd{Fd: int32(d.fd), Events: unix.POLLIN}
		deadline := forever
		if ended || d.flags&FlagNonblock != 0 {
			deadline = 0
		}
		if err := s.wait(s.pair[:], deadline); err != nil {
			return 0, err
		}
		if s.pair[1].Revents != 0 {
			n, err := readv(d.fd, b.v[:b.n])
			if err == unix.EAGAIN && d.flags&FlagNonblock == 0 {
				continue
			}
			return n, err
		}
		if ended {
			return 0, nil
		}
		if deadline == 0 && !s.stdinEnded.Load() {
			return 0, unix.EAGAIN
		}
	}
}
