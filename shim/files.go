package shim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/spec"
)

const (
	// maxDiagnostics and maxDiagnosticLines bound what of a host's last words
	// gets into an error or an exit message.
	maxDiagnostics     = 1 << 10
	maxDiagnosticLines = 5
	// maxLock bounds a lock's content: two decimal numbers.
	maxLock = 64
)

// readHead reads at most limit bytes of a file in a container's folder.
func readHead(dir, name string, limit int64) ([]byte, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// diagnostics returns the first lines of what the host's runtime had to say.
func diagnostics(dir string) string {
	b, err := readHead(dir, spec.FileDiagnostics, maxDiagnostics)
	if err != nil {
		return ""
	}
	var said []string
	for line := range bytes.Lines(b) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			said = append(said, string(line))
		}
		if len(said) == maxDiagnosticLines {
			break
		}
	}
	return strings.ToValidUTF8(strings.Join(said, " | "), "?")
}

// process is what a lock says of its holder.
type process struct {
	pid   int
	start uint64 // field 22 of /proc/PID/stat: clock ticks since boot
}

// holder reads a container's lock. ok is false when no host ever wrote it.
func holder(dir string) (p process, ok bool, err error) {
	b, err := readHead(dir, spec.FileLock, maxLock)
	if errors.Is(err, os.ErrNotExist) || (err == nil && len(b) == 0) {
		return process{}, false, nil
	}
	if err != nil {
		return process{}, false, err
	}
	p, err = parseLock(b)
	return p, err == nil, err
}

// parseLock reads "PID STARTTIME\n".
func parseLock(b []byte) (process, error) {
	pid, start, ok := strings.Cut(strings.TrimSuffix(string(b), "\n"), " ")
	if ok && bytes.HasSuffix(b, []byte("\n")) {
		n, err := strconv.ParseUint(pid, 10, 31)
		t, err2 := strconv.ParseUint(start, 10, 64)
		if err == nil && err2 == nil && n > 0 {
			return process{pid: int(n), start: t}, nil
		}
	}
	return process{}, fmt.Errorf("lock holds %q, not a pid and a start time: %w", b, spec.ErrMalformed)
}

// locked reports whether a living process holds a container's lock.
func locked(dir string) (bool, error) {
	f, err := os.OpenFile(filepath.Join(dir, spec.FileLock), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close() // gives the lock up again
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// startTime reads when a process started.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The name may hold anything, spaces and parentheses included.
	i := bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[i+1:]))
	const starttime = 22 - 3 // the field after the name is the third
	if i < 0 || len(fields) <= starttime {
		return 0, fmt.Errorf("/proc/%d/stat: %q: %w", pid, b, spec.ErrMalformed)
	}
	return strconv.ParseUint(fields[starttime], 10, 64)
}
