package image

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestDamagedSnapshots: whatever a stop of the machine left of the
// snapshotter's own database, the service starts, and a pull makes the image
// whole again.
func TestDamagedSnapshots(t *testing.T) {
	needRoot(t)
	srv := newServer(t)
	ctx := context.Background()
	srv.image("app", "v1", ocispec.MediaTypeImageConfig, imageConfig("wasi", "wasm", "/app.wasm"),
		tarLayer(t, "", file{name: "app.wasm", body: string(wasmModule("snapshots"))}), tarLayer(t, "", file{name: "b", body: "b"}))
	ref := srv.ref("app", "v1")
	random := bytes.Repeat([]byte{0xa5, 0x5a, 0x17, 0x99}, 1024)
	for _, snapshotter := range []string{"overlayfs", "native"} {
		for how, damage := range map[string]func(b []byte) []byte{
			"gone":   nil,
			"empty":  func(b []byte) []byte { return nil },
			"header": func(b []byte) []byte { return append(append(bytes.Clone(random), random...), b[2*len(random):]...) },
			"pages": func(b []byte) []byte {
				return append(b[:2*len(random):2*len(random)], bytes.Repeat(random, len(b)/len(random)-2)...)
			},
			"cut": func(b []byte) []byte { return b[:len(random)] },
		} {
			t.Run(snapshotter+" "+how, func(t *testing.T) {
				s, comp := open(t, Config{Snapshotter: snapshotter})
				if _, err := s.Pull(ctx, ref, PullOptions{}); err != nil {
					t.Fatal(err)
				}
				dir := map[string]string{"overlayfs": "overlay", "native": "native"}[snapshotter]
				db := filepath.Join(s.cfg.Root, dir, "metadata.db")
				s, said := reopen(t, s, comp, func() {
					b, err := os.ReadFile(db)
					if err != nil {
						t.Fatal(err)
					}
					if err := os.Remove(db); err != nil {
						t.Fatal(err)
					}
					if damage != nil {
						if err := os.WriteFile(db, damage(b), 0o600); err != nil {
							t.Fatal(err)
						}
					}
					stopMachine(t, s.cfg.Root)
				})
				if _, ok, _ := s.Status(ref); ok {
					t.Error("the image is there without its files")
				}
				if _, err := s.Pull(ctx, ref, PullOptions{}); err != nil {
					t.Fatalf("%v\n%s", err, said)
				}
				p, err := s.Prepare(ctx, ref, "c", "", nil)
				if err != nil {
					t.Fatal(err)
				}
				root, err := p.Root.Open("", "")
				if err != nil {
					t.Fatal(err)
				}
				defer root.Close()
				f, err := tree{root}.open("/b")
				if err != nil {
					t.Fatal(err)
				}
				f.Close()
			})
		}
	}
}
