package binary

import (
	"bytes"
	"io"
)

// Kind says what a file is, by its content.
type Kind uint8

// The kinds of files that turn up where a module is expected.
const (
	KindUnknown Kind = iota
	KindEmpty
	KindModule      // core module, binary format version 1
	KindComponent   // component
	KindOtherWasm   // WebAssembly of another version
	KindText        // WebAssembly text format
	KindPrecompiled // native code compiled by wasmtime
	KindAOT         // native code compiled by another engine
	KindELF         // a native program or library
	KindGzip
	KindZstd
	KindTar
	KindZip
	KindScript
)

// String returns the kind as a noun phrase for people.
func (k Kind) String() string {
	switch k {
	case KindEmpty:
		return "an empty file"
	case KindModule:
		return "a core WebAssembly module"
	case KindComponent:
		return "a WebAssembly component"
	case KindOtherWasm:
		return "WebAssembly of a version that is not known"
	case KindText:
		return "WebAssembly in its text format (translate it to the binary format)"
	case KindPrecompiled:
		return "native code, compiled ahead of time by wasmtime"
	case KindAOT:
		return "native code, compiled ahead of time by another WebAssembly engine"
	case KindELF:
		return "a native program (ELF)"
	case KindGzip:
		return "compressed data (gzip)"
	case KindZstd:
		return "compressed data (zstd)"
	case KindTar:
		return "an archive (tar)"
	case KindZip:
		return "an archive (zip)"
	case KindScript:
		return "a script"
	}
	return "not WebAssembly"
}

// SniffLen is how much of a file's beginning Sniff wants to see; less will do
// for everything but tar and text behind long comments.
const SniffLen = 512

// ELF header fields that the engine's compiler sets: it takes a number of its
// own for the ABI.
const (
	elfABI      = 7
	abiWasmtime = 200
)

var magics = []struct {
	magic string
	kind  Kind
}{
	{"\x00asm\x01\x00\x00\x00", KindModule},
	{"\x00asm\x0d\x00\x01\x00", KindComponent},
	{"\x00asm", KindOtherWasm},
	{"\x00aot", KindAOT}, // WAMR
	{"wasmer-", KindAOT}, // Wasmer, older
	{"WASMER", KindAOT},  // Wasmer
	{"\x7fELF", KindELF}, //
	{"\x1f\x8b\x08", KindGzip},
	{"\x28\xb5\x2f\xfd", KindZstd},
	{"PK\x03\x04", KindZip},
	{"#!", KindScript},
}

// Sniff tells what a file is by its beginning. It never says KindModule for
// anything that does not start as one.
func Sniff(head []byte) Kind {
	if len(head) == 0 {
		return KindEmpty
	}
	for _, m := range magics {
		if !bytes.HasPrefix(head, []byte(m.magic)) {
			continue
		}
		if m.kind == KindELF && isWasmtime(head) {
			return KindPrecompiled
		}
		return m.kind
	}
	if len(head) >= 262 && string(head[257:262]) == "ustar" {
		return KindTar
	}
	if isText(head) {
		return KindText
	}
	return KindUnknown
}

// SniffFile is Sniff for a whole file. It also finds compiled code by the
// names of its sections, which stand at the end.
func SniffFile(r io.ReaderAt, size int64) (Kind, error) {
	head, err := readAt(r, 0, min(size, SniffLen))
	if err != nil {
		return KindUnknown, err
	}
	k := Sniff(head)
	if k == KindELF && size > SniffLen {
		const tail = 64 << 10
		at := max(SniffLen, size-tail)
		end, err := readAt(r, at, size-at)
		if err != nil {
			return KindUnknown, err
		}
		if bytes.Contains(end, []byte("\x00.wasmtime.")) {
			k = KindPrecompiled
		}
	}
	return k, nil
}

func readAt(r io.ReaderAt, at, n int64) ([]byte, error) {
	b := make([]byte, max(n, 0))
	return b, readFull(r, b, at)
}

// readFull fills b; a file that ends before is an error.
func readFull(r io.ReaderAt, b []byte, at int64) error {
	got, err := r.ReadAt(b, at)
	if got == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return &Error{Offset: at + int64(got), Text: "read", Err: err}
}

func isWasmtime(head []byte) bool {
	return len(head) > elfABI && head[elfABI] == abiWasmtime || bytes.Contains(head, []byte("\x00.wasmtime."))
}

// isText recognizes "(module" and "(component" behind blanks and comments.
func isText(head []byte) bool {
	for {
		head = bytes.TrimLeft(head, " \t\r\n")
		var end int
		switch {
		case bytes.HasPrefix(head, []byte(";;")):
			end = bytes.IndexByte(head, '\n')
		case bytes.HasPrefix(head, []byte("(;")):
			if end = bytes.Index(head, []byte(";)")); end >= 0 {
				end++
			}
		default:
			if !bytes.HasPrefix(head, []byte("(")) {
				return false
			}
			head = bytes.TrimLeft(head[1:], " \t\r\n")
			return bytes.HasPrefix(head, []byte("module")) || bytes.HasPrefix(head, []byte("component"))
		}
		if end < 0 {
			return false
		}
		head = head[end+1:]
	}
}
