package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

type item struct {
	name, body, link string
	typ              byte
	mode             int64
	uid              int
	pax              map[string]string
}

func archiveOf(t testing.TB, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		h := &tar.Header{Name: i.name, Linkname: i.link, Typeflag: i.typ, Mode: i.mode, Uid: i.uid, Gid: i.uid, Size: int64(len(i.body)), PAXRecords: i.pax}
		if i.typ == 0 {
			h.Typeflag = tar.TypeReg
		}
		if i.mode == 0 {
			h.Mode = 0o755
		}
		if len(i.pax) > 0 {
			h.Format = tar.FormatPAX
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(i.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var wide = used{bytes: 1 << 20, entries: 1000}

// listing describes a folder without what is below root.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == "root" && d.IsDir() {
			return filepath.SkipDir
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		body := ""
		if fi.Mode().IsRegular() {
			c, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			body = string(c)
		}
		fmt.Fprintln(&b, p, fi.Mode(), body)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestSanitised: what of a layer's metadata is kept, and what is dropped.
func TestSanitised(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	root := t.TempDir()
	b := archiveOf(t,
		item{name: "suid", body: "x", mode: 0o6755, uid: 1234},
		item{name: "tmp", typ: tar.TypeDir, mode: 0o1777},
		item{name: "caps", body: "x", pax: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
			"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.note": "kept", "SCHILY.xattr.user.overlay.opaque": "y"}},
		item{name: "null", typ: tar.TypeChar}, item{name: "disk", typ: tar.TypeBlock}, item{name: "pipe", typ: tar.TypeFifo},
		item{name: "app", body: "x", uid: 77}, item{name: "hard", typ: tar.TypeLink, link: "app", uid: 77}, item{name: "soft", typ: tar.TypeSymlink, link: "/app"},
		item{name: "gone", body: "x"}, item{name: ".wh.gone"})
	n, err := applyTar(context.Background(), bytes.NewReader(b), root, nil, digest.FromBytes(b), wide)
	if err != nil {
		t.Fatal(err)
	}
	if n.bytes != int64(len(b)) || n.entries != 11 {
		t.Errorf("counted %+v", n)
	}
	var st unix.Stat_t
	for name, want := range map[string]struct {
		mode uint32
		uid  uint32
	}{"suid": {unix.S_IFREG | 0o755, 1234}, "tmp": {unix.S_IFDIR | 0o1777, 0}, "hard": {unix.S_IFREG | 0o755, 77}, "app": {unix.S_IFREG | 0o755, 77}} {
		if err := unix.Lstat(filepath.Join(root, name), &st); err != nil || st.Mode != want.mode || st.Uid != want.uid {
			t.Errorf("%s: mode %o, uid %d, %v; want %+v", name, st.Mode, st.Uid, err, want)
		}
	}
	for _, name := range []string{"null", "disk", "pipe", "gone"} {
		if err := unix.Lstat(filepath.Join(root, name), &st); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
	var list [256]byte
	size, err := unix.Llistxattr(filepath.Join(root, "caps"), list[:])
	if err != nil || string(list[:size]) != "user.note\x00" {
		t.Errorf("xattrs %q, %v", list[:max(size, 0)], err)
	}
}

// TestBounds: bombs end early, with a sentence.
func TestBounds(t *testing.T) {
	zeros := func(n int64) io.Reader { return io.LimitReader(zero{}, n) }
	for name, c := range map[string]struct {
		layer func(w io.Writer)
		lim   used
	}{
		"a file of 10 GB in a gzip": {func(w io.Writer) {
			z := gzip.NewWriter(w)
			tw := tar.NewWriter(z)
			tw.WriteHeader(&tar.Header{Name: "big", Size: 10 << 30, Mode: 0o644, Typeflag: tar.TypeReg})
			io.Copy(tw, zeros(32<<20))
			z.Close()
		}, used{bytes: 1 << 20, entries: 10}},
		"zeros after the archive": {func(w io.Writer) {
			z := gzip.NewWriter(w)
			tw := tar.NewWriter(z)
			tw.Close()
			io.Copy(z, zeros(32<<20))
			z.Close()
		}, used{bytes: 1 << 20, entries: 10}},
		"a million entries": {func(w io.Writer) {
			z := gzip.NewWriter(w)
			tw := tar.NewWriter(z)
			for i := range 20_000 {
				tw.WriteHeader(&tar.Header{Name: fmt.Sprint("f", i), Mode: 0o644, Typeflag: tar.TypeReg})
			}
			tw.Close()
			z.Close()
		}, used{bytes: 1 << 30, entries: 500}},
		"holes of 1 TB": {func(w io.Writer) { io.WriteString(w, sparse()) }, used{bytes: 1 << 20, entries: 10}},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			c.layer(&b)
			root := t.TempDir()
			_, err := applyTar(context.Background(), &b, root, nil, digest.FromString("x"), c.lim)
			if !errors.Is(err, ErrTooLarge) {
				t.Errorf("got %v", err)
			}
			if n := diskUsage(t, root); n > c.lim.bytes+1<<20 {
				t.Errorf("%d bytes written, %d allowed", n, c.lim.bytes)
			}
		})
	}
}

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// sparse is the header of a GNU sparse file of 1 TB without data.
func sparse() string {
	h := make([]byte, 512)
	copy(h, "holes")
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], "00000000000\x00")
	copy(h[136:], "00000000000\x00")
	h[156] = 'S'
	copy(h[257:], "ustar  \x00")
	copy(h[386:], "00000000000\x0000000000000\x00")
	copy(h[483:], "\x80\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00")
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return string(h) + strings.Repeat("\x00", 1024)
}

