package shim_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim"
	"github.com/limpet-cri/limpet/shim/cgroup"
	"github.com/limpet-cri/limpet/shim/logs"
	"github.com/limpet-cri/limpet/shim/spec"
	"github.com/limpet-cri/limpet/test/hostbuild"
	"github.com/limpet-cri/limpet/test/scratch"
	"github.com/limpet-cri/limpet/wasm/wasmtime"
)

// unbuild removes what built made.
var unbuild = func() error { return nil }

// built is the limpet-host under test, made once.
var built = sync.OnceValues(func() (path string, err error) {
	path, done, err := hostbuild.Build()
	if err == nil {
		unbuild = done
	}
	return path, err
})

func TestMain(m *testing.M) {
	if job := os.Getenv(helperEnv); job != "" {
		helper(job)
		return
	}
	code := m.Run()
	if err := unbuild(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// node is a machine with a Supervisor.
type node struct {
	testing.TB
	dir     string
	cfg     shim.Config
	sup     *shim.Supervisor
	parent  string // cgroup
	codes   map[string]string
	created int
}

func newNode(t testing.TB) *node {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	host, err := built()
	if err != nil {
		t.Fatal(err)
	}
	h, err := cgroup.Detect(cgroup.Root)
	if err != nil {
		t.Skip("needs cgroups: ", err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run := scratch.Dir(t) // a short path: it holds sockets
	n := &node{TB: t, dir: dir, codes: map[string]string{}, parent: "/" + filepath.Base(run)}
	if _, ok := t.(*testing.B); ok {
		// ext4 without a journal looks at every inode freed in the last minute
		// before it takes one, which is most of what would be measured. On a
		// node these folders are in memory.
		n.inMemory(dir)
		n.inMemory(run)
	}
	n.cfg = shim.Config{HostPath: host, RunDir: run, Cgroups: h}
	n.open()
	t.Cleanup(func() {
		if n.sup != nil {
			n.sup.Close()
		}
		g := h.Open(n.parent)
		if err := g.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return n
}

// inMemory mounts a file system in memory on a folder.
func (n *node) inMemory(dir string) {
	n.Helper()
	if err := unix.Mount("limpet-test", dir, "tmpfs", 0, "mode=755"); err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			n.Error(err)
		}
	})
}

// open makes a new Supervisor, as a restarted daemon does.
func (n *node) open() {
	n.Helper()
	var err error
	if n.sup, err = shim.New(n.cfg, slog.New(slog.NewTextHandler(testLog{n.TB}, nil))); err != nil {
		n.Fatal(err)
	}
}

func (n *node) close() {
	n.Helper()
	if err := n.sup.Close(); err != nil {
		n.Error(err)
	}
	n.sup = nil
}

type testLog struct{ testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// compile returns the compiled code of a guest in text form.
func (n *node) compile(wat string) string {
	n.Helper()
	if p, ok := n.codes[wat]; ok {
		return p
	}
	wasm, err := wasmtime.Wat([]byte(wat))
	if err != nil {
		n.Fatal(err)
	}
	e, err := wasmtime.NewEngine(wasmtime.Config{})
	if err != nil {
		n.Fatal(err)
	}
	defer e.Close()
	code, err := e.Compile(wasm)
	if err != nil {
		n.Fatal(err)
	}
	path := filepath.Join(n.dir, fmt.Sprintf("code-%d", len(n.codes)))
	if err := os.WriteFile(path, code, 0o444); err != nil {
		n.Fatal(err)
	}
	n.codes[wat] = path
	return path
}

// container describes one that runs a guest, with what change does to it.
func (n *node) container(wat string, change ...func(*spec.Container)) *spec.Container {
	n.Helper()
	n.created++
	id := fmt.Sprintf("c%03d", n.created)
	c := &spec.Container{
		ID: id, Dir: filepath.Join(n.dir, "containers", id), Socket: filepath.Join(n.cfg.RunDir, id+".sock"),
		OCI: &specs.Spec{
			Version: specs.Version,
			Process: &specs.Process{Args: []string{"guest.wasm"}, Cwd: "/", User: specs.User{UID: 65532, GID: 65532}},
			Root:    &specs.Root{},
			Linux:   &specs.Linux{CgroupsPath: n.parent + "/" + id},
		},
		Limpet: spec.Limpet{Code: n.compile(wat), Module: "guest.wasm", LogPath: filepath.Join(n.dir, id+".log"), MemoryLimit: 64 << 20},
	}
	for _, f := range change {
		f(c)
	}
	return c
}

// create makes a container's host; the test's end removes it.
func (n *node) create(c *spec.Container) *shim.Host {
	n.Helper()
	h, err := n.sup.Create(context.Background(), c, nil)
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() {
		if n.sup != nil {
			if err := n.sup.Remove(context.Background(), c); err != nil {
				n.Error(err)
			}
		}
	})
	return h
}

func (n *node) start(c *spec.Container) *shim.Host {
	n.Helper()
	h := n.create(c)
	if err := h.Start(context.Background()); err != nil {
		n.Fatal(err)
	}
	return h
}

// ended waits for the end and returns how.
func (n *node) ended(h *shim.Host) spec.Exit {
	n.Helper()
	select {
	case <-h.Done():
		x := h.Exit()
		// Whatever a test is about: an end that is not the guest's own has a
		// reason and a sentence, and the guest's own needs none.
		if own := x.Reason == spec.ReasonCompleted || x.Reason == spec.ReasonError; own != (x.Message == "") || x.Reason == "" {
			n.Errorf("ended with %+v", x)
		}
		return x
	case <-time.After(20 * time.Second):
		n.Fatalf("host %d does not end", h.PID())
	}
	return spec.Exit{}
}

// output returns what the guest wrote to a stream, as its log has it.
func (n *node) output(c *spec.Container, s logs.Stream) string {
	n.Helper()
	b, err := os.ReadFile(c.Limpet.LogPath)
	if err != nil {
		n.Fatal(err)
	}
	var out strings.Builder
	for len(b) > 0 {
		e, rest, err := logs.Parse(b)
		if err != nil {
			n.Fatalf("log: %v: %q", err, b)
		}
		if b = rest; e.Stream != s {
			continue
		}
		out.Write(e.Text)
		if !e.Partial {
			out.WriteByte('\n')
		}
	}
	return out.String()
}

// awaitOutput waits until the log holds text.
func (n *node) awaitOutput(c *spec.Container, text string) {
	n.Helper()
	f, err := os.Open(c.Limpet.LogPath)
	if err != nil {
		n.Fatal(err)
	}
	defer f.Close()
	var all []byte
	eventually(n, fmt.Sprintf("%q in the log", text), func() bool {
		b, err := io.ReadAll(f)
		if err != nil {
			n.Fatal(err)
		}
		all = append(all, b...)
		return strings.Contains(string(all), text)
	})
}

// eventually waits for something that nothing tells but looking.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-tick.C {
		if f() {
			return
		}
	}
	t.Fatal("never: " + what)
}
