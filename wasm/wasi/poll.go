package wasi

import (
	"math"

	"golang.org/x/sys/unix"
)

// EventType says what a subscription waits for, in the numbers of preview 1.
type EventType uint8

// What can be waited for.
const (
	EventClock EventType = iota
	EventRead
	EventWrite
)

// Subscription is one thing to wait for, and after Poll whether it came.
type Subscription struct {
	Userdata uint64
	Type     EventType
	Clock    ClockID // EventClock
	Absolute bool    // EventClock
	Timeout  uint64  // EventClock, in nanoseconds
	FD       uint32  // EventRead, EventWrite

	Ready  bool
	Err    error  // of a ready one
	Bytes  uint64 // that can be read, or 1 if that is not known
	Hangup bool

	deadline int64 // CLOCK_MONOTONIC
	slot     int   // in System.polled, or 0
}

// Subscriptions returns n subscriptions to fill in, valid for one Poll.
func (s *System) Subscriptions(n int) []Subscription {
	if cap(s.subs) < n {
		s.subs = make([]Subscription, n)
	}
	s.subs = s.subs[:n]
	clear(s.subs)
	return s.subs
}

// Poll waits until at least one subscription is ready and marks those that
// are.
func (s *System) Poll(subs []Subscription) error {
	for i := range subs {
		if subs[i].Type == EventClock {
			subs[i].schedule(s)
		}
	}
	for {
		ready, deadline := s.prepare(subs)
		if ready {
			deadline = 0
		}
		if err := s.wait(s.polled, deadline); err != nil {
			return err
		}
		if s.collect(subs) || ready {
			return nil
		}
	}
}

// schedule turns a clock's timeout into a time of CLOCK_MONOTONIC.
func (sub *Subscription) schedule(s *System) {
	if sub.Clock != ClockRealtime && sub.Clock != ClockMonotonic {
		sub.Ready, sub.Err = true, unix.EOPNOTSUPP
		if _, err := sub.Clock.kernel(); err != nil {
			sub.Err = err
		}
		return
	}
	left := sub.Timeout
	if sub.Absolute {
		now, err := s.Now(sub.Clock)
		if err != nil {
			sub.Ready, sub.Err = true, err
			return
		}
		left = 0
		if sub.Timeout > now {
			left = sub.Timeout - now
		}
	}
	now := monotonic()
	sub.deadline = now + int64(min(left, uint64(math.MaxInt64-now)))
}

// prepare fills System.polled and tells whether something is ready already,
// and the earliest deadline.
func (s *System) prepare(subs []Subscription) (ready bool, deadline int64) {
	s.polled = append(s.polled[:0], unix.PollFd{}) // wait's own
	deadline = forever
	for i := range subs {
		sub := &subs[i]
		sub.slot = 0
		switch {
		case sub.Ready:
		case sub.Type == EventClock:
			if deadline == forever || sub.deadline < deadline {
				deadline = sub.deadline
			}
		default:
			s.prepareFD(sub)
		}
		ready = ready || sub.Ready
	}
	return ready, deadline
}

func (s *System) prepareFD(sub *Subscription) {
	d, err := s.get(sub.FD, RightPollFDReadwrite)
	if err != nil {
		sub.Ready, sub.Err = true, err
		return
	}
	events := int16(unix.POLLIN)
	if sub.Type == EventWrite {
		events = unix.POLLOUT
	}
	switch d.kind {
	case kindPipe, kindListener, kindStream:
	case kindStdin:
		if sub.Type == EventWrite {
			sub.Ready, sub.Err = true, unix.EBADF
			return
		}
		if d.fd < 0 {
			sub.Ready, sub.Hangup = true, true
			return
		}
		if s.stdinEnded.Load() {
			sub.Ready, sub.Bytes = true, 1
			return
		}
	case kindOutput:
		if sub.Type == EventRead {
			sub.Err = unix.EBADF
		}
		sub.Ready, sub.Bytes = true, 1
		return
	case kindFile:
		sub.Ready, sub.Bytes = true, left(d.fd)
		return
	default:
		sub.Ready, sub.Err = true, unix.EBADF
		return
	}
	sub.slot = len(s.polled)
	s.polled = append(s.polled, unix.PollFd{Fd: int32(d.fd), Events: events})
}

// left returns how many bytes a file has behind its position.
func left(fd int) uint64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 1
	}
	pos, err := unix.Seek(fd, 0, unix.SEEK_CUR)
	if err != nil || pos >= st.Size {
		return 0
	}
	return uint64(st.Size - pos)
}

// collect marks what became ready while waiting.
func (s *System) collect(subs []Subscription) (any bool) {
	now := int64(0)
	for i := range subs {
		sub := &subs[i]
		switch {
		case sub.Ready:
		case sub.Type == EventClock:
			if now == 0 {
				now = monotonic()
			}
			sub.Ready = now >= sub.deadline
		case sub.slot > 0:
			sub.take(s.polled[sub.slot].Revents)
		}
		any = any || sub.Ready
	}
	return any
}

func (sub *Subscription) take(revents int16) {
	if revents == 0 {
		return
	}
	sub.Ready = true
	want := int16(unix.POLLIN)
	if sub.Type == EventWrite {
		want = unix.POLLOUT
	}
	if revents&want != 0 {
		sub.Bytes = 1
	}
	sub.Hangup = revents&(unix.POLLHUP|unix.POLLERR) != 0 && (revents&want == 0 || sub.Type == EventWrite)
	if revents&unix.POLLNVAL != 0 {
		sub.Err = unix.EBADF
	}
}
