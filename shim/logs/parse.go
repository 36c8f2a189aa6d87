package logs

import (
	"errors"
	"time"
)

// MaxLine bounds a line of the log that Parse takes: a piece of output and its
// header.
const MaxLine = MaxText + headLen + 1

// ErrMalformed is returned for bytes that are not a line of a CRI log.
var ErrMalformed = errors.New("not a line of a CRI log")

// Entry is one line of a log: a piece of a guest's output.
type Entry struct {
	Time    time.Time
	Stream  Stream
	Partial bool
	Text    []byte // without the newline; part of the bytes given to Parse
}

// Parse reads the first line of b and returns what follows it. A line without
// its newline is malformed, as one that is still being written.
func Parse(b []byte) (e Entry, rest []byte, err error) {
	n := indexNewline(b[:min(len(b), MaxLine)])
	if n < 0 {
		return Entry{}, b, ErrMalformed
	}
	line, rest := b[:n], b[n+1:]
	stamp, line, ok := field(line)
	if !ok {
		return Entry{}, rest, ErrMalformed
	}
	if e.Time, err = time.Parse(time.RFC3339Nano, string(stamp)); err != nil {
		return Entry{}, rest, ErrMalformed
	}
	stream, line, ok := field(line)
	if !ok {
		return Entry{}, rest, ErrMalformed
	}
	switch string(stream) {
	case "stdout":
		e.Stream = Stdout
	case "stderr":
		e.Stream = Stderr
	default:
		return Entry{}, rest, ErrMalformed
	}
	switch t, text, ok := field(line); {
	case !ok || len(t) != 1:
		return Entry{}, rest, ErrMalformed
	case tag(t[0]) == partial:
		e.Partial, e.Text = true, text
	case tag(t[0]) == final:
		e.Text = text
	default:
		return Entry{}, rest, ErrMalformed
	}
	return e, rest, nil
}

// field cuts b at its first space.
func field(b []byte) (head, tail []byte, ok bool) {
	for i, c := range b {
		if c == ' ' {
			return b[:i], b[i+1:], true
		}
	}
	return nil, nil, false
}
