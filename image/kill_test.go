package image

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The environment of the process that TestKill kills.
const (
	killRoot = "LIMPET_TEST_KILL_ROOT"
	killRef  = "LIMPET_TEST_KILL_REF"
)

// kills is how often the puller is killed.
const kills = 100

func TestMain(m *testing.M) {
	if root := os.Getenv(killRoot); root != "" {
		os.Exit(puller(root, os.Getenv(killRef)))
	}
	os.Exit(m.Run())
}

// puller opens the service, says so, and pulls.
func puller(root, ref string) int {
	s, err := New(context.Background(), Config{Root: root}, &compilerFake{}, slog.New(slog.DiscardHandler))
	if err == nil {
		fmt.Println("open")
		_, err = s.Pull(context.Background(), ref, PullOptions{})
	}
	if err == nil {
		fmt.Println("pulled")
		err = s.Close()
	}
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// TestKill kills a process at random moments of pulls. Whenever it starts
// again, an image is whole or not there, and a pull succeeds; in the end no
// mount, folder, ingest or lease is left.
func TestKill(t *testing.T) {
	needRoot(t)
	if testing.Short() {
		t.Skip("kills a hundred processes")
	}
	srv := newServer(t)
	half := strings.Repeat("half of a layer ", 1<<14)
	srv.image("app", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/app.wasm"),
		tarLayer(t, "", file{name: "app.wasm", body: string(wasmModule("kill"))}, file{name: "a", body: half}),
		tarLayer(t, "", file{name: "b", body: half + half}))
	srv.setHook(func(w http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "/blobs/") {
			// Slow enough that kills fall into every part of a pull.
			t := time.NewTimer(10 * time.Millisecond)
			defer t.Stop()
			<-t.C
		}
		return false
	})
	root := filepath.Join(t.TempDir(), "images")
	ref := srv.ref("app", "v1")
	whole := timed(t, root+"-timing", ref)
	for n := range 3 {
		whole = min(whole, timed(t, fmt.Sprint(root, "-timing-", n), ref))
	}
	pulled := 0
	for range kills {
		if killOnce(t, root, ref, time.Duration(rand.Int64N(int64(whole)))) {
			pulled++
			remove(t, root, ref)
		}
	}
	t.Logf("%d kills within %s of the start, %d after the pull", kills, whole, pulled)
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(b), filepath.Dir(root)) {
		t.Errorf("mounts left: %v\n%s", err, b)
	}
	s, _ := open(t, Config{Root: root})
	if _, err := s.Pull(context.Background(), ref, PullOptions{}); err != nil {
		t.Fatalf("pull after the kills: %v", err)
	}
	if n := countFiles(t, s, "content/ingest"); n != 0 {
		t.Errorf("%d ingests left", n)
	}
	if n := countFiles(t, s, "overlay/snapshots"); n != 3 {
		t.Errorf("%d snapshot folders, want 2 layers and a view", n)
	}
	if n := countFiles(t, s, "code"); n != 2 {
		t.Errorf("%d files of code, want the code and its checksum", n)
	}
	if err := s.Remove(context.Background(), ref); err != nil {
		t.Fatal(err)
	}
	checkEmpty(t, s)
}

// TestCutOffUnpack: what a kill left of a layer that was being unpacked, under
// the lease that the next attempt takes over, is gone when that has pulled.
func TestCutOffUnpack(t *testing.T) {
	srv := newServer(t)
	srv.image("app", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/app.wasm"),
		tarLayer(t, "", file{name: "app.wasm", body: string(wasmModule("cut off"))}))
	s, _ := open(t, Config{Snapshotter: "native"})
	ref := srv.ref("app", "v1")
	img, err := s.Pull(t.Context(), ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	top := strings.TrimPrefix(s.known.byName[ref].view, "view-")
	if err := s.Remove(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	lease := pullLeaseOf(ref)
	if _, err := s.lease(nsContext(), lease); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Snapshots().Prepare(leases.WithLease(nsContext(), lease), "extract-"+lease+"-"+top, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pull(t.Context(), ref, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	var left []string
	err = s.store.Snapshots().Walk(nsContext(), func(_ context.Context, i snapshots.Info) error {
		left = append(left, i.Name)
		return nil
	})
	if n := countFiles(t, s, "native/snapshots"); n != 1 {
		t.Errorf("%d snapshot folders, want the layer, which is the view's too", n)
	}
	if want := []string{top, "view-" + top}; err != nil || !slices.Equal(left, want) {
		t.Errorf("snapshots %q, %v; want %q", left, err, want)
	}
}

// timed is how long a pull takes from the start of its process.
func timed(t *testing.T, root, ref string) time.Duration {
	t.Helper()
	started := time.Now()
	if b, err := command(root, ref).Output(); err != nil || !strings.Contains(string(b), "pulled") {
		t.Fatalf("%s, %v", b, err)
	}
	return time.Since(started)
}

func command(root, ref string) *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), killRoot+"="+root, killRef+"="+ref)
	return c
}

// killOnce starts a pull and kills it after a time, if it is not done before.
func killOnce(t *testing.T, root, ref string, after time.Duration) (pulled bool) {
	t.Helper()
	c := command(root, ref)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { c.Process.Kill() })
	defer timer.Stop()
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		if strings.HasPrefix(sc.Text(), "error") {
			t.Error(sc.Text())
		}
		pulled = pulled || sc.Text() == "pulled"
	}
	c.Wait() // killed, mostly
	return pulled
}

// remove opens the store as a restart would, checks that what is listed is
// whole, and removes it.
func remove(t *testing.T, root, ref string) {
	t.Helper()
	s, err := New(context.Background(), Config{Root: root}, &compilerFake{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Prepare(context.Background(), ref, "check", "", nil); err != nil {
		t.Errorf("pulled image is not whole: %v", err)
	}
	if err := s.Release(context.Background(), "check"); err != nil {
		t.Error(err)
	}
	if err := s.Remove(context.Background(), ref); err != nil {
		t.Error(err)
	}
}
