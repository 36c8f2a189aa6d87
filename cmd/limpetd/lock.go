package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	rootMode = 0o711 // hosts run as other users and find nothing to list
	lockMode = 0o644
)

// errRunning: another limpetd has the same root.
var errRunning = errors.New("another limpetd runs")

// lockRoot makes the root folder this process's own until the file is closed,
// which the kernel does however the process ends.
func lockRoot(root string) (*os.File, error) {
	if err := os.MkdirAll(root, rootMode); err != nil {
		return nil, fmt.Errorf("root folder: %w", err)
	}
	path := filepath.Join(root, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, lockMode)
	if err != nil {
		return nil, fmt.Errorf("root folder: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("%w on root %s (pid %s); stop it, or give this one another root, run and server.socket", errRunning, root, holder(f)), f.Close())
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

// holder reads who wrote the lock file last.
func holder(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 32))
	if pid := strings.TrimSpace(string(b)); err == nil && pid != "" {
		return pid
	}
	return "unknown"
}
