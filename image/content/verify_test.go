package content

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
)

// stopMachine makes the boot file say what it says after the machine stopped
// while the store was open.
func stopMachine(t *testing.T, root string) {
	t.Helper()
	write(t, filepath.Join(root, bootFile), []byte("00000000-0000-0000-0000-000000000000 open\n"))
}

// crash ends a store as kill -9 does: nothing is written.
func crash(t *testing.T, s *Store) {
	t.Helper()
	s.stop()
	<-s.done
	boot, err := os.ReadFile(filepath.Join(s.root, bootFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(s.root, bootFile), boot)
}

// flip changes one bit of a file and nothing else that can be seen of it.
func flip(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	write(t, path, b)
}

// TestBootFile: what a start makes of what the last process wrote.
func TestBootFile(t *testing.T) {
	id, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"":                             true, // torn
		id:                             true,
		"other":                        true,
		"other closed":                 false,
		"other open":                   true,
		"other closed unverified":      true,
		"other open unverified":        true,
		id + " open":                   false,
		id + " closed":                 false,
		id + " open unverified":        true,
		id + " closed unverified":      true,
		id + " op":                     true,
		"\x00\x00\x00\x00\x00\x00\x00": true,
	} {
		root := t.TempDir()
		write(t, filepath.Join(root, bootFile), []byte(text))
		if got, err := beginBoot(root); err != nil || got != want {
			t.Errorf("after %q: unclean is %v, %v, want %v", text, got, err, want)
		}
		// Asked again in the same boot, the answer is the same until the work
		// is done.
		if got, err := beginBoot(root); err != nil || got != want {
			t.Errorf("again after %q: unclean is %v, %v, want %v", text, got, err, want)
		}
	}
	if unclean, err := beginBoot(t.TempDir()); err != nil || unclean {
		t.Errorf("a new store is unclean: %v, %v", unclean, err)
	}
}

// TestUncleanOutlivesTheProcess: the mark stays on disk, through a clean end
// and a kill of the process, until all blobs were verified, and no longer.
func TestUncleanOutlivesTheProcess(t *testing.T) {
	root := t.TempDir()
	quiet := slog.New(slog.DiscardHandler)
	s := opened(t, root, quiet)
	if s.Unclean() {
		t.Error("a new store is unclean")
	}
	d := put(t, s, strings.Repeat("a blob ", 100))
	crash(t, s)
	if s = opened(t, root, quiet); s.Unclean() {
		t.Error("unclean after the end of a process: the page cache was not lost")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	flip(t, s.BlobPath(d))
	stopMachine(t, root)
	for range 2 {
		if s = opened(t, root, quiet); !s.Unclean() {
			t.Fatal("the unclean end is forgotten")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s = opened(t, root, quiet); !s.Unclean() {
			t.Fatal("the unclean end is forgotten after a clean end of the process")
		}
		crash(t, s)
	}

	s = opened(t, root, quiet)
	cut, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.VerifyAll(cut, func(digest.Digest) {}); !errors.Is(err, context.Canceled) || !s.Unclean() {
		t.Errorf("cut short: %v, unclean %v", err, s.Unclean())
	}
	var bad []digest.Digest
	if err := s.VerifyAll(context.Background(), func(d digest.Digest) { bad = append(bad, d) }); err != nil {
		t.Fatal(err)
	}
	if s.Unclean() || len(bad) != 1 || bad[0] != d || has(s, d) {
		t.Errorf("unclean %v, damaged %v, there %v", s.Unclean(), bad, has(s, d))
	}
	crash(t, s)
	if s = opened(t, root, quiet); s.Unclean() {
		t.Error("all was verified, and it is unclean again")
	}
}

// TestDamagedBlobs: each kind of damage is found after an unclean end, some by
// the size at the start, the rest by the digest, and named in the log; what is
// whole stays.
func TestDamagedBlobs(t *testing.T) {
	root := t.TempDir()
	s := opened(t, root, slog.New(slog.DiscardHandler))
	text := strings.Repeat("these bytes matter ", 5000)
	whole := put(t, s, "whole "+text)
	bySize := map[string]func(path string){
		"cut ":   func(p string) { write(t, p, []byte(text[:1000])) },
		"empty ": func(p string) { write(t, p, nil) },
		"long ":  func(p string) { b, _ := os.ReadFile(p); write(t, p, append(b, 'x')) },
		"gone ": func(p string) {
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
		},
	}
	byDigest := map[string]func(path string){
		"flipped ": func(p string) { flip(t, p) },
		"zeros ":   func(p string) { b, _ := os.ReadFile(p); write(t, p, make([]byte, len(b))) },
	}
	bad := map[string]digest.Digest{}
	for _, m := range []map[string]func(string){bySize, byDigest} {
		for name := range m {
			bad[name] = put(t, s, name+text)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, m := range []map[string]func(string){bySize, byDigest} {
		for name, damage := range m {
			damage(s.BlobPath(bad[name]))
		}
	}
	stopMachine(t, root)

	var j journal
	s, err := Open(Config{Root: root, Snapshotter: Native}, j.logger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	found, err := s.Start(context.Background())
	if err != nil || len(found) != len(bySize) {
		t.Errorf("found by size: %v, %v", found, err)
	}
	for name := range bySize {
		if !slices.Contains(found, bad[name]) || has(s, bad[name]) {
			t.Errorf("%s is not found", name)
		}
	}
	if err := s.Verify(context.Background(), bad["zeros "]); !errors.Is(err, ErrDamaged) {
		t.Errorf("verify: %v", err)
	}
	if err := s.Verify(context.Background(), bad["zeros "]); !errdefs.IsNotFound(err) {
		t.Errorf("verify what was thrown away: %v", err)
	}
	var late []digest.Digest
	if err := s.VerifyAll(context.Background(), func(d digest.Digest) { late = append(late, d) }); err != nil {
		t.Fatal(err)
	}
	if len(late) != 1 || late[0] != bad["flipped "] {
		t.Errorf("found by digest: %v", late)
	}
	for name, d := range bad {
		if has(s, d) || !strings.Contains(j.String(), d.String()) {
			t.Errorf("%s is there or not in the log", name)
		}
	}
	if !has(s, whole) {
		t.Error("a whole blob was thrown away")
	}
	if err := s.Verify(context.Background(), whole); err != nil {
		t.Error(err)
	}
}

// TestVerifyReadsOnce: a blob is read once per process; one that was just
// fetched not at all.
func TestVerifyReadsOnce(t *testing.T) {
	s := opened(t, t.TempDir(), slog.New(slog.DiscardHandler))
	read, fetched := put(t, s, "read once"), put(t, s, "fetched just now")
	if err := s.Verify(context.Background(), read); err != nil {
		t.Fatal(err)
	}
	s.Trust(fetched)
	for _, d := range []digest.Digest{read, fetched} {
		flip(t, s.BlobPath(d))
		if err := s.Verify(context.Background(), d); err != nil {
			t.Errorf("it was read again: %v", err)
		}
	}
	// Thrown away and brought back, it is looked at again.
	if err := s.Discard(context.Background(), read); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(context.Background(), read); !errdefs.IsNotFound(err) {
		t.Errorf("verify after Discard: %v", err)
	}
}
