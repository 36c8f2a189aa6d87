package wasmtime

import (
	"encoding/binary"
	"hash/fnv"
	"strconv"
	"strings"
)

// Version is the version of the engine library that api.h was written for;
// the prototype test compares it with the headers.
const engineVersion = "44.0.0"

// supportEnded is when the engine's authors stop mending that release.
const supportEnded = "2026-06-20"

// Version names the engine, its build and the end of its support.
func Version() string {
	return "wasmtime " + engineVersion + " (" + engineBuild + "), supported until " + supportEnded
}

// Key names everything beside the module that compiled code depends on: the
// engine's build, the processor's features, every setting. Two engines with
// the same key load each other's code; the engine refuses a file of another
// key at load, or fails to (it stores its major version only), so that code is
// filed under the key. Parallel and MaxWasmStack do not enter it.
func Key(cfg Config) (string, error) {
	e, err := NewEngine(cfg)
	if err != nil {
		return "", err
	}
	defer e.Close()
	code, err := e.Compile([]byte("\x00asm\x01\x00\x00\x00"))
	if err != nil {
		return "", err
	}
	settings := elfSection(code, ".wasmtime.engine")
	if settings == nil {
		return "", &Error{Op: "key", Text: "compiled code without a section .wasmtime.engine"}
	}
	// Nothing in here is chosen by a stranger, so that 128 bits of FNV do; a
	// cryptographic hash costs every host 0.05 ms and nine pages at start.
	h := fnv.New128a()
	h.Write([]byte(engineVersion + "\x00" + engineBuild + "\x00"))
	h.Write(settings)
	return hexText(h.Sum(nil)), nil
}

func hexText(b []byte) string {
	s := make([]byte, 0, 2*len(b))
	for _, c := range b {
		if c < 16 {
			s = append(s, '0')
		}
		s = strconv.AppendUint(s, uint64(c), 16)
	}
	return string(s)
}

// elfSection returns the content of a section of a little-endian ELF64 file,
// nil if there is none.
func elfSection(b []byte, name string) []byte {
	const (
		fileHeader    = 64
		sectionHeader = 64
	)
	le := binary.LittleEndian
	if len(b) < fileHeader || !strings.HasPrefix(string(b[:6]), "\x7fELF\x02\x01") {
		return nil
	}
	at, count, names := le.Uint64(b[40:]), uint64(le.Uint16(b[60:])), uint64(le.Uint16(b[62:]))
	size := uint64(len(b))
	if names >= count || at > size || count*sectionHeader > size-at {
		return nil
	}
	content := func(i uint64) []byte {
		h := b[at+i*sectionHeader:]
		off, n := le.Uint64(h[24:]), le.Uint64(h[32:])
		if off > size || n > size-off {
			return nil
		}
		return b[off : off+n]
	}
	text := content(names)
	for i := range count {
		n := uint64(le.Uint32(b[at+i*sectionHeader:]))
		if n < uint64(len(text)) && strings.HasPrefix(string(text[n:min(n+uint64(len(name))+1, uint64(len(text)))]), name+"\x00") {
			return content(i)
		}
	}
	return nil
}
