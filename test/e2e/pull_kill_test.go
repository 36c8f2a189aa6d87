//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/test/node"
)

const pullKills = 100

// Limpetd is killed at random points of pulls. Whatever it left, the next one
// cleans up: in the end the image is pulled whole, and once it is removed no
// blob, ingest, snapshot, code, lease or mount is there any more.
func TestPullKill(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	n, err := node.Start(t.Context(), node.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
	})
	ref := pushLarge(t, n)
	begin := time.Now()
	if _, err := n.Pull(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(begin)
	removeImage(t, n, ref)
	t.Logf("a pull takes %v", whole)
	for i := range pullKills {
		killInPull(t, n, ref, rand.N(whole*5/4))
		if err := n.StartDaemon(t.Context()); err != nil {
			t.Fatalf("start after kill %d: %v\n%s", i, err, n.LogTail())
		}
		// Every other time the rest is pulled and removed, so that the next
		// kill meets a pull from nothing and not only the end of one.
		if i%2 == 0 {
			if _, err := n.Pull(t.Context(), ref); err != nil {
				t.Fatalf("pull after kill %d: %v\n%s", i, err, n.LogTail())
			}
			removeImage(t, n, ref)
		}
	}
	if _, err := n.Pull(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	removeImage(t, n, ref)
	if err := n.StopDaemon(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, n)
}

// pushLarge pushes an image of two layers with a module in one of them.
func pushLarge(t *testing.T, n *node.Node) string {
	t.Helper()
	module, err := os.ReadFile(filepath.Join(n.Guests, "forever.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	var layers [][]byte
	for i, e := range []node.Entry{
		{Header: tar.Header{Name: "app.wasm", Mode: 0o644}, Body: module},
		{Header: tar.Header{Name: "data", Mode: 0o644}, Body: bytes.Repeat([]byte("limpet\n"), 1<<20)},
	} {
		l, err := node.Layer(e, node.Entry{Header: tar.Header{Name: fmt.Sprintf("d%d/", i), Typeflag: tar.TypeDir, Mode: 0o755}})
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, l)
	}
	config := v1.ImageConfig{Entrypoint: []string{"/app.wasm"}}
	ref, err := n.PushImage(t.Context(), "large", v1.Platform{OS: "wasi", Architecture: "wasm"}, config, layers...)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// killInPull begins a pull and kills limpetd after a while.
func killInPull(t *testing.T, n *node.Node, ref string, after time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_, _ = n.Pull(ctx, ref) // fails, unless it was faster
	}()
	<-time.After(after)
	if err := n.StopDaemon(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-answered
}

func removeImage(t *testing.T, n *node.Node, ref string) {
	t.Helper()
	if _, err := n.Images.RemoveImage(t.Context(), &runtime.RemoveImageRequest{Image: &runtime.ImageSpec{Image: ref}}); err != nil {
		t.Fatal(err)
	}
}

// nothingLeft looks at what a stopped limpetd keeps of images.
func nothingLeft(t *testing.T, n *node.Node) {
	t.Helper()
	images := filepath.Join(n.Dir, "lib", "images")
	for _, dir := range []string{"content/blobs/sha256", "content/ingest", "overlay/snapshots", "native/snapshots", "code"} {
		left, err := os.ReadDir(filepath.Join(images, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		for _, e := range left {
			t.Errorf("left in %s: %s", dir, e.Name())
		}
	}
	mounts, err := node.Mounts(filepath.Join(n.Dir, "lib"))
	if err != nil || len(mounts) > 0 {
		t.Errorf("mounts are left: %v, %v", mounts, err)
	}
	db, err := bolt.Open(filepath.Join(images, "meta.db"), 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		space := tx.Bucket([]byte("v1")).Bucket([]byte("limpet"))
		leases := space.Bucket([]byte("leases"))
		if leases == nil {
			return nil
		}
		return leases.ForEach(func(k, _ []byte) error { t.Errorf("lease left: %s", k); return nil })
	})
	if err != nil {
		t.Error(err)
	}
}
