package node

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Entry is one entry of a layer: a file with a body, or what its header says.
type Entry struct {
	tar.Header
	Body []byte
}

// Layer returns an uncompressed layer.
func Layer(entries ...Entry) ([]byte, error) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, e := range entries {
		e.Header.Size = int64(len(e.Body))
		if err := w.WriteHeader(&e.Header); err != nil {
			return nil, fmt.Errorf("layer: %s: %w", e.Name, err)
		}
		if _, err := w.Write(e.Body); err != nil {
			return nil, fmt.Errorf("layer: %s: %w", e.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	return layer.Bytes(), nil
}

// PushImage pushes an image with a root file system as NAME:1 and returns its
// reference.
func (n *Node) PushImage(ctx context.Context, name string, platform v1.Platform, config v1.ImageConfig, layers ...[]byte) (string, error) {
	image := v1.Image{Platform: platform, Config: config, RootFS: v1.RootFS{Type: "layers"}}
	manifest := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	for _, l := range layers {
		d := digest.FromBytes(l)
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, d)
		manifest.Layers = append(manifest.Layers, v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: d, Size: int64(len(l))})
	}
	cb, err := json.Marshal(image)
	if err != nil {
		return "", err
	}
	manifest.Config = v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromBytes(cb), Size: int64(len(cb))}
	mb, err := json.Marshal(manifest)
	if err != nil {
		return "", err
	}
	repo := "http://" + n.Registry + "/v2/" + name
	for _, blob := range append(layers, cb) {
		url := repo + "/blobs/uploads/?digest=" + digest.FromBytes(blob).String()
		if err := send(ctx, http.MethodPost, url, "application/octet-stream", blob); err != nil {
			return "", fmt.Errorf("push %s: %w", name, err)
		}
	}
	if err := send(ctx, http.MethodPut, repo+"/manifests/1", v1.MediaTypeImageManifest, mb); err != nil {
		return "", fmt.Errorf("push %s: %w", name, err)
	}
	return n.Registry + "/" + name + ":1", nil
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