func diskUsage(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err == nil && fi.Mode().IsRegular() {
			n += fi.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestInvalid(t *testing.T) {
	good := archiveOf(t, item{name: "a", body: "hello"})
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(good)
	w.Close()
	for name, c := range map[string]struct {
		b  []byte
		id digest.Digest
	}{
		"another diff id": {good, digest.FromString("other")},
		"cut":             {good[:514], digest.FromBytes(good[:514])},
		"gzip is cut":     {z.Bytes()[:z.Len()-12], digest.FromBytes(good)},
		"no archive":      {[]byte(strings.Repeat("no archive ", 100)), digest.FromString("x")},
	} {
		if _, err := applyTar(context.Background(), bytes.NewReader(c.b), t.TempDir(), nil, c.id, wide); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := applyTar(ctx, bytes.NewReader(good), t.TempDir(), nil, digest.FromBytes(good), wide); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// FuzzApply: no layer panics, escapes its folder or exceeds its bounds.
func FuzzApply(f *testing.F) {
	f.Add(archiveOf(f, item{name: "a/b", body: "x"}, item{name: "l", link: "../..", typ: tar.TypeSymlink}, item{name: "l/x", body: "y"}))
	f.Add(archiveOf(f, item{name: ".wh.a"}, item{name: "h", link: "l", typ: tar.TypeLink}, item{name: "d/", typ: tar.TypeDir}))
	f.Add([]byte(sparse()))
	f.Add([]byte{0x1f, 0x8b, 8, 0})
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		outside, err := os.MkdirTemp("", "limpet-fuzz-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(outside)
		root := filepath.Join(outside, "root")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		before := listing(t, outside)
		lim := used{bytes: 1 << 16, entries: 64}
		n, err := applyTar(context.Background(), bytes.NewReader(b), root, nil, digest.FromBytes(b), lim)
		if err == nil && (n.bytes > lim.bytes || n.entries > lim.entries) {
			t.Fatalf("%+v accepted, above %+v", n, lim)
		}
		if after := listing(t, outside); after != before {
			t.Fatalf("outside changed:\n%s\nwas\n%s", after, before)
		}
	})
}
