// Command build makes the guests of this folder from source: each folder with
// a Go program for wasip1, each .wat file as it stands.
//
//	build FROM TO
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/limpet-cri/limpet/wasm/wasmtime"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: build FROM TO")
		os.Exit(2)
	}
	if err := build(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "guests:", err)
		os.Exit(1)
	}
}

func build(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	texts, err := filepath.Glob(filepath.Join(from, "*.wat"))
	if err != nil {
		return err
	}
	for _, p := range texts {
		if err := assemble(p, target(to, strings.TrimSuffix(p, ".wat"))); err != nil {
			return err
		}
	}
	programs, err := filepath.Glob(filepath.Join(from, "*", "main.go"))
	if err != nil {
		return err
	}
	for _, p := range programs {
		dir := filepath.Dir(p)
		if filepath.Base(dir) == "build" {
			continue
		}
		if err := compile(dir, target(to, dir)); err != nil {
			return err
		}
	}
	return nil
}

func target(to, name string) string { return filepath.Join(to, filepath.Base(name)+".wasm") }

func assemble(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	code, err := wasmtime.Wat(text)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return os.WriteFile(to, code, 0o644)
}

func compile(dir, to string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", to, "./"+dir)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", dir, err, text)
	}
	return nil
}
