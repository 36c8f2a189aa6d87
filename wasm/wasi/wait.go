package wasi

import "golang.org/x/sys/unix"

// forever is the deadline of a wait that only an event ends.
const forever = int64(-1)

// Interrupt ends the call that the guest is in, if it waits, and every later
// one with ErrInterrupted. Only the first error counts. Any goroutine may call
// it.
func (s *System) Interrupt(err error) {
	if err == nil {
		err = ErrInterrupted
	}
	if s.stop.CompareAndSwap(nil, &interrupt{err}) {
		s.look()
	}
}

// Err returns the error that Interrupt was called with, or nil.
func (s *System) Err() error {
	if i := s.stop.Load(); i != nil {
		return i.err
	}
	return nil
}

// CloseStdin lets the guest find the end of its standard input, now or after
// what can be read without waiting. Any goroutine may call it.
func (s *System) CloseStdin() {
	s.stdinEnded.Store(true)
	s.look()
}

// StopListening makes the kernel refuse new connections on every listening
// socket; a guest that waits in accept gets an error. Any goroutine may call
// it.
func (s *System) StopListening() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fd := range s.listeners {
		unix.Shutdown(fd, unix.SHUT_RDWR) // ENOTCONN: it was stopped before
	}
	s.lookLocked()
}

// look makes a guest that waits look at what changed.
func (s *System) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookLocked()
}

func (s *System) lookLocked() {
	if s.wake < 0 {
		return
	}
	one := [8]byte{1}
	unix.Write(s.wake, one[:]) // EAGAIN: it is readable already
}

// wait blocks until one of p is ready, the deadline (CLOCK_MONOTONIC, in
// nanoseconds) is over, or somebody called look; the caller finds out which.
// p[0] is filled in here.
func (s *System) wait(p []unix.PollFd, deadline int64) error {
	p[0] = unix.PollFd{Fd: int32(s.wake), Events: unix.POLLIN}
	if deadline != 0 {
		s.Flush() // a stream that fails says so at the next write
	}
	for {
		if s.stop.Load() != nil {
			return ErrInterrupted
		}
		var ts *unix.Timespec
		if deadline != forever {
			left := max(deadline-monotonic(), 0)
			s.ts = unix.NsecToTimespec(left)
			ts = &s.ts
		}
		_, err := unix.Ppoll(p, ts, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if s.stop.Load() != nil {
			return ErrInterrupted
		}
		if p[0].Revents != 0 {
			s.ts = unix.Timespec{}
			var b [8]byte
			unix.Read(s.wake, b[:])
		}
		return nil
	}
}

// waitFor waits until fd is ready for events.
func (s *System) waitFor(fd int, events int16) error {
	s.pair[1] = unix.PollFd{Fd: int32(fd), Events: events}
	return s.wait(s.pair[:], forever)
}
