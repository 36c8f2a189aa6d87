package thread

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// What f does to its thread stays there: with a folder of its own, which needs
// no privilege.
func TestOwn(t *testing.T) {
	before, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	failure := errors.New("as f says")
	for range 64 { // more than there are idle threads to be reused
		tid := 0
		err := Own(func() error {
			tid = unix.Gettid()
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return err
			}
			if err := unix.Chdir("/proc"); err != nil {
				return err
			}
			return failure
		})
		if !errors.Is(err, failure) {
			t.Fatal(err)
		}
		if tid == unix.Getpid() {
			t.Fatal("f ran on the first thread")
		}
		var dir [unix.PathMax]byte
		n, err := unix.Getcwd(dir[:])
		if err != nil || string(dir[:n-1]) != before {
			t.Fatalf("a thread of others is in %s, %v", dir[:n], err)
		}
	}
}
