package precompile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/image/content"
)

// codeMode of a finished file: a host reads it as whatever user its guest has,
// and nobody writes.
const codeMode = 0o444

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
	now      func() time.Time
	log      *slog.Logger

	gc sync.RWMutex

	mu       sync.Mutex
	engines  map[string]engine // by proposals
	verified map[string]identity
	bad      map[string]failure
	flights  map[string]chan struct{} // closed when the compilation of a name ends
}

// New opens the cache below the store's folder and registers it with the
// collector. Preconditions: called before the store's Start.
func New(store *content.Store, compiler Compiler, timeout time.Duration, log *slog.Logger) (*Cache, error) {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	c := &Cache{dir: filepath.Join(store.Root(), "code"), compiler: compiler, store: store, timeout: timeout, now: time.Now, log: log,
		engines: map[string]engine{}, verified: map[string]identity{}, bad: map[string]failure{}, flights: map[string]chan struct{}{}}
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
			if err := os.RemoveAll(filepath.Join(c.dir, e.Name())); err != nil {
				return fmt.Errorf("clean cache of compiled code: %w", err)
			}
		}
	}
	return nil
}

// Dir is the folder of the code.
func (c *Cache) Dir() string { return c.dir }

// Has says whether code of a module is there, without looking at it.
func (c *Cache) Has(ctx context.Context, module digest.Digest, proposals []string) bool {
	e, err := c.engine(ctx, proposals)
	if err != nil {
		return false
	}
	_, err = os.Lstat(filepath.Join(c.dir, e.name(module)))
	return err == nil
}

// Code returns the path of a module's code, compiling it if it is not there or
// not what was written. owner is the manifest that keeps it from the
// collector. Preconditions: a lease keeps owner.
func (c *Cache) Code(ctx context.Context, owner digest.Digest, m Module, proposals []string) (string, error) {
	e, err := c.engine(ctx, proposals)
	if err != nil {
		return "", err
	}
	name := e.name(m.Digest)
	// Label first, then look: what the collector marked before the label it
	// removes before check can look, and after the label it removes nothing.
	if err := c.label(ctx, owner, e, name); err != nil {
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
	return c.remember(name, m.Digest, err)
}

// seal makes a finished file durable and read-only for everybody: a host reads
// it as whatever user its guest has.
func seal(f *os.File) error {
	if err := f.Chmod(codeMode); err != nil {
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
	if err := replace(tmp.Name(), path); err != nil {
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

// identity of a file that was checked: another file under its name, or the
// same one written to, is checked again.
type identity struct {
	dev, ino uint64
	size     int64
	mtime    unix.Timespec
	ctime    unix.Timespec
	mode     uint32
	uid      uint32
}

// sealed says whether nobody but us can have written to a file, or will.
func (i identity) sealed() error {
	if int(i.uid) != os.Geteuid() || i.mode&unix.S_IFMT != unix.S_IFREG || i.mode&0o777 != codeMode {
		return fmt.Errorf("it has mode %o and user %d, wanted %o and %d", i.mode, i.uid, unix.S_IFREG|codeMode, os.Geteuid())
	}
	return nil
}

func identify(f *os.File) (identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return identity{}, err
	}
	return identity{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim, st.Mode, st.Uid}, nil
}
