package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// read returns a control file's content, without the newline at its end.
func read(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", gone(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return "", gone(err)
	}
	return string(bytes.TrimRight(b, "\n")), nil
}

// gone adds ErrNotFound to the errors with which the kernel answers for a
// group that was removed, before or while its file is open.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

// write writes a control file with one write, as the kernel wants it.
func write(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return gone(err)
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return fmt.Errorf("%w: %q to %s: %w", ErrLimit, value, filepath.Base(path), gone(err))
	}
	return nil
}

func fields(path string) ([]string, error) {
	s, err := read(path)
	return strings.Fields(s), err
}

// number reads a file with one number; "max" and what is so large that it
// means no limit are 0.
func number(path string) (uint64, error) {
	s, err := read(path)
	if err != nil {
		return 0, err
	}
	return parseNumber(s)
}

// unlimited is where version 1 says "no limit": the greatest multiple of a
// page in 63 bits, which depends on the page size.
const unlimited = 1 << 62

func parseNumber(s string) (uint64, error) {
	if s == "max" || s == "-1" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("cgroup: number %q: %w", s, err)
	}
	if n >= unlimited {
		return 0, nil
	}
	return n, nil
}

// table reads a flat keyed file ("key value" per line). Lines of another form
// are passed over: kernels add some.
func table(path string) (map[string]uint64, error) {
	s, err := read(path)
	if err != nil {
		return nil, err
	}
	return parseTable(s), nil
}

func parseTable(s string) map[string]uint64 {
	t := make(map[string]uint64)
	for line := range strings.SplitSeq(s, "\n") {
		k, v, ok := strings.Cut(line, " ")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(v, 10, 64); err == nil {
			t[k] = n
		}
	}
	return t
}
