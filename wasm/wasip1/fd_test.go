package wasip1

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFileRoundTrip(t *testing.T) {
	dir := t.TempDir()
	c := rooted(t, dir)
	fd, e := c.open(3, "a", 0, 1, allRights)
	if e != 0 {
		t.Fatal(e)
	}
	if e := c.write(fd, "hello"); e != 0 {
		t.Fatal(e)
	}
	c.ok("fd_seek", fd, 1, 0, atOut)
	if s, e := c.read(fd, 64); s != "ello" || e != 0 {
		t.Fatal(s, e)
	}
	c.ok("fd_close", fd)
	if b, err := os.ReadFile(filepath.Join(dir, "a")); string(b) != "hello" || err != nil {
		t.Fatal(string(b), err)
	}
	if e := c.call("fd_close", fd); e != errnoBadf {
		t.Fatal(e)
	}
}
