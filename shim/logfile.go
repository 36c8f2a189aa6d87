package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// openLog opens a container's log as its host will write it. It is opened as
// root, at a path that others may know: so nothing is followed that could have
// been put there, and nothing waits for a reader.
func openLog(path string) (*os.File, error) {
	const flags = os.O_WRONLY | os.O_APPEND | os.O_CREATE | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY
	f, err := os.OpenFile(path, flags, 0o640)
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, notALog(path, fs.ModeSymlink)
	case errors.Is(err, unix.ENXIO):
		return nil, notALog(path, fs.ModeNamedPipe) // that nobody reads; or a socket
	case errors.Is(err, unix.EISDIR):
		return nil, notALog(path, fs.ModeDir)
	case err != nil:
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = notALog(path, fi.Mode().Type())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func notALog(path string, found fs.FileMode) error {
	what := "a device"
	switch found {
	case fs.ModeSymlink:
		what = "a symbolic link"
	case fs.ModeNamedPipe:
		what = "a pipe or a socket"
	case fs.ModeDir:
		what = "a folder"
	}
	return fmt.Errorf("%w: %s is %s, and a log is a regular file: remove it", ErrInvalid, path, what)
}
