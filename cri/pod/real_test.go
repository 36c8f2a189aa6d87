package pod_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/cri/network"
	"github.com/limpet-cri/limpet/cri/pod"
	"github.com/limpet-cri/limpet/image"
	"github.com/limpet-cri/limpet/shim"
	"github.com/limpet-cri/limpet/shim/cgroup"
	"github.com/limpet-cri/limpet/wasm/wasmtime"
)

// The tests in this package run the manager over the real parts: a registry on
// loopback, the image service, the supervisor with a limpet-host built here,
// namespaces and cgroups.

// linkFlags are those of the release.
const linkFlags = "-s -w -linkmode=external -extldflags '-static -Wl,--gc-sections'"

// hostEnv names a limpet-host to test instead of one that is built here.
const hostEnv = "LIMPET_TEST_HOST"

// builtDir is where built has put it, if anybody asked.
var builtDir string

var built = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(hostEnv); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "limpet-host-")
	if err != nil {
		return "", err
	}
	builtDir = dir
	path := filepath.Join(dir, "limpet-host")
	out, err := exec.Command("go", "build", "-trimpath", "-ldflags", linkFlags, "-o", path, "github.com/limpet-cri/limpet/cmd/limpet-host").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, os.Chmod(dir, 0o755) // others than root run it
})

func TestMain(m *testing.M) {
	if config := os.Getenv(daemonEnv); config != "" {
		os.Exit(daemon(config))
	}
	code := m.Run()
	if builtDir != "" {
		os.RemoveAll(builtDir)
	}
	os.Exit(code)
}

// guest wraps the body of _start in a module that can print, sleep and exit.
func guest(body string, more ...string) string {
	return `(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 4096) "0000000\n")
  (func $print (param $at i32) (param $len i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $len))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func $sleep (param $ns i64)
    (i32.store8 (i32.const 1032) (i32.const 0))
    (i32.store (i32.const 1040) (i32.const 1))
    (i64.store (i32.const 1048) (local.get $ns))
    (drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1) (i32.const 8))))
  (func $increment (local $p i32)
    (local.set $p (i32.const 4102))
    (loop $carry
      (i32.store8 (local.get $p) (i32.add (i32.load8_u (local.get $p)) (i32.const 1)))
      (if (i32.gt_u (i32.load8_u (local.get $p)) (i32.const 57)) (then
        (i32.store8 (local.get $p) (i32.const 48))
        (local.set $p (i32.sub (local.get $p) (i32.const 1)))
        (br $carry)))))
` + strings.Join(more, "\n") + `
  (func (export "_start") ` + body + `))`
}

// The guests, by the name of their image.
var guests = map[string]string{
	// count prints 0000000, 0000001, ... about one every two milliseconds.
	"count": guest(`(loop (call $print (i32.const 4096) (i32.const 8)) (call $increment) (call $sleep (i64.const 2000000)) (br 0))`),
	// idle waits for ever.
	"idle":  guest(`(call $print (i32.const 4096) (i32.const 8)) (loop (call $sleep (i64.const 3600000000000)) (br 0))`),
	"spin":  guest(`(call $print (i32.const 4096) (i32.const 8)) (loop (br 0))`),
	"exit7": guest(`(call $print (i32.const 4096) (i32.const 8)) (call $proc_exit (i32.const 7))`),
	"hello": guest(`(call $print (i32.const 4096) (i32.const 8))`),
	// late ends with 7 after half a second.
	"late": guest(`(call $print (i32.const 4096) (i32.const 8)) (call $sleep (i64.const 500000000)) (call $proc_exit (i32.const 7))`),
	"trap": guest(`(call $deep)`, `(func $deep unreachable)`),
	// fill takes and touches all the memory it can get, then exits with 3.
	"fill": guest(`(local $at i32)
	  (local.set $at (i32.const 65536))
	  (loop $more
	    (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then (call $proc_exit (i32.const 3))))
	    (loop $page
	      (i32.store (local.get $at) (i32.const 1))
	      (local.set $at (i32.add (local.get $at) (i32.const 4096)))
	      (br_if $page (i32.and (local.get $at) (i32.const 65535))))
	    (br $more))`),
	// stretch takes a MiB after the other, does not touch it, tries again each
	// millisecond, and prints how many it has whenever it got more.
	"stretch": guest(`(local $new i32)
	  (loop $try
	    (local.set $new (i32.const 0))
	    (loop $more (if (i32.ne (memory.grow (i32.const 16)) (i32.const -1)) (then
	      (call $increment) (local.set $new (i32.const 1)) (br $more))))
	    (if (local.get $new) (then (call $print (i32.const 4096) (i32.const 8))))
	    (call $sleep (i64.const 1000000))
	    (br $try))`),
	// hold takes and touches 40 MiB, says so, and waits.
	"hold": guest(`(local $at i32)
	  (drop (memory.grow (i32.const 640)))
	  (local.set $at (i32.const 65536))
	  (loop $page
	    (i32.store (local.get $at) (i32.const 1))
	    (local.set $at (i32.add (local.get $at) (i32.const 4096)))
	    (br_if $page (i32.lt_u (local.get $at) (i32.const 41943040))))
	  (call $print (i32.const 4096) (i32.const 8))
	  (loop (call $sleep (i64.const 3600000000000)) (br 0))`),
	// grow exits with 3 when memory cannot grow to 512 MiB.
	"grow": guest(`(if (i32.eq (memory.grow (i32.const 8192)) (i32.const -1)) (then (call $proc_exit (i32.const 3))))`),
}

