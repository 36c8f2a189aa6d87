package host

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/spec"
	"github.com/limpet-cri/limpet/wasm/wasmtime"
)

// Exit codes of a compile child, as sysexits.h has them. A compiler that runs
// out of memory gives none of them: the engine or the Go runtime says so in its
// own words ("memory allocation of N bytes failed", "out of memory") and the
// process ends by SIGABRT or, as a cgo program may on an abort, with 2.
const (
	exitOK      = 0
	exitInvalid = 65 // EX_DATAERR: what was said is about the module
	exitFailed  = 70 // EX_SOFTWARE: it is about the compiler or its files
)

const (
	// maxModule bounds the module, in bytes, as the image service does.
	maxModule = 256 << 20
	// maxText bounds the one line of error text.
	maxText = 1024
)

// Compile compiles the module on spec.FDCompileIn to spec.FDCompileOut and
// returns the exit code. What went wrong is one line on descriptor 2.
//
// The module is validated first: that takes a fraction of a second for what
// would take minutes to compile.
func Compile(proposals []string) int {
	engine, err := wasmtime.NewEngine(wasmtime.Config{Proposals: proposals, Parallel: true})
	if err != nil {
		return complain(exitFailed, err)
	}
	module, err := mapModule(spec.FDCompileIn)
	if err != nil {
		return complain(exitFailed, err)
	}
	if len(module) == 0 {
		return complain(exitInvalid, errEmpty)
	}
	if err := engine.Validate(module); err != nil {
		return complain(exitInvalid, err)
	}
	var written error
	err = engine.CompileTo(module, func(code []byte) error {
		written = writeAll(spec.FDCompileOut, code)
		return written
	})
	switch {
	case written != nil:
		return complain(exitFailed, &ioError{"write the compiled code", written})
	case err != nil:
		// Valid, and yet the compiler has a bound of its own that it exceeds.
		return complain(exitInvalid, err)
	}
	return exitOK
}

// Key writes the key of the code that Compile makes with these proposals to
// spec.FDCompileOut, and returns the exit code.
func Key(proposals []string) int {
	key, err := wasmtime.Key(wasmtime.Config{Proposals: proposals})
	if err == nil {
		err = writeAll(spec.FDCompileOut, []byte(key+"\n"))
	}
	if err != nil {
		return complain(exitFailed, err)
	}
	return exitOK
}

var errEmpty = errors.New("validate: the module is empty")

// ioError says what was attempted with a descriptor.
type ioError struct {
	op  string
	err error
}

func (e *ioError) Error() string { return e.op + ": " + e.err.Error() }
func (e *ioError) Unwrap() error { return e.err }

// mapModule maps the regular file fd. The daemon sees to it that nobody cuts
// the file short meanwhile.
func mapModule(fd int) ([]byte, error) {
	const op = "map the module"
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &ioError{op, err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, &ioError{op, errors.New("it is not a regular file")}
	case st.Size == 0:
		return nil, nil
	case st.Size > maxModule:
		return nil, &ioError{op, errors.New(strconv.FormatInt(st.Size, 10) + " bytes, at most " + strconv.Itoa(maxModule) + " are read")}
	}
	b, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, &ioError{op, err}
	}
	return b, nil
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// complain writes an error as one bounded line to descriptor 2 and returns the
// exit code.
func complain(code int, err error) int {
	text := []byte(err.Error())
	if len(text) > maxText {
		text = append(text[:maxText], "..."...)
	}
	for i, c := range text {
		if c < ' ' || c == 0x7f {
			text[i] = ' '
		}
	}
	_ = writeAll(2, append(text, '\n')) // nobody is left to tell
	return code
}
