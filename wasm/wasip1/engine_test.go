package wasip1_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm"
	"github.com/limpet-cri/limpet/wasm/wasi"
	"github.com/limpet-cri/limpet/wasm/wasip1"
	"github.com/limpet-cri/limpet/wasm/wasmtime"
)

func newEngine(t testing.TB) *wasmtime.Engine {
	t.Helper()
	engine, err := wasmtime.NewEngine(wasmtime.Config{Parallel: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(engine.Close)
	return engine
}

func assemble(t testing.TB, engine *wasmtime.Engine, text string) *wasmtime.Module {
	t.Helper()
	binary, err := wasmtime.Wat([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return load(t, engine, binary)
}

// signatures are those of the specification (witx of snapshot 1, lowered).
const signatures = `
args_get (param i32 i32) (result i32)
args_sizes_get (param i32 i32) (result i32)
environ_get (param i32 i32) (result i32)
environ_sizes_get (param i32 i32) (result i32)
clock_res_get (param i32 i32) (result i32)
clock_time_get (param i32 i64 i32) (result i32)
fd_advise (param i32 i64 i64 i32) (result i32)
fd_allocate (param i32 i64 i64) (result i32)
fd_close (param i32) (result i32)
fd_datasync (param i32) (result i32)
fd_fdstat_get (param i32 i32) (result i32)
fd_fdstat_set_flags (param i32 i32) (result i32)
fd_fdstat_set_rights (param i32 i64 i64) (result i32)
fd_filestat_get (param i32 i32) (result i32)
fd_filestat_set_size (param i32 i64) (result i32)
fd_filestat_set_times (param i32 i64 i64 i32) (result i32)
fd_pread (param i32 i32 i32 i64 i32) (result i32)
fd_prestat_get (param i32 i32) (result i32)
fd_prestat_dir_name (param i32 i32 i32) (result i32)
fd_pwrite (param i32 i32 i32 i64 i32) (result i32)
fd_read (param i32 i32 i32 i32) (result i32)
fd_readdir (param i32 i32 i32 i64 i32) (result i32)
fd_renumber (param i32 i32) (result i32)
fd_seek (param i32 i64 i32 i32) (result i32)
fd_sync (param i32) (result i32)
fd_tell (param i32 i32) (result i32)
fd_write (param i32 i32 i32 i32) (result i32)
path_create_directory (param i32 i32 i32) (result i32)
path_filestat_get (param i32 i32 i32 i32 i32) (result i32)
path_filestat_set_times (param i32 i32 i32 i32 i64 i64 i32) (result i32)
path_link (param i32 i32 i32 i32 i32 i32 i32) (result i32)
path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)
path_readlink (param i32 i32 i32 i32 i32 i32) (result i32)
path_remove_directory (param i32 i32 i32) (result i32)
path_rename (param i32 i32 i32 i32 i32 i32) (result i32)
path_symlink (param i32 i32 i32 i32 i32) (result i32)
path_unlink_file (param i32 i32 i32) (result i32)
poll_oneoff (param i32 i32 i32 i32) (result i32)
proc_exit (param i32)
proc_raise (param i32) (result i32)
sched_yield (result i32)
random_get (param i32 i32) (result i32)
sock_accept (param i32 i32 i32) (result i32)
sock_recv (param i32 i32 i32 i32 i32 i32) (result i32)
sock_send (param i32 i32 i32 i32 i32) (result i32)
sock_shutdown (param i32 i32) (result i32)`

// TestSignatures links a module that imports every function of both modules
// with the types of the specification: another type would not link.
func TestSignatures(t *testing.T) {
	var text strings.Builder
	text.WriteString("(module\n")
	lines := strings.Split(strings.TrimSpace(signatures), "\n")
	if len(lines) != 46 {
		t.Fatalf("%d signatures", len(lines))
	}
	for _, module := range []string{wasip1.Module, wasip1.ModuleUnstable} {
		for _, l := range lines {
			name, typ, _ := strings.Cut(l, " ")
			if module == wasip1.Module || name != "sock_accept" {
				text.WriteString(`(import "` + module + `" "` + name + `" (func ` + typ + "))\n")
			}
		}
	}
	text.WriteString(`(memory (export "memory") 1) (func (export "_start")))`)
	engine := newEngine(t)
	sys, err := wasi.New(wasi.Config{Stdin: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	if err := start(t, engine, assemble(t, engine, text.String()), sys).Call("_start"); err != nil {
		t.Fatal(err)
	}
}

// traced records the calls a guest makes, with arguments and errno.
func traced(imports []wasm.Import, trace *strings.Builder) []wasm.Import {
	for i := range imports {
		imp := imports[i]
		imports[i].Fast = wasm.FastNone
		imports[i].Func = func(mem []byte, stack []wasm.Raw) error {
			trace.WriteString(imp.Name + "(")
			for i, p := range imp.Type.Params {
				v := stack[i].I64()
				if p == wasm.I32 {
					v = uint64(stack[i].I32())
				}
				if i > 0 {
					trace.WriteString(",")
				}
				trace.WriteString(strconv.FormatUint(v, 10))
			}
			err := imp.Func(mem, stack)
			trace.WriteString(")=")
			if err != nil {
				trace.WriteString(err.Error() + "\n")
				return err
			}
			trace.WriteString(strconv.Itoa(int(stack[0].I32())) + "\n")
			return nil
		}
	}
	return imports
}

// TestTrace runs a guest that copies one file to another and exits with its
// size, and compares all that it called.
func TestTrace(t *testing.T) {
	const text = `(module
		(import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
		(import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
		(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
		(import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
		(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
		(memory (export "memory") 1)
		(data (i32.const 100) "from") (data (i32.const 200) "../to")
		(data (i32.const 300) "\00\04\00\00\00\01\00\00")
		(func (export "_start")
			(drop (call $open (i32.const 3) (i32.const 1) (i32.const 100) (i32.const 4) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 0)))
			(drop (call $open (i32.const 3) (i32.const 1) (i32.const 200) (i32.const 5) (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 4)))
			(drop (call $open (i32.const 3) (i32.const 1) (i32.const 203) (i32.const 2) (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 4)))
			(drop (call $read (i32.load (i32.const 0)) (i32.const 300) (i32.const 1) (i32.const 304)))
			(drop (call $write (i32.load (i32.const 4)) (i32.const 300) (i32.const 1) (i32.const 8)))
			(drop (call $close (i32.load (i32.const 4))))
			(drop (call $close (i32.load (i32.const 4))))
			(call $exit (i32.load (i32.const 8)))))`
	const want = `path_open(3,1,100,4,0,2,0,0,0)=0
path_open(3,1,200,5,1,64,0,0,4)=76
path_open(3,1,203,2,1,64,0,0,4)=0
fd_read(4,300,1,304)=0
fd_write(5,300,1,8)=0
fd_close(5)=0
fd_close(5)=8
proc_exit(12)=guest exited with code 12
`
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "from"), []byte("twelve bytes"), 0o644); err != nil {
		t.Fatal(err)
	}
	engine := newEngine(t)
	sys, err := wasi.New(wasi.Config{Stdin: -1, Preopens: []wasi.Preopen{{Name: "/", FD: openFolder(t, dir)}}})
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	var trace strings.Builder
	linked, err := engine.Link(assemble(t, engine, text), traced(wasip1.Imports(sys), &trace))
	if err != nil {
		t.Fatal(err)
	}
	defer linked.Close()
	instance, err := linked.Instantiate(wasm.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer instance.Close()
	var exit *wasm.Exit
	if err := instance.Call("_start"); !errors.As(err, &exit) || exit.Code != 12 {
		t.Error(err)
	}
	if trace.String() != want {
		t.Errorf("got\n%swant\n%s", trace.String(), want)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "to")); string(b) != "twelve bytes" {
		t.Error(string(b), err)
	}
}

// lines passes on what a guest writes.
type lines struct{ c chan string }

func (l lines) Write(p []byte) (int, error) {
	l.c <- string(p)
	return len(p), nil
}
func (lines) Flush() error { return nil }

// TestServe runs the HTTP guest, which is Go's net/http over the socket that
// it finds, and interrupts it while it waits.
func TestServe(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs the go command")
	}
	program := filepath.Join(t.TempDir(), "http.wasm")
	build := exec.Command("go", "build", "-o", program, "../../guests/http")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	listener, address := inherited(t)
	out := lines{make(chan string, 100)}
	sys, err := wasi.New(wasi.Config{Args: []string{"http"}, Stdin: -1, Stdout: out, Stderr: out, Listeners: []int{listener}})
	if err != nil {
		t.Fatal(err)
	}
	engine := newEngine(t)
	instance := start(t, engine, load(t, engine, binary), sys)
	ended := make(chan error, 1)
	go func() { ended <- instance.Call("_start") }()
	select {
	case s := <-out.c:
		if s != "serving\n" {
			t.Fatal(s)
		}
	case err := <-ended:
		t.Fatal(err)
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{}}
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() { get(t, client, "http://"+address+"/"+strconv.Itoa(i)) })
	}
	all.Wait()
	client.CloseIdleConnections()
	sys.Interrupt(errors.New("enough"))
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "enough") {
		t.Fatal(err)
	}
	if err := sys.Close(); err != nil {
		t.Fatal(err)
	}
}

func inherited(t *testing.T) (fd int, address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3); err != nil {
		t.Fatal(err)
	}
	return fd, l.Addr().String()
}

func get(t *testing.T, client *http.Client, url string) {
	response, err := client.Get(url)
	if err != nil {
		t.Error(err)
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || !bytes.HasPrefix(body, []byte("hello /")) {
		t.Errorf("%q, %v", body, err)
	}
}
