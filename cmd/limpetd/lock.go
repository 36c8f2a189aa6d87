package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	rootMode = 0o711 // hosts run as other users and find nothing to list
	lockMode = 0o644
)

// errRunning: another limpetd has the same folder.
var errRunning = errors.New("another limpetd runs")

// lockFolder makes the folder that a key of the configuration names this
// process's own until the file is closed, which the kernel does however the
// process ends.
func lockFolder(key, dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, rootMode); err != nil {
		return nil, fmt.Errorf("%s folder: %w%s", key, err, remedy(key, err))
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, lockMode)
	if err != nil {
		return nil, fmt.Errorf("%s folder: %w%s", key, err, remedy(key, err))
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("%w on %s %s (pid %s); stop it, or give this one another root, run and server.socket", errRunning, key, dir, holder(f)), f.Close())
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w%s", path, err, remedy(key, err)), f.Close())
	}
	return f, nil
}

// remedy says what can be done about a folder that cannot be written to.
func remedy(key string, err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return "; limpetd has to run as root"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return "; make room, or set " + key + " to a folder elsewhere"
	case errors.Is(err, unix.EROFS):
		return "; set " + key + " to a folder that can be written to"
	}
	return ""
}

// holder reads who wrote the lock file last.
func holder(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 32))
	if pid := strings.TrimSpace(string(b)); err == nil && pid != "" {
		return pid
	}
	return "unknown"
}

// warnIfOnDisk tells the operator of the one setting that makes every start of
// a pod several times slower.
func warnIfOnDisk(run string, log *slog.Logger) {
	var st unix.Statfs_t
	if err := unix.Statfs(run, &st); err == nil && st.Type != unix.TMPFS_MAGIC && st.Type != unix.RAMFS_MAGIC {
		log.Warn("the run folder is not on a tmpfs; pods start several times faster with one", "run", run)
	}
}
