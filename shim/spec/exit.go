package spec

import (
	"encoding/binary"
	"hash/crc32"
	"strings"
	"time"
	"unicode/utf8"
)

// Reason says in one CamelCase word why a container ended, as
// ContainerStatus.reason carries it.
type Reason string

// The reasons for an end.
const (
	ReasonCompleted  Reason = "Completed"  // the guest ended with 0
	ReasonError      Reason = "Error"      // the guest ended with another code
	ReasonTrap       Reason = "Trap"       // a Wasm trap
	ReasonStopped    Reason = "Stopped"    // ended for the stop signal
	ReasonOOMKilled  Reason = "OOMKilled"  // the kernel ended it for memory
	ReasonKilled     Reason = "Killed"     // ended by SIGKILL
	ReasonHostFailed Reason = "HostFailed" // the host or the engine failed
	ReasonUnknown    Reason = "Unknown"    // nobody saw how it ended
)

// MaxMessage bounds Exit.Message, in bytes; the kubelet cuts a termination
// message at the same size.
const MaxMessage = 4096

// Exit tells how a container ended.
type Exit struct {
	Code    int32 // 0 to 255
	Reason  Reason
	Message string // a sentence for people; empty for an ordinary end
	At      time.Time
}

// The exit record: magic, payload length, CRC-32 (IEEE) of the payload, each
// 32 bits little-endian, then the payload. It is written with one write, and a
// reader takes anything else as absent.
const (
	exitMagic  = 0x58454d4c // "LMEX"
	exitHeader = 12
	exitMax    = exitHeader + MaxMessage + 256
)

// ExitRoom is what the longest exit record needs, in bytes.
const ExitRoom = exitMax

// Encode returns the exit record. A message that is too long or not UTF-8
// loses what cannot be carried.
func (x *Exit) Encode() []byte {
	msg := strings.ToValidUTF8(x.Message, "")
	if len(msg) > MaxMessage {
		msg = strings.ToValidUTF8(msg[:MaxMessage], "") // the cut may be inside of a character
	}
	e := encoder{b: make([]byte, exitHeader, exitHeader+len(msg)+64)}
	e.u32(uint32(x.Code))
	e.u64(uint64(x.At.UnixNano()))
	e.str(string(x.Reason))
	e.str(msg)
	body := e.b[exitHeader:]
	binary.LittleEndian.PutUint32(e.b[0:], exitMagic)
	binary.LittleEndian.PutUint32(e.b[4:], uint32(len(body)))
	binary.LittleEndian.PutUint32(e.b[8:], crc32.ChecksumIEEE(body))
	return e.b
}

// DecodeExit reads an exit record. Anything that is not one whole record
// (empty, short, damaged) is ErrMalformed, and so is text that is not UTF-8:
// no CRI message could carry it.
func DecodeExit(b []byte) (*Exit, error) {
	if len(b) < exitHeader || len(b) > exitMax || binary.LittleEndian.Uint32(b) != exitMagic {
		return nil, ErrMalformed
	}
	body := b[exitHeader:]
	if uint64(binary.LittleEndian.Uint32(b[4:])) != uint64(len(body)) || binary.LittleEndian.Uint32(b[8:]) != crc32.ChecksumIEEE(body) {
		return nil, ErrMalformed
	}
	d := decoder{b: body}
	x := &Exit{Code: int32(d.u32()), At: time.Unix(0, int64(d.u64())), Reason: Reason(d.str()), Message: d.str()}
	if err := d.done(); err != nil {
		return nil, err
	}
	if x.Code < 0 || x.Code > 255 || len(x.Message) > MaxMessage ||
		!utf8.ValidString(x.Message) || !utf8.ValidString(string(x.Reason)) {
		return nil, ErrMalformed
	}
	return x, nil
}