// hub is a registry on loopback with an image of every guest.
type hub struct{ host string }

func newHub(t testing.TB) hub {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo))))
	t.Cleanup(s.Close)
	h := hub{strings.TrimPrefix(s.URL, "http://")}
	for n, wat := range guests {
		module, err := wasmtime.Wat([]byte(wat))
		if err != nil {
			t.Fatalf("%s: %v", n, err)
		}
		h.push(t, n, module)
	}
	return h
}

func (h hub) ref(guest string) string { return h.host + "/guests/" + guest + ":1" }

// push pushes an artifact as the CNCF's TAG Runtime describes it.
func (h hub) push(t testing.TB, guest string, module []byte) {
	t.Helper()
	layer := h.blob(t, guest, module)
	config := h.blob(t, guest, fmt.Appendf(nil, `{"created":"2026-01-01T00:00:00Z","architecture":"wasm","os":"wasip1","layerDigests":[%q]}`, digestOf(module)))
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.wasm.config.v0+json",%s},"layers":[{"mediaType":"application/wasm",%s}]}`,
		manifestType, config, layer)
	h.send(t, http.MethodPut, "/v2/guests/"+guest+"/manifests/1", manifestType, []byte(manifest))
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// blob uploads bytes and returns the part of a descriptor that they decide.
func (h hub) blob(t testing.TB, guest string, b []byte) string {
	t.Helper()
	h.send(t, http.MethodPost, "/v2/guests/"+guest+"/blobs/uploads/?digest="+digestOf(b), "application/octet-stream", b)
	return fmt.Sprintf(`"digest":%q,"size":%d`, digestOf(b), len(b))
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (h hub) send(t testing.TB, method, path, contentType string, b []byte) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, "http://"+h.host+path, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Content-Type", contentType)
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode > 299 {
		t.Fatalf("%s %s: %s", method, path, r.Status)
	}
}

// place is where a node keeps everything.
type place struct {
	Dir, Run, Host, Cgroup string
}

func newPlace(t testing.TB) place {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := cgroup.Detect(cgroup.Root); err != nil {
		t.Skip("needs cgroups: ", err)
	}
	host, err := built()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "limpet-pod-")
	if err != nil {
		t.Fatal(err)
	}
	run, err := os.MkdirTemp("", "limpet-r-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := place{Dir: dir, Run: run, Host: host, Cgroup: "/" + filepath.Base(dir)}
	t.Cleanup(func() {
		h, err := cgroup.Detect(cgroup.Root)
		if err == nil {
			err = h.Open(p.Cgroup).Remove(context.Background())
		}
		if err = errors.Join(err, os.RemoveAll(dir), os.RemoveAll(run)); err != nil {
			t.Error(err)
		}
	})
	return p
}

// stack is all that a daemon holds.
type stack struct {
	images *image.Service
	sup    *shim.Supervisor
	nets   *network.Namespaces
	*pod.Manager
}

