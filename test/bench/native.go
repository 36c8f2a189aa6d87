package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/limpet-cri/limpet/test/node"
)

// pushNative builds the peer's program and pushes two images of it, one for
// the sandbox and one for the container.
func pushNative(ctx context.Context, n *node.Node, dir string) (pause, idle string, err error) {
	source := filepath.Join(filepath.Dir(n.Bin), "test", "bench", "native", "idle.c")
	program := filepath.Join(dir, "idle")
	cc := exec.CommandContext(ctx, "gcc", "-Os", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector",
		"-Wl,--build-id=none", "-s", "-o", program, source)
	if out, err := cc.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("gcc %s: %w\n%s", source, err, out)
	}
	for _, repo := range []string{"native/pause", "native/idle"} {
		if err := pushProgram(ctx, "http://"+n.Registry+"/v2/"+repo, program); err != nil {
			return "", "", fmt.Errorf("push %s: %w", repo, err)
		}
	}
	return n.Registry + "/native/pause:1", n.Registry + "/native/idle:1", nil
}

// pushProgram pushes an image of one program as repository tag 1.
func pushProgram(ctx context.Context, repo, program string) error {
	layer, err := layerOf(program)
	if err != nil {
		return err
	}
	config := v1.Image{
		Platform: v1.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		Config:   v1.ImageConfig{Entrypoint: []string{"/idle"}},
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
	}
	cb, err := json.Marshal(config)
	if err != nil {
		return err
	}
	manifest := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromBytes(cb), Size: int64(len(cb))},
		Layers: []v1.Descriptor{{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromBytes(layer), Size: int64(len(layer))}},
	}
	mb, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	for _, blob := range [][]byte{layer, cb} {
		url := repo + "/blobs/uploads/?digest=" + digest.FromBytes(blob).String()
		if err := send(ctx, http.MethodPost, url, "application/octet-stream", blob); err != nil {
			return err
		}
	}
	return send(ctx, http.MethodPut, repo+"/manifests/1", v1.MediaTypeImageManifest, mb)
}

func send(ctx context.Context, method, url, mediaType string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", mediaType)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusCreated {
		return fmt.Errorf("%s %s: %s", method, url, answer.Status)
	}
	return nil
}

// layerOf is a layer that holds the program as /idle.
func layerOf(program string) ([]byte, error) {
	b, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "idle", Mode: 0o755, Size: int64(len(b))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return layer.Bytes(), nil
}
