package wasi

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// ClockID names a clock, in the numbers of preview 1.
type ClockID uint32

// The clocks of preview 1.
const (
	ClockRealtime ClockID = iota
	ClockMonotonic
	ClockProcess
	ClockThread
)

// kernel returns the kernel's number of a clock.
func (c ClockID) kernel() (int32, error) {
	switch c {
	case ClockRealtime:
		return unix.CLOCK_REALTIME, nil
	case ClockMonotonic:
		return unix.CLOCK_MONOTONIC, nil
	case ClockProcess:
		return unix.CLOCK_PROCESS_CPUTIME_ID, nil
	case ClockThread:
		return unix.CLOCK_THREAD_CPUTIME_ID, nil
	}
	return 0, unix.EINVAL
}

// Now returns a clock's time in nanoseconds.
func (s *System) Now(id ClockID) (uint64, error) {
	k, err := id.kernel()
	if err != nil {
		return 0, err
	}
	if err := unix.ClockGettime(k, &s.ts); err != nil {
		return 0, err
	}
	return uint64(s.ts.Nano()), nil
}

// Resolution returns a clock's resolution in nanoseconds.
func (s *System) Resolution(id ClockID) (uint64, error) {
	k, err := id.kernel()
	if err != nil {
		return 0, err
	}
	if err := unix.ClockGetres(k, &s.ts); err != nil {
		return 0, err
	}
	return uint64(s.ts.Nano()), nil
}

func monotonic() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail: the clock exists, ts is ours
	return ts.Nano()
}

// Random fills p with random bytes of the kernel's.
func (s *System) Random(p []byte) error {
	for len(p) > 0 {
		n, err := unix.Getrandom(p[:min(len(p), MaxRandom)], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
		if s.stop.Load() != nil {
			return ErrInterrupted
		}
	}
	return nil
}

// Yield lets others run.
func (s *System) Yield() { runtime.Gosched() }
