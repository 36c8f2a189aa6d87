// Package logs owns the CRI log format: how a guest's output becomes lines of
// a log file, and how such a line is read again.
//
// A line is "TIME STREAM TAG TEXT\n": TIME as RFC 3339 with nanoseconds in
// UTC, STREAM "stdout" or "stderr", TAG "F" for the last or only piece of a
// line of output and "P" for a piece whose rest follows. A piece has at most
// MaxText bytes. What ends a line goes to the file with the call that brought
// it; an unfinished line waits for its end, or for Flush, which writes it as
// "P" (a prompt, before the guest blocks or ends).
//
// Each write to the file is one writev of whole lines on a descriptor opened
// with O_APPEND, so that neither stream ever cuts into the other's line, nor a
// second writer into ours.
//
// A guest never learns that its log cannot be written: a full or failing disk
// costs it log lines, not its life. What could not be written is dropped and
// counted, and the first write that works again begins with a line that says
// how much was lost and why. The package never retries in a loop and never
// waits but for the kernel's own write.
//
// Lock order: Log.mu alone.
package logs

import (
	"errors"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// MaxText is the size in bytes beyond which a line of output is cut into
// pieces, the same as other CRI runtimes use.
const MaxText = 16 << 10

// Stream says which of a guest's outputs a piece belongs to.
type Stream uint8

// The streams of a guest.
const (
	Stdout Stream = iota
	Stderr
	streams
)

var streamNames = [streams]string{"stdout", "stderr"}

// String returns the stream's name in the log.
func (s Stream) String() string {
	if s < streams {
		return streamNames[s]
	}
	return "stream " + strconv.Itoa(int(s))
}

// Log writes the output of one guest.
type Log struct {
	mu   sync.Mutex
	out  out
	held [streams][]byte // the unfinished line of each stream; len < MaxText
}

// New returns a Log on a descriptor opened with O_APPEND, which it owns.
func New(fd int) *Log {
	return &Log{out: out{fd: fd}}
}

// Writer is one stream of a Log.
type Writer struct {
	log    *Log
	stream Stream
}

// Stream returns the writer of one stream.
func (l *Log) Stream(s Stream) *Writer { return &Writer{log: l, stream: s} }

// Write takes output of the guest. It always takes all of p and never fails:
// see the package comment. It keeps nothing of p.
func (w *Writer) Write(p []byte) (int, error) {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	w.log.writeLocked(w.stream, p)
	return len(p), nil
}

// Flush writes the stream's unfinished line, if there is one. It never fails.
func (w *Writer) Flush() error {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	w.log.flushLocked(w.stream)
	return nil
}

// Flush writes the unfinished lines of all streams.
func (l *Log) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range streams {
		l.flushLocked(s)
	}
}

// TryFlush does what Flush does unless a write is under way, and reports
// whether it did. It is for an end that must not wait for a hanging disk.
func (l *Log) TryFlush() bool {
	if !l.mu.TryLock() {
		return false
	}
	defer l.mu.Unlock()
	for s := range streams {
		l.flushLocked(s)
	}
	return true
}

// reopenBound is how long Reopen waits for a write that is under way, and
// reopenTick how often it looks. Who asks for it has other things to answer.
const (
	reopenBound = time.Second
	reopenTick  = time.Millisecond
)

// Reopen lets the log go on in another file, which it owns from now on; the
// former one is closed. An unfinished line ends up whole in the new file. It
// fails, and closes the new file, if a write to the former one hangs.
func (l *Log) Reopen(fd int) error {
	for deadline := time.Now().Add(reopenBound); !l.mu.TryLock(); time.Sleep(reopenTick) {
		if time.Now().After(deadline) {
			_ = syscall.Close(fd) // it was only opened
			return errors.New("a write to the former log file hangs: its disk is slow or broken")
		}
	}
	defer l.mu.Unlock()
	old := l.out.fd
	l.out.fd = fd
	l.out.torn = false
	if err := syscall.Close(old); err != nil {
		return errors.New("close the former log file: " + err.Error())
	}
	return nil
}

// Close writes what is unfinished and closes the file.
func (l *Log) Close() error {
	l.Flush()
	l.mu.Lock()
	defer l.mu.Unlock()
	return syscall.Close(l.out.fd)
}

// writeLocked cuts p into lines.
//
// Preconditions: mu held.
func (l *Log) writeLocked(s Stream, p []byte) {
	l.out.begin(s, time.Now())
	for len(p) > 0 {
		n := indexNewline(p)
		if n < 0 {
			break
		}
		p = l.lineLocked(s, p[:n+1], p[n+1:])
	}
	for len(p)+len(l.held[s]) > MaxText {
		// The rest stays until we know whether it is the line's last piece.
		n := MaxText - len(l.held[s])
		l.out.piece(l.held[s], p[:n], partial)
		l.settleLocked(s)
		p = p[n:]
	}
	l.out.flush()
	l.held[s] = append(l.held[s], p...)
}

// lineLocked writes what ends with a newline, together with what was held.
//
// Preconditions: mu held.
func (l *Log) lineLocked(s Stream, line, rest []byte) []byte {
	for len(l.held[s])+len(line)-1 > MaxText {
		n := MaxText - len(l.held[s])
		l.out.piece(l.held[s], line[:n], partial)
		l.settleLocked(s)
		line = line[n:]
	}
	l.out.piece(l.held[s], line, final)
	l.settleLocked(s)
	return rest
}

// settleLocked forgets the held bytes once they are in the file; they are
// referred to by the batch until it is flushed.
//
// Preconditions: mu held.
func (l *Log) settleLocked(s Stream) {
	if len(l.held[s]) > 0 {
		l.out.flush()
		l.held[s] = l.held[s][:0]
	}
}

// flushLocked writes an unfinished line as a partial one.
//
// Preconditions: mu held.
func (l *Log) flushLocked(s Stream) {
	if len(l.held[s]) == 0 {
		return
	}
	l.out.begin(s, time.Now())
	l.out.piece(l.held[s], nil, partial)
	l.settleLocked(s)
	l.out.flush()
}

// indexNewline is bytes.IndexByte without the package.
func indexNewline(p []byte) int {
	for i, c := range p {
		if c == '\n' {
			return i
		}
	}
	return -1
}
