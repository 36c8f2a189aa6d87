package logs

import (
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// tag is the third field of a log line.
type tag byte

const (
	partial tag = 'P'
	final   tag = 'F'
)

const (
	// maxBatch is the number of lines that go out in one writev: enough that
	// the call's cost is spread, and few enough for a host's memory.
	maxBatch = 32
	// ioPerPiece is the most entries of a writev that a piece takes: header,
	// held bytes, new bytes, newline.
	ioPerPiece = 4
	// timeLen is the length of "2006-01-02T15:04:05.000000000Z".
	timeLen = 30
	// headLen is the length of a header: time, space, stream, space, tag,
	// space. Both streams' names are equally long.
	headLen = timeLen + 1 + 6 + 1 + 1 + 1
)

// batch is the memory of one writev. It is made with the first line, since
// many guests that wait write none.
type batch struct {
	heads [maxBatch][headLen]byte
	iov   [maxBatch * ioPerPiece]syscall.Iovec
}

// out collects pieces into batches and writes them.
type out struct {
	fd     int
	b      *batch
	pieces int // in the batch
	iovs   int
	bytes  int
	head   [headLen]byte
	sec    int64 // the second that head's date stands for
	torn   bool  // the file ends in the middle of a line
	lost   uint64
	cause  syscall.Errno
}

var newline = [1]byte{'\n'}

// begin sets the time and the stream of the pieces that follow.
func (o *out) begin(s Stream, now time.Time) {
	if o.b == nil {
		o.b = new(batch)
	}
	sec := now.Unix()
	if sec != o.sec || o.head[0] == 0 {
		o.sec = sec
		putDate(&o.head, now.UTC())
	}
	putDigits(o.head[20:29], now.Nanosecond())
	copy(o.head[timeLen:], " ")
	copy(o.head[timeLen+1:], s.String())
	o.head[headLen-3], o.head[headLen-1] = ' ', ' '
}

// piece adds one line of the log: held and text together, without copying
// them. Text of a final piece ends with its newline.
func (o *out) piece(held, text []byte, t tag) {
	o.head[headLen-2] = byte(t)
	o.b.heads[o.pieces] = o.head
	o.add(o.b.heads[o.pieces][:])
	o.add(held)
	o.add(text)
	if t == partial {
		o.add(newline[:])
	}
	if o.pieces++; o.pieces == maxBatch {
		o.flush()
	}
}

func (o *out) add(p []byte) {
	if len(p) == 0 {
		return
	}
	v := &o.b.iov[o.iovs]
	v.Base = unsafe.SliceData(p)
	v.SetLen(len(p))
	o.iovs++
	o.bytes += len(p)
}

// flush writes the batch.
func (o *out) flush() {
	if o.iovs == 0 {
		return
	}
	if o.mended() {
		o.writeBatch()
	} else {
		o.lost += uint64(o.bytes)
	}
	for i := range o.iovs {
		o.b.iov[i].Base = nil
	}
	o.pieces, o.iovs, o.bytes = 0, 0, 0
}

// writeBatch writes the batch with as few calls as the kernel needs. A short
// write is followed by another try, which then gives the reason.
func (o *out) writeBatch() {
	iov := o.b.iov[:o.iovs]
	left := o.bytes
	for left > 0 {
		n, _, errno := syscall.Syscall(syscall.SYS_WRITEV, uintptr(o.fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
		switch {
		case errno == syscall.EINTR:
			continue
		case errno != 0 || n == 0:
			o.drop(left, errno)
			return
		}
		left -= int(n)
		o.torn = left > 0
		iov = advance(iov, int(n))
	}
}

// advance leaves out the first n bytes.
func advance(iov []syscall.Iovec, n int) []syscall.Iovec {
	for len(iov) > 0 && n >= int(iov[0].Len) {
		n -= int(iov[0].Len)
		iov = iov[1:]
	}
	if n > 0 {
		iov[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(iov[0].Base), n))
		iov[0].SetLen(int(iov[0].Len) - n)
	}
	return iov
}

func (o *out) drop(n int, errno syscall.Errno) {
	if errno == 0 {
		errno = syscall.EIO
	}
	o.lost += uint64(n)
	o.cause = errno
}

// mended reports whether the file takes lines. After a failure it first ends
// the torn line and writes the note about what was lost.
func (o *out) mended() bool {
	if o.lost == 0 && !o.torn {
		return true
	}
	note := make([]byte, 0, 160)
	if o.torn {
		note = append(note, '\n')
	}
	if o.lost > 0 {
		note = append(note, o.head[:timeLen]...)
		note = append(note, " stderr F limpet: about "...)
		note = strconv.AppendUint(note, o.lost, 10)
		note = append(note, " bytes of the log could not be written: "...)
		note = append(note, o.cause.Error()...)
		note = append(note, '\n')
	}
	for {
		n, err := syscall.Write(o.fd, note)
		if err == syscall.EINTR {
			continue
		}
		if n == len(note) {
			o.lost, o.torn = 0, false
			return true
		}
		if n > 0 {
			o.torn = true
		}
		if errno, ok := err.(syscall.Errno); ok {
			o.cause = errno
		}
		return false
	}
}

// putDate writes "2006-01-02T15:04:05." and the Z.
func putDate(head *[headLen]byte, t time.Time) {
	year, month, day := t.Date()
	hour, min, sec := t.Clock()
	putDigits(head[0:4], year)
	head[4] = '-'
	putDigits(head[5:7], int(month))
	head[7] = '-'
	putDigits(head[8:10], day)
	head[10] = 'T'
	putDigits(head[11:13], hour)
	head[13] = ':'
	putDigits(head[14:16], min)
	head[16] = ':'
	putDigits(head[17:19], sec)
	head[19] = '.'
	head[29] = 'Z'
}

// putDigits fills b with the last digits of v.
func putDigits(b []byte, v int) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
}
