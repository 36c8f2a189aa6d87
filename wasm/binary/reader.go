package binary

import (
	"io"
	"strconv"
	"unicode/utf8"
)

// reader decodes a stretch of a file. The first fault sticks; after it every
// call returns zero, so that a loop over a count has to look at ok.
type reader struct {
	src   io.ReaderAt
	pos   int64 // of the next byte
	end   int64 // of the stretch
	buf   []byte
	start int64 // of buf in the file
	names int   // bytes that may still be kept as names
	err   error
}

const bufferSize = 4096

func newReader(src io.ReaderAt, at, end int64) *reader {
	return &reader{src: src, pos: at, end: end, names: maxNames, buf: make([]byte, 0, max(0, min(bufferSize, end-at)))}
}

func (r *reader) ok() bool { return r.err == nil }

func (r *reader) fail(err error, text string) {
	if r.err == nil {
		r.err = &Error{Offset: r.pos, Text: text, Err: err}
	}
}

func (r *reader) malformed(text string) { r.fail(ErrMalformed, text) }

// left returns how many bytes the stretch still has.
func (r *reader) left() int64 { return r.end - r.pos }

func (r *reader) u8() byte {
	if r.err != nil {
		return 0
	}
	if r.pos >= r.end {
		r.malformed("unexpected end")
		return 0
	}
	if off := r.pos - r.start; off < 0 || off >= int64(len(r.buf)) {
		if !r.fill() {
			return 0
		}
	}
	b := r.buf[r.pos-r.start]
	r.pos++
	return b
}

// fill reads the buffer anew from pos.
func (r *reader) fill() bool {
	r.buf, r.start = r.buf[:min(bufferSize, r.end-r.pos)], r.pos
	if err := readFull(r.src, r.buf, r.pos); err != nil {
		r.err = err
		return false
	}
	return true
}

func (r *reader) skip(n int64) {
	if n < 0 || n > r.left() {
		r.malformed("a length beyond the end")
		return
	}
	if r.err == nil {
		r.pos += n
	}
}

// unsigned reads a LEB128 number of at most bits bits.
func (r *reader) unsigned(bits uint) uint64 {
	var v uint64
	for shift := uint(0); ; shift += 7 {
		b := r.u8()
		if r.err != nil {
			return 0
		}
		if shift+7 > bits && (b&0x80 != 0 || b>>(bits-shift) != 0) {
			r.malformed("a number too large")
			return 0
		}
		v |= uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			return v
		}
	}
}

func (r *reader) u32() uint32 { return uint32(r.unsigned(32)) }
func (r *reader) u64() uint64 { return r.unsigned(64) }

// s33 reads a signed LEB128 number of at most 33 bits.
func (r *reader) s33() int64 {
	var v int64
	for shift := uint(0); shift < 35; shift += 7 {
		b := r.u8()
		if r.err != nil {
			return 0
		}
		v |= int64(b&0x7f) << shift
		if b&0x80 == 0 {
			if b&0x40 != 0 && shift+7 < 64 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
	r.malformed("a number too large")
	return 0
}

// count reads the length of a list. Each item takes a byte at least, so that a
// length beyond the rest is a fault before anything is made.
func (r *reader) count(limit int, what string) int {
	n := r.u32()
	if int64(n) > r.left() {
		r.malformed("a count of " + what + " beyond the end")
		return 0
	}
	if int64(n) > int64(limit) {
		r.fail(ErrTooLarge, strconv.FormatUint(uint64(n), 10)+" "+what+", at most "+strconv.Itoa(limit))
		return 0
	}
	return int(n)
}

// name reads a name to keep.
func (r *reader) name() string {
	n := r.count(maxName, "bytes of a name")
	if n > r.names {
		r.fail(ErrTooLarge, "names of more than "+strconv.Itoa(maxNames)+" bytes in all")
		return ""
	}
	r.names -= n
	s := r.text(n)
	if !utf8.ValidString(s) {
		r.malformed("a name that is not UTF-8")
		return ""
	}
	return s
}

// text reads n bytes. Preconditions: n is bounded.
func (r *reader) text(n int) string {
	if int64(n) > r.left() {
		r.malformed("a length beyond the end")
	}
	if r.err != nil || n == 0 {
		return ""
	}
	b := make([]byte, 0, n)
	for len(b) < n {
		b = append(b, r.u8())
		if r.err != nil {
			return ""
		}
		rest := r.buf[r.pos-r.start:]
		rest = rest[:min(len(rest), n-len(b))]
		b = append(b, rest...)
		r.pos += int64(len(rest))
	}
	return string(b)
}

// done requires that the stretch was read to its end.
func (r *reader) done(what string) {
	if r.err == nil && r.pos != r.end {
		r.malformed(what + " longer than its content")
	}
}
