package content

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/log"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// journal collects log lines.
type journal struct{ bytes.Buffer }

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(&j.Buffer, nil)) }

// opened is a store in root, started, that the test's end closes.
func opened(t *testing.T, root string, log *slog.Logger) *Store {
	t.Helper()
	s, err := Open(Config{Root: root, Snapshotter: Native}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() }) // closed before, mostly
	if _, err := s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s
}

// put stores a blob under a name, which keeps it.
func put(t *testing.T, s *Store, text string) digest.Digest {
	t.Helper()
	ctx := Context(context.Background())
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString(text), Size: int64(len(text))}
	if _, err := s.Leases().Create(ctx, leases.WithID("put")); err != nil {
		t.Fatal(err)
	}
	if err := content.WriteBlob(leases.WithLease(ctx, "put"), s.Blobs(), "put", strings.NewReader(text), d); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Names().Create(ctx, images.Image{Name: "name-" + d.Digest.Encoded(), Target: d}); err != nil {
		t.Fatal(err)
	}
	if err := s.Leases().Delete(ctx, leases.Lease{ID: "put"}); err != nil {
		t.Fatal(err)
	}
	return d.Digest
}

// addNames gives a blob names enough for several pages of the database.
func addNames(t *testing.T, s *Store, d digest.Digest, n int) {
	t.Helper()
	err := s.bolt.Update(func(tx *bolt.Tx) error {
		ctx := boltutil.WithTransaction(Context(context.Background()), tx)
		for i := range n {
			im := images.Image{Name: fmt.Sprint("more-", i), Target: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: 1}}
			if _, err := s.Names().Create(ctx, im); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func has(s *Store, d digest.Digest) bool {
	_, err := s.Blobs().Info(Context(context.Background()), d)
	_, statErr := os.Stat(s.BlobPath(d))
	return err == nil && statErr == nil
}

// write replaces a file's bytes, whatever its mode.
func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestInUse: a second opener is told so in a bounded time, and changes nothing
// of what the first one wrote.
func TestInUse(t *testing.T) {
	root := t.TempDir()
	s := opened(t, root, slog.New(slog.DiscardHandler))
	d := put(t, s, "in use")
	if _, err := Open(Config{Root: root, Snapshotter: Native}, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrInUse) {
		t.Fatalf("second opener: %v, want ErrInUse", err)
	}
	if es, err := filepath.Glob(filepath.Join(root, "damaged-*")); err != nil || len(es) > 0 {
		t.Errorf("set aside by the second opener: %v, %v", es, err)
	}
	if !has(s, d) {
		t.Error("a blob is gone")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s = opened(t, root, slog.New(slog.DiscardHandler)); !has(s, d) {
		t.Error("a blob is gone after the first one closed")
	}
}

// TestDamagedDatabase: whatever is left of meta.db, the store opens. A file
// that cannot be read is set aside with all it described, and the log says
// where to.
func TestDamagedDatabase(t *testing.T) {
	random := bytes.Repeat([]byte{0xa5, 0x5a, 0x17}, 1<<12)
	for name, c := range map[string]struct {
		damage func(b []byte) []byte
		boot   string // what the boot file says, "" to leave it
	}{
		"empty":           {func([]byte) []byte { return nil }, ""},
		"header":          {func(b []byte) []byte { return append(random[:1<<13:1<<13], b[1<<13:]...) }, ""},
		"cut to a page":   {func(b []byte) []byte { return b[:4096] }, ""},
		"not a database":  {func([]byte) []byte { return random }, ""},
		"pages, unclean":  {func(b []byte) []byte { return append(b[:2*4096:2*4096], make([]byte, len(b)-2*4096)...) }, "other open"},
		"cut in half":     {func(b []byte) []byte { return b[:len(b)/2] }, "other open"},
		"cut, free pages": {func(b []byte) []byte { return b[:freePages(b)] }, ""},
		"names, unclean": {func(b []byte) []byte {
			at := bytes.LastIndex(b, []byte("more-100")) / 4096 * 4096
			return append(append(b[:at:at], random[:4096]...), b[at+4096:]...)
		}, "other open"},
		"random, unclean": {func(b []byte) []byte { return append(b[:2*4096:2*4096], bytes.Repeat(random, len(b)/len(random)+1)...) }, "other open"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			s := opened(t, root, slog.New(slog.DiscardHandler))
			d := put(t, s, strings.Repeat("blob of a damaged store", 1000))
			addNames(t, s, d, 400)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			db := filepath.Join(root, "meta.db")
			b, err := os.ReadFile(db)
			if err != nil {
				t.Fatal(err)
			}
			write(t, db, c.damage(b))
			if c.boot != "" {
				write(t, filepath.Join(root, bootFile), []byte(c.boot))
			}
			var j journal
			s = opened(t, root, j.logger())
			aside, err := filepath.Glob(filepath.Join(root, "damaged-*"))
			if err != nil || len(aside) != 1 {
				t.Fatalf("set aside: %v, %v", aside, err)
			}
			if !strings.Contains(j.String(), aside[0]) || strings.Count(j.String(), "level=ERROR") != 1 {
				t.Errorf("the log does not say where to:\n%s", j.String())
			}
			if has(s, d) {
				t.Error("a blob of before is in the new store")
			}
			if _, err := os.Stat(filepath.Join(aside[0], "content", "blobs", "sha256", d.Encoded())); err != nil {
				t.Errorf("the file of a blob that a container may use: %v", err)
			}
			if put(t, s, "after"); s.Close() != nil {
				t.Error("the new store does not close")
			}
		})
	}
}

// freePages is where a database keeps its list of free pages, which is read as
// soon as it is opened: of two headers, each the first thing of a page, the one
// with the higher transaction counts.
func freePages(b []byte) uint64 {
	le := binary.LittleEndian
	header := b[16:4096]
	if other := b[4096+16 : 2*4096]; le.Uint64(other[48:]) > le.Uint64(header[48:]) {
		header = other
	}
	return le.Uint64(header[32:]) * 4096
}

// TestFaultIsNoDamage: an error of the machine sets nothing aside.
func TestFaultIsNoDamage(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "meta.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Root: root, Snapshotter: Native}, slog.New(slog.DiscardHandler)); err == nil || errors.Is(err, errDamaged) {
		t.Errorf("opened a folder: %v", err)
	}
	if es, err := filepath.Glob(filepath.Join(root, "damaged-*")); err != nil || len(es) > 0 {
		t.Errorf("set aside: %v, %v", es, err)
	}
}

// TestLeftovers: a start collects what a kill left: ingests without a name,
// with a name that nobody knows, of a lease that expired, and blob files that
// never got into the database. What a lease keeps stays.
func TestLeftovers(t *testing.T) {
	root := t.TempDir()
	s := opened(t, root, slog.New(slog.DiscardHandler))
	ctx := Context(context.Background())
	kept := put(t, s, "kept")
	begin := func(to content.Ingester, ref, lease string) {
		t.Helper()
		w, err := to.Writer(leases.WithLease(ctx, lease), content.WithRef(ref))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("half of a blob")); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	lasting, err := s.Leases().Create(ctx, leases.WithID("lasting"))
	if err != nil {
		t.Fatal(err)
	}
	expired, err := s.Leases().Create(ctx, leases.WithID("expired"), leases.WithLabel("containerd.io/gc.expire", "2020-01-01T00:00:00Z"))
	if err != nil {
		t.Fatal(err)
	}
	begin(s.Blobs(), "resumed", lasting.ID)
	begin(s.Blobs(), "given up", expired.ID)
	begin(s.raw, "unknown", "")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	ingests := filepath.Join(root, "content", "ingest")
	if err := os.Mkdir(filepath.Join(ingests, "nameless"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(ingests, "nameless", "data"), []byte("half"))
	stray := digest.FromString("stray")
	write(t, s.BlobPath(stray), []byte("not what its name says"))

	s = opened(t, root, slog.New(slog.DiscardHandler))
	es, err := os.ReadDir(ingests)
	if err != nil || len(es) != 1 {
		t.Errorf("ingests %v, %v; want the resumed one", es, err)
	}
	if st, err := s.Blobs().Status(ctx, "resumed"); err != nil || st.Offset == 0 {
		t.Errorf("what a lease keeps: %+v, %v", st, err)
	}
	if _, err := os.Stat(s.BlobPath(stray)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a stray blob is there: %v", err)
	}
	if !has(s, kept) {
		t.Error("a named blob is gone")
	}

	// Nothing was removed since the last collection: the start has to ask.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, s.BlobPath(stray), []byte("not what its name says"))
	s = opened(t, root, slog.New(slog.DiscardHandler))
	if _, err := os.Stat(s.BlobPath(stray)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a stray blob of a quiet store is there: %v", err)
	}
}

func TestMain(m *testing.M) {
	// The libraries' own logger, which limpetd silences too.
	log.L.Logger.SetOutput(io.Discard)
	os.Exit(m.Run())
}