// open starts a daemon's parts, which recover what is there.
func (p place) open(ctx context.Context, checkpoint func(string), out io.Writer) (*stack, error) {
	log := slog.New(slog.NewTextHandler(out, nil))
	h, err := cgroup.Detect(cgroup.Root)
	if err != nil {
		return nil, err
	}
	s := &stack{nets: network.New(filepath.Join(p.Run, "netns"))}
	if s.sup, err = shim.New(shim.Config{HostPath: p.Host, RunDir: filepath.Join(p.Run, "c"), Cgroups: h, CompileCgroup: p.Cgroup + "/compile"}, log); err != nil {
		return nil, err
	}
	if s.images, err = image.New(ctx, image.Config{Root: filepath.Join(p.Dir, "images")}, s.sup, log); err != nil {
		return nil, err
	}
	c := pod.DefaultConfig()
	c.Root, c.Run, c.Checkpoint = p.Dir, p.Run, checkpoint
	if s.Manager, err = pod.New(c, s.images, pod.Supervised(s.sup), s.nets, log); err != nil {
		return nil, err
	}
	return s, s.Recover(ctx)
}

func (s *stack) close() error {
	return errors.Join(s.Manager.Close(), s.images.Close(), s.sup.Close())
}

func (p place) sandbox(name string) *runtime.PodSandboxConfig {
	return &runtime.PodSandboxConfig{
		Metadata: &runtime.PodSandboxMetadata{Name: name, Namespace: "test", Uid: "uid-" + name}, Hostname: name,
		LogDirectory: filepath.Join(p.Dir, "logs", name), Linux: &runtime.LinuxPodSandboxConfig{CgroupParent: p.Cgroup},
	}
}

func (h hub) container(guest string) *runtime.ContainerConfig {
	return &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: guest}, Image: &runtime.ImageSpec{Image: h.ref(guest)}, LogPath: guest + "/0.log",
		Linux: &runtime.LinuxContainerConfig{Resources: &runtime.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, OomScoreAdj: 1000}},
	}
}

// inventory is everything on the node that a pod could leave behind, as sorted
// lines. Descriptors and leases are a daemon's to tell.
func (p place) inventory(t testing.TB) []string {
	t.Helper()
	var l []string
	add := func(what, dir string) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !strings.HasPrefix(dir, "/sys/") || e.IsDir() && e.Name() != "compile" {
				l = append(l, what+" "+e.Name())
			}
		}
	}
	add("sandbox", filepath.Join(p.Run, "sandboxes"))
	add("container", filepath.Join(p.Run, "containers"))
	add("layer", filepath.Join(p.Dir, "layers"))
	add("socket", filepath.Join(p.Run, "c"))
	add("netns", filepath.Join(p.Run, "netns"))
	for _, controller := range []string{"memory", "cpu", "cpuacct", "pids", ""} {
		add("cgroup "+controller, filepath.Join(cgroup.Root, controller, p.Cgroup))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, p.Dir) || strings.Contains(line, p.Run) {
			l = append(l, "mount "+strings.Fields(line)[4])
		}
	}
	for _, pid := range p.hosts() {
		l = append(l, "process "+pid)
	}
	slices.Sort(l)
	return l
}

// hosts returns the processes that run our limpet-host.
func (p place) hosts() []string {
	var l []string
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if exe, err := os.Readlink("/proc/" + e.Name() + "/exe"); err == nil && exe == p.Host {
			l = append(l, e.Name())
		}
	}
	return l
}

// lines returns what a container wrote, without the log's framing.
func (p place) lines(t testing.TB, pod, guest string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.Dir, "logs", pod, guest, "0.log"))
	if err != nil {
		t.Fatal(err)
	}
	var l []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 4 || f[2] != "F" {
			t.Fatalf("log line %q", line)
		}
		l = append(l, f[3])
	}
	return l
}

// unbroken fails when numbers are missing from a counting guest's log.
func unbroken(t testing.TB, lines []string) {
	t.Helper()
	for i, line := range lines {
		if want := fmt.Sprintf("%07d", i); line != want {
			t.Fatalf("line %d of the log is %s, want %s: a gap", i, line, want)
		}
	}
}

// eventually waits for something that no event tells.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("never " + what)
		}
	}
}
