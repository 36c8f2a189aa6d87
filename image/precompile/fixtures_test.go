package precompile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	blobs "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/log"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/limpet-cri/limpet/image/content"
)

func TestMain(m *testing.M) {
	// The libraries' own logger, which limpetd silences too.
	log.L.Logger.SetOutput(io.Discard)
	os.Exit(m.Run())
}

// fake "compiles" by a prefix and refuses modules that hold "bad".
type fake struct {
	engine     string
	runs, keys atomic.Int64
	// during, if set, is called while a compilation is under way.
	during func(ctx context.Context) error
}

func (f *fake) Compile(ctx context.Context, in, out *os.File, proposals []string) error {
	f.runs.Add(1)
	if f.during != nil {
		if err := f.during(ctx); err != nil {
			return err
		}
	}
	b, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if bytes.Contains(b, []byte("bad")) {
		return errors.New("type mismatch " + strings.Repeat("x", 2*maxReason))
	}
	if bytes.Contains(b, []byte("nothing")) {
		return nil
	}
	_, err = fmt.Fprintf(out, "%s %v: %s", f.engine, proposals, b)
	return err
}

func (f *fake) EngineKey(_ context.Context, proposals []string) (string, error) {
	f.keys.Add(1)
	if f.engine == "" {
		return "", errors.New("no engine")
	}
	return f.engine + " " + strings.Join(proposals, ","), nil
}

// node is a cache on a store in a folder.
type node struct {
	*Cache
	t     *testing.T
	comp  *fake
	store *content.Store
	said  bytes.Buffer
}

func opened(t *testing.T, root string, comp *fake) *node {
	t.Helper()
	n := &node{t: t, comp: comp}
	var err error
	if n.store, err = content.Open(content.Config{Root: root, Snapshotter: content.Native}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.store.Close() }) // closed before, now and then
	if n.Cache, err = New(n.store, comp, time.Minute, slog.New(slog.NewTextHandler(&n.said, nil))); err != nil {
		t.Fatal(err)
	}
	if _, err := n.store.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return n
}

// owner stores a manifest and keeps it by a lease of its name.
func (n *node) owner(name string) digest.Digest {
	n.t.Helper()
	ctx := content.Context(context.Background())
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(name), Size: int64(len(name))}
	if _, err := n.store.Leases().Create(ctx, leases.WithID(name)); err != nil {
		n.t.Fatal(err)
	}
	if err := blobs.WriteBlob(leases.WithLease(ctx, name), n.store.Blobs(), name, strings.NewReader(name), d); err != nil {
		n.t.Fatal(err)
	}
	return d.Digest
}

// module in a file of its own.
func (n *node) module(text string) Module {
	n.t.Helper()
	path := filepath.Join(n.t.TempDir(), "module")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
	return Module{Digest: digest.FromString(text), Open: func() (*os.File, error) { return os.Open(path) }}
}

func (n *node) code(owner digest.Digest, m Module, proposals ...string) string {
	n.t.Helper()
	path, err := n.Code(context.Background(), owner, m, proposals)
	if err != nil {
		n.t.Fatal(err)
	}
	return path
}

func (n *node) collect() {
	n.t.Helper()
	if err := n.store.Collect(context.Background()); err != nil {
		n.t.Fatal(err)
	}
}

// files of the cache's folder.
func (n *node) files() (names []string) {
	n.t.Helper()
	es, err := os.ReadDir(n.dir)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

// spoil replaces a file's bytes and leaves mode, size and times as they were.
func spoil(t *testing.T, path string) {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := errors.Join(os.Remove(path), os.WriteFile(path, b, fi.Mode()), os.Chmod(path, fi.Mode()), os.Chtimes(path, fi.ModTime(), fi.ModTime())); err != nil {
		t.Fatal(err)
	}
}
