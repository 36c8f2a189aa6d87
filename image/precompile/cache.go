package precompile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	blobs "github.com/containerd/containerd/v2/core/content"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/image/content"
)

// Bounds of what is remembered about modules that do not compile.
const (
	// badFor is how long a failure is answered from memory. A pull that the
	// kubelet repeats must not start a compiler each time; a failure that was
	// the machine's must pass.
	badFor = 2 * time.Minute
	// maxBad bounds how many are remembered.
	maxBad = 256
	// maxReason bounds the text of one.
	maxReason = 4 << 10
)

// DefaultTimeout bounds one compilation: ample for a module of 256 MiB.
const DefaultTimeout = 5 * time.Minute

// ErrCompile: the compiler did not accept the module, or failed.
var ErrCompile = errors.New("module does not compile")

// ErrDamaged: what was opened as a module has other bytes than its digest
// says. Their code would be everybody's who names that digest.
var ErrDamaged = errors.New("module is damaged")

// Module is what is compiled.
type Module struct {
	Digest digest.Digest
	// Open opens the module's bytes at their start.
	Open func() (*os.File, error)
}

// Cache is the compiled code of a node.
type Cache struct {
	dir      string
	key      []byte
	compiler Compiler
	store    *content.Store
	timeout  time.Duration
	log      *slog.Logger

	gc sync.RWMutex

	mu       sync.Mutex
	engines  map[string]string // key of the engine by proposals
	verified map[string]identity
	bad      map[string]failure
	flights  map[string]chan struct{} // closed when the compilation of a name ends
}

type failure struct {
	err   error
	until time.Time
}

// New opens the cache below the store's folder and registers it with the
// collector. Preconditions: called before the store's Start.
func New(store *content.Store, compiler Compiler, timeout time.Duration, log *slog.Logger) (*Cache, error) {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	c := &Cache{dir: filepath.Join(store.Root(), "code"), compiler: compiler, store: store, timeout: timeout, log: log,
		engines: map[string]string{}, verified: map[string]identity{}, bad: map[string]failure{}, flights: map[string]chan struct{}{}}
	if err := os.MkdirAll(c.dir, 0o711); err != nil {
		return nil, fmt.Errorf("open cache of compiled code: %w", err)
	}
	var err error
	if c.key, err = loadKey(filepath.Join(store.Root(), "code.key")); err != nil {
		return nil, err
	}
	if err := c.clean(); err != nil {
		return nil, err
	}
	store.Register(resourceCode, c)
	return c, nil
}

// clean removes files that a kill left before they got their name.
func (c *Cache) clean() error {
	es, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("clean cache of compiled code: %w", err)
	}
	for _, e := range es {
		stray := strings.HasPrefix(e.Name(), tmpPrefix)
		if code, ok := strings.CutSuffix(e.Name(), sumSuffix); ok {
			_, err := os.Lstat(filepath.Join(c.dir, code))
			stray = errors.Is(err, os.ErrNotExist)
		}
		if stray {
			if err := os.Remove(filepath.Join(c.dir, e.Name())); err != nil {
				return fmt.Errorf("clean cache of compiled code: %w", err)
			}
		}
	}
	return nil
}

// Dir is the folder of the code.
func (c *Cache) Dir() string { return c.dir }

// name of the code of a module: what was compiled, by which engine, how.
func (c *Cache) name(ctx context.Context, module digest.Digest, proposals []string) (string, error) {
	p := strings.Join(proposals, " ")
	c.mu.Lock()
	engine, ok := c.engines[p]
	c.mu.Unlock()
	if !ok {
		var err error
		if engine, err = c.compiler.EngineKey(ctx, proposals); err != nil {
			return "", fmt.Errorf("ask the engine for its key: %w", err)
		}
		c.mu.Lock()
		c.engines[p] = engine
		c.mu.Unlock()
	}
	h := sha256.Sum256([]byte("limpet code 1\n" + module.String() + "\n" + engine + "\n" + p + "\n"))
	return hex.EncodeToString(h[:]), nil
}

// Has says whether code of a module is there, without looking at it.
func (c *Cache) Has(ctx context.Context, module digest.Digest, proposals []string) bool {
	name, err := c.name(ctx, module, proposals)
	if err != nil {
		return false
	}
	_, err = os.Lstat(filepath.Join(c.dir, name))
	return err == nil
}

