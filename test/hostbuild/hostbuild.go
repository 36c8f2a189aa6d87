// Package hostbuild owns the limpet-host that tests run: it is built as the
// release is, or is the one that the environment names.
package hostbuild

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

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
