package wasip1

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm/wasi"
)

const end = memSize // one behind the last byte of guest memory

// TestPointers hands every call pointers that end behind guest memory, and
// ones whose sum with a length overflows 32 bits.
func TestPointers(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f", filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	c := rooted(t, dir)
	fd, _ := c.open(3, "f", 1, 0, allRights)
	p, n := c.put(atPath, "f")
	l, m := c.put(atPath2, "l")
	v, k := c.vec("data")
	const wrap = 0xffffffff
	for _, bad := range [][]any{
		{"args_get", end - 3, atOut}, {"args_get", atOut, end + 1}, {"args_sizes_get", end - 3, atOut}, {"args_sizes_get", atOut, end - 3},
		{"environ_get", end + 1, atOut}, {"environ_get", atOut, wrap}, {"environ_sizes_get", wrap, atOut}, {"environ_sizes_get", atOut, wrap},
		{"clock_res_get", 0, end - 7}, {"clock_time_get", 0, 0, end - 7}, {"random_get", end - 3, 4}, {"random_get", 16, wrap}, {"random_get", wrap, wrap},
		{"fd_fdstat_get", fd, end - 23}, {"fd_filestat_get", fd, end - 63},
		{"fd_prestat_get", 3, end - 7}, {"fd_prestat_dir_name", 3, end, 1}, {"fd_prestat_dir_name", 3, wrap, 2},
		{"fd_read", fd, end - 7, 1, atOut}, {"fd_read", fd, wrap, 1, atOut}, {"fd_read", fd, v, k, end - 3},
		{"fd_write", fd, end - 7, 1, atOut}, {"fd_write", fd, 8, 1024, end}, {"fd_write", 1, v, k, wrap},
		{"fd_pread", fd, end, 1, 0, atOut}, {"fd_pread", fd, v, k, 0, end}, {"fd_pwrite", fd, end, 1, 0, atOut}, {"fd_pwrite", fd, v, k, 0, end},
		{"fd_readdir", 3, end - 10, 11, 0, atOut}, {"fd_readdir", 3, 16, wrap, 0, atOut}, {"fd_readdir", 3, 16, 16, 0, end - 3},
		{"fd_seek", fd, 0, 0, end - 7}, {"fd_tell", fd, end - 7},
		{"path_create_directory", 3, end, 1}, {"path_remove_directory", 3, wrap, 2}, {"path_unlink_file", 3, end - 1, 2},
		{"path_filestat_get", 3, 0, end, 1, atOut}, {"path_filestat_get", 3, 0, p, n, end - 63},
		{"path_filestat_set_times", 3, 0, end, 1, 0, 0, 0},
		{"path_link", 3, 0, end, 1, 3, p, n}, {"path_link", 3, 0, p, n, 3, end, 1},
		{"path_open", 3, 0, end, 1, 0, 0, 0, 0, atOut}, {"path_open", 3, 0, p, n, 0, 0, 0, 0, end - 3},
		{"path_readlink", 3, end, 1, atData, 10, atOut}, {"path_readlink", 3, l, m, end - 9, 10, atOut}, {"path_readlink", 3, l, m, atData, 10, end - 3},
		{"path_rename", 3, end, 1, 3, p, n}, {"path_rename", 3, p, n, 3, end, 1},
		{"path_symlink", end, 1, 3, p, n}, {"path_symlink", p, n, 3, end, 1},
		{"poll_oneoff", end - 47, atEvents, 1, atOut}, {"poll_oneoff", atData, end - 31, 1, atOut}, {"poll_oneoff", atData, atEvents, 1, end - 3},
		{"sock_accept", 3, 0, end - 3}, {"sock_recv", 3, end, 1, 0, atOut, atOut}, {"sock_recv", 3, v, k, 0, end, atOut},
		{"sock_recv", 3, v, k, 0, atOut, end - 1}, {"sock_send", 3, end, 1, 0, atOut}, {"sock_send", 3, v, k, 0, end},
	} {
		var args []uint64
		for _, a := range bad[1:] {
			switch a := a.(type) {
			case int:
				args = append(args, uint64(a))
			case uint64:
				args = append(args, a)
			}
		}
		if bad[0] == "args_get" && args[0] != end+1 && args[1] != end+1 {
			continue // no arguments: nothing is written there
		}
		if e := c.call(bad[0].(string), args...); e != errnoFault {
			t.Errorf("%s%v: errno %d, want fault", bad[0], args, e)
		}
	}
	// An iovec that leads out, alone and behind a good one.
	le.PutUint32(c.mem[atVec+8:], end-1)
	le.PutUint32(c.mem[atVec+12:], 2)
	for _, n := range []uint64{1, 2} {
		if e := c.call("fd_read", fd, atVec+8*(2-n), n, atOut); e != errnoFault {
			t.Errorf("%d iovecs: errno %d", n, e)
		}
	}
	// A call whose result could not be told must not have happened.
	before := openDescriptors(t)
	c.call("path_open", 3, 0, p, n, 0, 0, 0, 0, end)
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors open, before %d", after, before)
	}
	// A guest without memory can still call.
	c.mem = nil
	if e := c.call("fd_fdstat_get", 0, 0); e != errnoFault {
		t.Error(e)
	}
	c.ok("sched_yield")
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc")
	}
	return len(list)
}

