package content

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/metadata"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// errDamaged marks a database that bbolt cannot read.
var errDamaged = errors.New("image database is damaged")

// openBolt opens the database. An empty file would open as an empty database,
// after which the collector would delete every blob; a torn one makes bbolt
// panic, and one that was cut short makes it read beyond the file's end, which
// is a fault of memory and is made a panic. All are errDamaged.
func openBolt(path string) (db *bolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, fmt.Errorf("%w: %s: %v", errDamaged, path, p)
		}
	}()
	if fi, err := os.Stat(path); err == nil && fi.Size() == 0 {
		return nil, fmt.Errorf("%w: %s is empty", errDamaged, path)
	}
	o := *bolt.DefaultOptions
	o.Timeout = openTimeout
	db, err = bolt.Open(path, 0o600, &o)
	var errno syscall.Errno
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%w: %s is locked", ErrInUse, path)
	case errors.As(err, &errno):
		// The machine's fault (no space, too many files), not the file's.
		return nil, fmt.Errorf("open image database: %w", err)
	default:
		return nil, fmt.Errorf("%w: %s: %w", errDamaged, path, err)
	}
}

// readAll reads every key and value: what a stop of the machine did to a page
// in the middle shows here, and not as a panic under a request. A page beyond
// the file's end is a fault of memory, which is made a panic.
func readAll(db *bolt.DB) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s: %v", errDamaged, db.Path(), p)
		}
	}()
	return db.View(func(tx *bolt.Tx) error {
		sum := crc32.NewIEEE()
		var walk func(b *bolt.Bucket) error
		walk = func(b *bolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				if v == nil {
					return walk(b.Bucket(k))
				}
				sum.Write(k)
				sum.Write(v)
				return nil
			})
		}
		return tx.ForEach(func(_ []byte, b *bolt.Bucket) error { return walk(b) })
	})
}

// checkSnapshotter looks at the snapshotter's own database before it is used:
// the snapshotter opens it late, without a bound in time, and panics on damage.
// Without it our database tells of snapshots that cannot be used or replaced.
func (s *Store) checkSnapshotter() error {
	path := filepath.Join(s.root, snapshotFolders[s.snName], "metadata.db")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		has, err := s.hasSnapshots()
		if err == nil && has {
			err = fmt.Errorf("%w: %s is gone", errDamaged, path)
		}
		return err
	}
	db, err := openBolt(path)
	if err != nil {
		return err
	}
	if s.Unclean() {
		err = readAll(db)
	}
	return errors.Join(err, db.Close())
}

// hasSnapshots says whether the database tells of snapshots, which it keeps in
// v1/NAMESPACE/snapshots/SNAPSHOTTER.
func (s *Store) hasSnapshots() (has bool, err error) {
	err = s.bolt.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("v1"))
		for _, name := range []string{Namespace, "snapshots", s.snName} {
			if b != nil {
				b = b.Bucket([]byte(name))
			}
		}
		if b != nil {
			k, _ := b.Cursor().First()
			has = k != nil
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("look for snapshots in the image database: %w", err)
	}
	return has, nil
}

func initDB(db *metadata.DB) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	if err := db.Init(context.Background()); err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return nil
}

// setAside moves everything of root into a folder of its own below it. The
// files stay where open descriptors and mounts find them.
func setAside(root string) (string, error) {
	aside := filepath.Join(root, "damaged-"+time.Now().UTC().Format("20060102T150405.000000000"))
	if err := os.Mkdir(aside, 0o700); err != nil {
		return "", err
	}
	for _, name := range []string{"meta.db", "content", "overlay", "native", "code"} {
		err := os.Rename(filepath.Join(root, name), filepath.Join(aside, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	return aside, nil
}
