package main

import (
	"archive/tar"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

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
	b, err := os.ReadFile(program)
	if err != nil {
		return "", "", err
	}
	layer, err := node.Layer(node.Entry{Header: tar.Header{Name: "idle", Mode: 0o755}, Body: b})
	if err != nil {
		return "", "", err
	}
	platform := v1.Platform{Architecture: runtime.GOARCH, OS: "linux"}
	config := v1.ImageConfig{Entrypoint: []string{"/idle"}}
	if pause, err = n.PushImage(ctx, "native/pause", platform, config, layer); err != nil {
		return "", "", err
	}
	idle, err = n.PushImage(ctx, "native/idle", platform, config, layer)
	return pause, idle, err
}
