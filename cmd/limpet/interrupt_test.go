package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asLimpet makes the test binary the program itself.
const asLimpet = "LIMPET_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asLimpet) != "" {
		main()
	}
	os.Exit(m.Run())
}

// TestInterrupted: Ctrl-C ends a command that waits for a pipe which nobody
// writes to, where no context is heard.
func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// A signal that comes before the program hears any ends it as the kernel
	// does; then it is tried again with more time.
	for wait := 200 * time.Millisecond; ; wait *= 2 {
		var errs strings.Builder
		c := exec.Command(self, "import", pipe)
		c.Env, c.Stderr = append(os.Environ(), asLimpet+"=1", socketEnv+"="+filepath.Join(dir, "none")), &errs
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Minute, func() { c.Process.Kill() })
		time.AfterFunc(wait, func() { c.Process.Signal(syscall.SIGTERM) })
		err := c.Wait()
		kill.Stop()
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatalf("%v, %q; want an exit code", err, &errs)
		}
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() && s.Signal() == syscall.SIGTERM && wait < 10*time.Second {
			continue
		}
		if exit.ExitCode() != exitInterrupted || errs.String() != "limpet: interrupted\n" {
			t.Errorf("%v, %q; want code %d and a line", err, &errs, exitInterrupted)
		}
		return
	}
}
