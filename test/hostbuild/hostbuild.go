// Package hostbuild owns the limpet-host that tests run: it is built as the
// release is, or is the one that the environment names.
package hostbuild

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/limpet-cri/limpet/test/scratch"
)

// Env names a limpet-host to test instead of one that is built here.
const Env = "LIMPET_TEST_HOST"

// linkFlags are those of the release, so that the tests run what is shipped.
const linkFlags = "-s -w -linkmode=external -extldflags '-static -Wl,--gc-sections'"

// Build returns the host's path. Users other than root can run it. TestMain
// calls done, which removes what was built.
func Build() (path string, done func() error, err error) {
	if path := os.Getenv(Env); path != "" {
		return path, func() error { return nil }, nil
	}
	if err := lookAtSources(); err != nil {
		return "", nil, err
	}
	dir, done, err := scratch.Shared()
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(dir, "limpet-host")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", linkFlags, "-o", path, "github.com/limpet-cri/limpet/cmd/limpet-host")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", nil, errors.Join(fmt.Errorf("build limpet-host: %w: %s", err, out), done())
	}
	return path, done, nil
}

// lookAtSources asks for the state of all that a host is built from. The go
// command keeps the results of tests by the files that they looked at: a test
// that only has a host built passes again, unseen, after the host has changed.
func lookAtSources() error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	for _, dir := range []string{"cmd/limpet-host", "shim", "wasm"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && d.Name() == "testdata":
				return filepath.SkipDir
			case d.IsDir() || strings.HasSuffix(path, "_test.go"):
				return nil
			}
			_, err = os.Stat(path)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// moduleRoot is the folder above the test's own that holds go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the test's folder")
		}
	}
}