// Code returns the path of a module's code, compiling it if it is not there or
// not what was written. owner is the manifest that keeps it from the
// collector. Preconditions: a lease keeps owner.
func (c *Cache) Code(ctx context.Context, owner digest.Digest, m Module, proposals []string) (string, error) {
	name, err := c.name(ctx, m.Digest, proposals)
	if err != nil {
		return "", err
	}
	// Label first, then look: what the collector marked before the label it
	// removes before check can look, and after the label it removes nothing.
	if err := c.label(ctx, owner, name); err != nil {
		return "", err
	}
	for {
		if path, ok := c.check(name); ok {
			return path, nil
		}
		if err := c.failed(name); err != nil {
			return "", err
		}
		done, mine := c.fly(name)
		if mine {
			path, err := c.make(ctx, name, m, proposals)
			c.land(name)
			return path, err
		}
		select {
		case <-done:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// fly claims the compilation of a name, or returns what to wait for.
func (c *Cache) fly(name string) (done chan struct{}, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d, ok := c.flights[name]; ok {
		return d, false
	}
	d := make(chan struct{})
	c.flights[name] = d
	return d, true
}

func (c *Cache) land(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.flights[name])
	delete(c.flights, name)
}

func (c *Cache) failed(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.bad[name]
	if !ok || time.Now().After(f.until) {
		delete(c.bad, name)
		return nil
	}
	return f.err
}

func (c *Cache) remember(name string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.bad) >= maxBad {
		clear(c.bad)
	}
	c.bad[name] = failure{err, time.Now().Add(badFor)}
}

// make compiles a module. The file gets its name last, whole and durable.
// Preconditions: the name is labelled, and claimed by fly.
func (c *Cache) make(ctx context.Context, name string, m Module, proposals []string) (string, error) {
	started := time.Now()
	in, err := m.Open()
	if err != nil {
		return "", fmt.Errorf("open module %s: %w", m.Digest, err)
	}
	defer in.Close()
	if err := genuine(in, m.Digest); err != nil {
		return "", err
	}
	tmp, err := os.CreateTemp(c.dir, tmpPrefix+"*")
	if err != nil {
		return "", fmt.Errorf("compile module %s: %w", m.Digest, err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if err := c.compile(ctx, name, in, tmp, m, proposals); err != nil {
		return "", err
	}
	if err := seal(tmp); err != nil {
		return "", fmt.Errorf("compile module %s: %w", m.Digest, err)
	}
	sum, err := c.sum(name, tmp)
	if err != nil {
		return "", fmt.Errorf("compile module %s: %w", m.Digest, err)
	}
	path, err := c.place(name, tmp, sum)
	if err != nil {
		return "", fmt.Errorf("keep code of module %s: %w", m.Digest, err)
	}
	c.log.Debug("module compiled", "module", m.Digest.String(), "took", time.Since(started).String())
	return path, nil
}

// genuine reads a module before the compiler does, and leaves it at its start.
func genuine(f *os.File, d digest.Digest) error {
	v := d.Verifier()
	if _, err := io.Copy(v, f); err != nil {
		return fmt.Errorf("read module %s: %w", d, err)
	}
	if !v.Verified() {
		return fmt.Errorf("%w: its bytes have another digest than %s", ErrDamaged, d)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read module %s: %w", d, err)
	}
	return nil
}

func (c *Cache) compile(ctx context.Context, name string, in, out *os.File, m Module, proposals []string) error {
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	err := c.compiler.Compile(limited, in, out, proposals)
	if err == nil {
		if fi, serr := out.Stat(); serr != nil || fi.Size() == 0 {
			err = errors.New("the compiler wrote nothing")
		}
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if limited.Err() != nil {
		err = fmt.Errorf("it took longer than %s: %w", c.timeout, err)
	}
	text := err.Error()
	if len(text) > maxReason {
		text = text[:maxReason] + "…"
	}
	err = fmt.Errorf("%w: %s: %s", ErrCompile, m.Digest, text)
	c.remember(name, err)
	return err
}

// seal makes a finished file durable and read-only for everybody: a host reads
// it as whatever user its guest has.
func seal(f *os.File) error {
	if err := f.Chmod(0o444); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := f.Chown(0, 0); err != nil {
			return err
		}
	}
	return f.Sync()
}

// place gives code and checksum their names, while no collection runs.
func (c *Cache) place(name string, tmp *os.File, sum []byte) (string, error) {
	c.gc.RLock()
	defer c.gc.RUnlock()
	path := filepath.Join(c.dir, name)
	if err := writeSum(path+sumSuffix, sum); err != nil {
		return "", err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return "", err
	}
	d, err := os.Open(c.dir)
	if err != nil {
		return "", err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return "", err
	}
	id, err := identify(tmp)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	c.verified[name] = id
	c.mu.Unlock()
	return path, nil
}

// label makes the manifest keep the code.
func (c *Cache) label(ctx context.Context, owner digest.Digest, name string) error {
	ctx = content.Context(ctx)
	key := labelCode + "." + name[:16]
	i, err := c.store.Blobs().Info(ctx, owner)
	if err != nil {
		return fmt.Errorf("label manifest %s: %w", owner, err)
	}
	if i.Labels[key] == name {
		return nil
	}
	_, err = c.store.Blobs().Update(ctx, blobs.Info{Digest: owner, Labels: map[string]string{key: name}}, "labels."+key)
	if err != nil {
		return fmt.Errorf("label manifest %s: %w", owner, err)
	}
	return nil
}

// identity of a file that was checked: another file under its name, or the
// same one written to, is checked again.
type identity struct {
	dev, ino    uint64
	size        int64
	mtime       unix.Timespec
	ctime       unix.Timespec
	permissions uint32
}

func identify(f *os.File) (identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return identity{}, err
	}
	return identity{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim, st.Mode}, nil
}
