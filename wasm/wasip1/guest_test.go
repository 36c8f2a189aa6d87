package wasip1

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm"
	"github.com/limpet-cri/limpet/wasm/wasi"
)

func TestArgumentsAndEnvironment(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "app", "in"), 0o755); err != nil {
		t.Fatal(err)
	}
	lfd, _ := listen(t)
	c := newTester(t, wasi.Config{
		Args: []string{"prog", "", "zwei"}, Env: []string{"A=1"}, Stdin: -1, WorkingDir: "/app/in/", Listeners: []int{lfd},
		Preopens: []wasi.Preopen{{Name: "/", FD: folder(t, root), Root: true}},
	})
	read := func(prefix string) []string {
		c.ok(prefix+"_sizes_get", atOut, atOut+4)
		n, size := int(c.u32(atOut)), int(c.u32(atOut+4))
		c.ok(prefix+"_get", atVec, atData)
		var list []string
		for i := range n {
			p := int(c.u32(atVec + 4*i))
			s, _, _ := strings.Cut(string(c.mem[p:atData+size]), "\x00")
			list = append(list, s)
		}
		return list
	}
	if got := read("args"); !slices.Equal(got, []string{"prog", "", "zwei"}) {
		t.Errorf("%q", got)
	}
	if got := read("environ"); !slices.Equal(got, []string{"A=1", "LIMPET_LISTEN_FD=5", "PWD=/app/in/"}) {
		t.Errorf("%q", got)
	}
	for fd, want := range map[uint64]string{3: ".", 4: "/"} {
		c.ok("fd_prestat_get", fd, atOut)
		n := uint64(c.u32(atOut + 4))
		if c.ok("fd_prestat_dir_name", fd, atData, n); string(c.mem[atData:atData+n]) != want {
			t.Errorf("descriptor %d is %q", fd, c.mem[atData:atData+n])
		}
		if e := c.call("fd_prestat_dir_name", fd, atData, n-1); e != errnoNametoolong {
			t.Error(e)
		}
	}
	if e := c.call("fd_prestat_get", 5, atOut); e != errnoNotdir {
		t.Errorf("the listener's prestat: errno %d", e)
	}
	if e := c.call("fd_prestat_get", 6, atOut); e != errnoBadf {
		t.Errorf("prestat behind the last: errno %d", e)
	}
}

// TestWorkingDir: "." resolves as in a process that is there.
func TestWorkingDir(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"app/in", "data"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for f, s := range map[string]string{"app/in/here": "here", "data/there": "there", "top": "top"} {
		if err := os.WriteFile(filepath.Join(root, f), []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/data/there", filepath.Join(root, "app/in/link")); err != nil {
		t.Fatal(err)
	}
	c := newTester(t, wasi.Config{
		Stdin: -1, WorkingDir: "/app/in", Preopens: []wasi.Preopen{{Name: "/", FD: folder(t, root), Root: true}},
	})
	for path, want := range map[string]string{
		"here": "here", "./here": "here", "../../top": "top", "../../../../../top": "top", "link": "there", "../../data/there": "there",
	} {
		if got := c.contents(3, path); got != want {
			t.Errorf("%s holds %q", path, got)
		}
	}
	c.ok("fd_close", 4) // "." does not depend on it
	if got := c.contents(3, "../../top"); got != "top" {
		t.Error(got)
	}
	for _, dir := range []string{"/missing", "/top", "relative"} {
		before := openDescriptors(t)
		_, err := wasi.New(wasi.Config{Stdin: -1, WorkingDir: dir, Preopens: []wasi.Preopen{{Name: "/", FD: folder(t, root), Root: true}}})
		if err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", dir, err)
		}
		if openDescriptors(t) != before {
			t.Errorf("%s: descriptors leaked", dir)
		}
	}
	_, err := wasi.New(wasi.Config{Stdin: -1, Args: []string{"a\x00b"}})
	if !errors.Is(err, wasi.ErrConfig) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
func (f failing) Flush() error              { return f.err }

func TestStdio(t *testing.T) {
	out := newOutput()
	c := newTester(t, wasi.Config{Stdin: -1, Stdout: out, Stderr: failing{errors.New("disk full")}})
	if s, e := c.read(0, 10); s != "" || e != 0 {
		t.Error("stdin is not at its end:", s, e)
	}
	if e := c.write(1, "hello"); e != 0 || string(out.text) != "hello" || c.u32(atOut) != 5 {
		t.Error(e, string(out.text))
	}
	if e := c.write(2, "lost"); e != errnoIo {
		t.Error(e)
	}
	if e := c.write(0, "x"); e != errnoBadf {
		t.Error(e)
	}
	if _, e := c.read(1, 1); e != errnoBadf {
		t.Error(e)
	}
	for name, args := range map[string][]uint64{"fd_seek": {1, 0, 1, atOut}, "fd_tell": {0, atOut}, "fd_pread": {0, atVec, 1, 0, atOut}} {
		if e := c.call(name, args...); e != errnoSpipe {
			t.Errorf("%s: errno %d", name, e)
		}
	}
	c.ok("fd_fdstat_get", 1, atOut)
	if c.mem[atOut] == byte(wasi.TypeCharacterDevice) {
		t.Error("stdout looks like a terminal")
	}
	c.ok("fd_filestat_get", 1, atOut)
	c.ok("fd_sync", 1)
	<-out.flushed
	c.ok("fd_close", 1)
	if e := c.write(1, "x"); e != errnoBadf {
		t.Error(e)
	}
	// Nobody listens: what is written is dropped.
	quiet := newTester(t, wasi.Config{Stdin: -1})
	if e := quiet.write(2, "dropped"); e != 0 || quiet.u32(atOut) != 7 {
		t.Error(e)
	}
}

// TestUnstable checks where wasi_unstable differs.
func TestUnstable(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("0123456789"), 0o644); err != nil {
		t.Fatal(err)
	}
	now := rooted(t, dir)
	old := testerOf(t, now.sys, ModuleUnstable)
	if len(now.funcs) != 46 || len(old.funcs) != 45 {
		t.Fatalf("%d and %d functions", len(now.funcs), len(old.funcs))
	}
	fd, e := old.open(3, "f", 1, 0, allRights)
	if e != 0 {
		t.Fatal(e)
	}
	for whence, want := range map[uint64]uint64{2: 3, 0: 6, 1: 13} { // set, cur, end
		now.ok("fd_seek", fd, 3, 0, atOut)
		old.ok("fd_seek", fd, 3, whence, atOut)
		if got := old.u64(atOut); got != want {
			t.Errorf("whence %d: at %d, want %d", whence, got, want)
		}
	}
	now.ok("fd_filestat_get", fd, atOut)
	for i := range 72 {
		old.mem[atOut+i] = 0xee
	}
	old.ok("fd_filestat_get", fd, atOut)
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "f"), &st); err != nil {
		t.Fatal(err)
	}
	if now.u64(atOut+24) != 1 || now.u64(atOut+32) != 10 || now.u64(atOut+48) != uint64(st.Mtim.Nano()) || now.u64(atOut+56) != uint64(st.Ctim.Nano()) {
		t.Errorf("%x", now.mem[atOut:atOut+64])
	}
	if old.u32(atOut+20) != 1 || old.u64(atOut+24) != 10 || old.u64(atOut+40) != uint64(st.Mtim.Nano()) || old.u64(atOut+48) != uint64(st.Ctim.Nano()) || old.mem[atOut+56] != 0xee {
		t.Errorf("%x", old.mem[atOut:atOut+64])
	}
	p := old.mem[atData:][:56]
	le.PutUint64(p, 42)
	le.PutUint64(p[16:], 0xdead) // the identifier
	le.PutUint32(p[24:], 1)
	le.PutUint64(p[32:], 1)
	if e := old.poll(1); e != 0 || old.events()[0] != (event{userdata: 42}) {
		t.Error(e, old.events())
	}
}

