// Package network owns the network namespaces of pods: it makes them with
// loopback up and nothing else, pins each as a bind mount in a folder, so that
// they live on without a process, and removes them.
//
// It never touches the node's own network, and knows nothing of pods but their
// ids. There is no state but the folder, and no lock: one goroutine at a time
// creates or removes a given id.
package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Errors of this package.
var (
	// ErrBadID is returned for an id that is no file name.
	ErrBadID = errors.New("network namespace: bad id")
	// ErrCreate is returned when the kernel gives no namespace.
	ErrCreate = errors.New("network namespace: cannot be created")
)

// maxID bounds an id, in bytes.
const maxID = 255

// Namespaces is a folder of pinned namespaces.
type Namespaces struct{ dir string }

// New returns the namespaces pinned in dir, which is made when it is needed.
func New(dir string) *Namespaces { return &Namespaces{dir: dir} }

// Path returns where the namespace of id is or would be pinned.
func (n *Namespaces) Path(id string) string { return filepath.Join(n.dir, id) }

// Create makes the namespace of id and returns its path. One that is there
// already, pinned by this or an earlier daemon, is kept.
func (n *Namespaces) Create(ctx context.Context, id string) (string, error) {
	if err := checkID(id); err != nil {
		return "", err
	}
	path := n.Path(id)
	if pinned(path) {
		return path, nil
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := os.MkdirAll(n.dir, 0o711); err != nil {
		return "", fmt.Errorf("%w: %w", ErrCreate, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrCreate, err)
	}
	f.Close()
	if err := makeAt(path); err != nil {
		return "", errors.Join(fmt.Errorf("%w: %s: %w", ErrCreate, path, err), os.Remove(path))
	}
	return path, nil
}

// Remove unpins the namespace of id and removes its file; the namespace itself
// goes with the last process in it. One that does not exist is removed.
func (n *Namespaces) Remove(_ context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	path := n.Path(id)
	if err := unpin(path); err != nil {
		return fmt.Errorf("remove network namespace %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove network namespace: %w", err)
	}
	return nil
}

// List returns the ids of all files in the folder, pinned or left over by a
// daemon that was ended between two steps: whoever knows the pods removes what
// belongs to none.
func (n *Namespaces) List() ([]string, error) {
	entries, err := os.ReadDir(n.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if !e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Strays returns the ids in the folder that known does not hold.
func (n *Namespaces) Strays(known func(id string) bool) ([]string, error) {
	ids, err := n.List()
	if err != nil {
		return nil, err
	}
	strays := ids[:0]
	for _, id := range ids {
		if !known(id) {
			strays = append(strays, id)
		}
	}
	return strays, nil
}

func checkID(id string) error {
	if id == "" || id == "." || id == ".." || len(id) > maxID || strings.ContainsAny(id, "/\x00") {
		return fmt.Errorf("%w: %q", ErrBadID, id)
	}
	return nil
}

// pinned reports whether a namespace is mounted at path. The folder outlives a
// boot on no usual node, but where it does, its files are plain ones.
func pinned(path string) bool {
	var s unix.Statfs_t
	return unix.Statfs(path, &s) == nil && s.Type == unix.NSFS_MAGIC
}

// maxPins bounds how often Remove unmounts: Create makes one mount, a crash
// between its steps none more.
const maxPins = 16

// unpin unmounts whatever is mounted at path. EINVAL says that nothing is.
func unpin(path string) error {
	for range maxPins {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case errors.Is(err, unix.EINTR), err == nil:
			continue
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		}
		return os.NewSyscallError("umount", err)
	}
	return unix.EBUSY
}
