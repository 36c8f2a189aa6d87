package precompile

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/gc"
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/image/content"
)

const (
	sumSuffix = ".sum"
	tmpPrefix = "tmp-"
	keySize   = 32
)

// loadKey reads the key of the checksums, made once per node. No host ever
// sees it, so that none can forge code that would be loaded elsewhere.
func loadKey(path string) ([]byte, error) {
	k, err := os.ReadFile(path)
	if err == nil && len(k) == keySize {
		return k, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read key of compiled code: %w", err)
	}
	// None, or a torn one: every file is compiled again.
	k = make([]byte, keySize)
	if _, err := rand.Read(k); err != nil {
		return nil, fmt.Errorf("make key of compiled code: %w", err)
	}
	if err := writeSum(path, k); err != nil {
		return nil, fmt.Errorf("make key of compiled code: %w", err)
	}
	return k, nil
}

// writeSum writes a small file whole or not at all, and replaces what is there.
func writeSum(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), tmpPrefix+"*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return replace(f.Name(), path)
}

// replace gives a file its name. A folder that somebody made there must not
// stand in the way for ever.
func replace(from, to string) error {
	if fi, err := os.Lstat(to); err == nil && fi.IsDir() {
		if err := os.RemoveAll(to); err != nil {
			return err
		}
	}
	return os.Rename(from, to)
}

// openFile opens a file for reading, follows no link and waits for no pipe.
func openFile(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// sum is the keyed checksum of a file under its name.
func (c *Cache) sum(name string, f *os.File) ([]byte, error) {
	h := hmac.New(sha256.New, c.key)
	h.Write([]byte(name))
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

// check says whether the code of a name is there and is what was written. A
// file that is not goes away, and is compiled again.
func (c *Cache) check(name string) (path string, ok bool) {
	c.gc.RLock()
	defer c.gc.RUnlock()
	path = filepath.Join(c.dir, name)
	f, err := openFile(path)
	if err != nil {
		return "", false
	}
	defer f.Close()
	id, err := identify(f)
	if err != nil {
		return "", false
	}
	c.mu.Lock()
	known, checked := c.verified[name]
	c.mu.Unlock()
	if checked && known == id {
		return path, true
	}
	if err = id.sealed(); err == nil {
		err = c.compare(name, f)
	}
	if err == nil {
		c.mu.Lock()
		c.verified[name] = id
		c.mu.Unlock()
		return path, true
	}
	c.log.Warn("compiled code is not what was written and is thrown away; it will be compiled again", "code", path, "error", err)
	_ = os.RemoveAll(path) // else replace does it
	return "", false
}

// compare says whether a file has the checksum that was written beside it.
func (c *Cache) compare(name string, f *os.File) error {
	w, err := openFile(filepath.Join(c.dir, name+sumSuffix))
	if err != nil {
		return err
	}
	defer w.Close()
	want, err := io.ReadAll(io.LimitReader(w, sha256.Size+1))
	if err != nil {
		return err
	}
	got, err := c.sum(name, f)
	if err == nil && !hmac.Equal(got, want) {
		err = errors.New("it has another checksum")
	}
	return err
}

// resourceCode is the collector's type for compiled code; the low numbers are
// containerd's.
const resourceCode gc.ResourceType = 0x1e

// referenceLabel and labelCode: a label of this name on a manifest keeps the
// code that it names.
const (
	referenceLabel = "limpet-code"
	labelCode      = "containerd.io/gc.ref." + referenceLabel
)

// ReferenceLabel implements metadata.Collector.
func (c *Cache) ReferenceLabel() string { return referenceLabel }

// StartCollection implements metadata.Collector. No code gets its name until
// Finish or Cancel.
func (c *Cache) StartCollection(context.Context) (metadata.CollectionContext, error) {
	es, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, fmt.Errorf("list compiled code: %w", err)
	}
	c.gc.Lock()
	g := &collection{c: c}
	for _, e := range es {
		if n := e.Name(); !strings.HasPrefix(n, tmpPrefix) && !strings.HasSuffix(n, sumSuffix) {
			g.all = append(g.all, n)
		}
	}
	return g, nil
}

type collection struct {
	c         *Cache
	all, gone []string
}

// All implements metadata.CollectionContext.
func (g *collection) All(fn func(gc.Node)) {
	for _, n := range g.all {
		fn(gc.Node{Type: resourceCode, Namespace: content.Namespace, Key: n})
	}
}

// Active implements metadata.CollectionContext: code lives by labels alone.
func (g *collection) Active(string, func(gc.Node)) {}

// Leased implements metadata.CollectionContext: a lease on a manifest reaches
// its code by the label.
func (g *collection) Leased(string, string, func(gc.Node)) {}

// Remove implements metadata.CollectionContext.
func (g *collection) Remove(n gc.Node) { g.gone = append(g.gone, n.Key) }

// Cancel implements metadata.CollectionContext.
func (g *collection) Cancel() error {
	g.c.gc.Unlock()
	return nil
}

// Finish implements metadata.CollectionContext.
func (g *collection) Finish() error {
	defer g.c.gc.Unlock()
	var errs []error
	for _, n := range g.gone {
		p := filepath.Join(g.c.dir, n)
		for _, f := range []string{p, p + sumSuffix} {
			errs = append(errs, os.RemoveAll(f))
		}
		g.c.mu.Lock()
		delete(g.c.verified, n)
		g.c.mu.Unlock()
	}
	return errors.Join(errs...)
}