func TestReaddir(t *testing.T) {
	dir := t.TempDir()
	want := map[string]bool{".": true, "..": true}
	for i := range 200 {
		name := strings.Repeat("n", i%40+1) + "-" + strings.Repeat("x", i/40+1)
		want[name] = true
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := rooted(t, dir)
	for _, size := range []uint64{25, 64, 100, 4096, 1 << 16} {
		got, cookie := map[string]bool{}, uint64(0)
		for {
			c.ok("fd_readdir", 3, atData, size, cookie, atOut)
			used := uint64(c.u32(atOut))
			whole := 0
			for p := c.mem[atData : atData+used]; len(p) >= 24; whole++ {
				n := le.Uint32(p[16:])
				if uint64(len(p)) < 24+uint64(n) {
					break
				}
				cookie = le.Uint64(p)
				if got[string(p[24:24+n])] {
					t.Fatalf("twice: %s", p[24:24+n])
				}
				got[string(p[24:24+n])] = true
				p = p[24+n:]
			}
			if used < size {
				break
			}
			if whole == 0 {
				size *= 2 // as a guest does
			}
		}
		if len(got) != len(want) {
			t.Errorf("size %d: %d entries, want %d", size, len(got), len(want))
		}
	}
}

// TestNoAllocation holds the calls that guests make most to none.
func TestNoAllocation(t *testing.T) {
	out := &discard{}
	dir := t.TempDir()
	c := newTester(t, wasi.Config{Stdin: -1, Stdout: out, Preopens: []wasi.Preopen{{Name: "/", FD: folder(t, dir), Root: true}}})
	fd, _ := c.open(3, "f", 1, 1, allRights)
	v, n := c.vec("0123456789")
	p, m := c.put(atPath, "f")
	c.subscribe(0x100, 1, 0, 1, 0)
	for name, args := range map[string][]uint64{
		"fd_write": {1, v, n, atOut}, "fd_pwrite": {fd, v, n, 0, atOut}, "fd_pread": {fd, v, n, 0, atOut}, "fd_seek": {fd, 0, 0, atOut},
		"clock_time_get": {1, 0, atOut}, "random_get": {atData, 16}, "path_filestat_get": {3, 1, p, m, atOut}, "fd_filestat_get": {fd, atOut},
		"poll_oneoff": {atData + 48*0x100, atEvents, 1, atOut},
	} {
		f, raw := c.funcs[name].Func, make([]wasm.Raw, len(args))
		allocs := testing.AllocsPerRun(100, func() {
			for i, a := range args {
				raw[i][0] = a
			}
			if err := f(c.mem, raw); err != nil || raw[0].I32() != 0 {
				t.Fatal(name, err, raw[0].I32())
			}
		})
		if allocs > 0 {
			t.Errorf("%s allocates %v times", name, allocs)
		}
	}
}

type discard struct{}

func (*discard) Write(p []byte) (int, error) { return len(p), nil }
func (*discard) Flush() error                { return nil }