func TestLimits(t *testing.T) {
	c := rooted(t, t.TempDir())
	long := strings.Repeat("a", 256)
	tooLong := strings.Repeat("a/", wasi.MaxPath/2+1)
	for path, want := range map[string]Errno{
		"": errnoNoent, "a\x00b": errnoInval, "/": errnoNotcapable, long: errnoNametoolong, tooLong: errnoNametoolong,
		".": errnoExist, "..": errnoExist, "./": errnoExist,
	} {
		p, n := c.put(atPath, path)
		if e := c.call("path_create_directory", 3, p, n); e != want {
			t.Errorf("path_create_directory(%.20q): errno %d, want %d", path, e, want)
		}
	}
	if e := c.call("fd_write", 1, atVec, wasi.MaxVectors+1, atOut); e != errnoInval {
		t.Errorf("too many iovecs: errno %d", e)
	}
	for _, n := range []uint64{0, wasi.MaxSubscriptions + 1} {
		if e := c.poll(n); e != errnoInval {
			t.Errorf("%d subscriptions: errno %d", n, e)
		}
	}
	for name, args := range map[string][]uint64{
		"fd_seek": {1, 0, 3, atOut}, "fd_advise": {1, 0, 0, 6}, "path_filestat_get": {3, 2, atPath, 1, atOut},
		"fd_fdstat_set_flags": {1, 1 << 16}, "sock_shutdown": {1, 4}, "clock_time_get": {4, 0, atOut},
	} {
		if e := c.call(name, args...); e != errnoInval {
			t.Errorf("%s%v: errno %d", name, args, e)
		}
	}
}

func TestDescriptorLimit(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < wasi.MaxDescriptors+100 {
		t.Skip("needs a limit of open files above wasi.MaxDescriptors")
	}
	c := rooted(t, t.TempDir())
	for i := 4; i < wasi.MaxDescriptors; i++ {
		if fd, e := c.open(3, ".", 0, 0, 0); e != 0 || fd != uint64(i) {
			t.Fatalf("descriptor %d: got %d, errno %d", i, fd, e)
		}
	}
	before := openDescriptors(t)
	if _, e := c.open(3, "new", 0, 1, allRights); e != errnoMfile {
		t.Fatalf("one too many: errno %d", e)
	}
	if openDescriptors(t) != before {
		t.Fatal("the refused one is open")
	}
	p, n := c.put(atPath, "new")
	if e := c.call("path_filestat_get", 3, 0, p, n, atOut); e != errnoNoent {
		t.Fatalf("the refused file exists: errno %d", e)
	}
	c.ok("fd_close", 100)
	if fd, e := c.open(3, ".", 0, 0, 0); fd != 100 || e != 0 {
		t.Fatalf("the lowest free number is 100, got %d, errno %d", fd, e)
	}
	if e := c.call("fd_renumber", 4, 1<<31); e != errnoBadf {
		t.Fatalf("renumber beyond the table: errno %d", e)
	}
}
