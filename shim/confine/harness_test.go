package confine_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/confine"
	"github.com/limpet-cri/limpet/shim/confine/filter"
	"github.com/limpet-cri/limpet/shim/spec"
	"github.com/limpet-cri/limpet/shim/thread"
	"github.com/limpet-cri/limpet/test/scratch"
)

// needRoot skips where namespaces and mounts cannot be made.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

var probe struct {
	once  sync.Once
	path  string
	err   error
	clean func() error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if probe.clean != nil {
		if err := probe.clean(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// probeEnv names a probe that was built before, for machines without Go.
const probeEnv = "LIMPET_TEST_CONFINE_PROBE"

// buildProbe builds the probe once, with the code that leaves out a step.
func buildProbe(t testing.TB) string {
	t.Helper()
	if path := os.Getenv(probeEnv); path != "" {
		return path
	}
	needGo(t)
	probe.once.Do(func() {
		dir, done, err := scratch.Shared()
		if err != nil {
			probe.err = err
			return
		}
		probe.clean = done
		probe.path = filepath.Join(dir, "probe")
		probe.err = goBuild(probe.path, "-DLIMPET_CONFINE_PROBE")
	})
	if probe.err != nil {
		t.Fatal(probe.err)
	}
	return probe.path
}

// needGo skips where nothing can be built.
func needGo(t testing.TB) {
	t.Helper()
	for _, tool := range []string{"go", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs " + tool)
		}
	}
}

func goBuild(path, define string) error {
	c := exec.Command("go", "build", "-o", path, "-ldflags=-linkmode=external -extldflags=-static", "-tags=netgo,osusergo", "./internal/probe")
	c.Env = append(os.Environ(), "CGO_ENABLED=1", "CGO_CFLAGS=-O2 -g "+define)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build the probe: %w\n%s", err, out)
	}
	return nil
}

// pod is a confined probe.
type pod struct {
	t       testing.TB
	cmd     *exec.Cmd
	stdin   *os.File
	stderr  *os.File
	log     *bufio.Reader
	answers map[string]string
	dir     string
	netns   *os.File
	lock    string
	logFile *os.File
	// startedIn is the mount namespace of the thread that started it, emptyNS
	// the one of its order.
	startedIn, emptyNS string
}

// setup is what a test changes of the usual order.
type setup struct {
	order   func(*confine.Order)
	mounts  []volume
	root    *os.File
	payload string
	skip    string
	compile bool
	tasks   []*os.File
	attr    func(*syscall.SysProcAttr)
	// lockedBy makes somebody else hold the lock.
	lockedBy string
	// binary is run instead of the tests' probe.
	binary string
	// thread prepares the thread that starts the probe, which ends then.
	thread func(*pod) error
	// codeMode is the mode of the compiled code, 0644 if it is 0.
	codeMode os.FileMode
	// lockHolds is what stands in the lock already.
	lockHolds string
	// extra is passed on without being in the order.
	extra *os.File
}

type volume struct {
	source, path string
	attr         uint64
	file         bool
}

// start runs the probe in the way limpetd runs a host.
func start(t testing.TB, s setup) *pod {
	t.Helper()
	needRoot(t)
	p := &pod{t: t, dir: t.TempDir(), answers: map[string]string{}}
	o := &confine.Order{Mode: confine.Run, UID: 65534, GID: 65533, Groups: []uint32{1234, 5678}}
	o.Filter, o.SealFilter = must(filter.Run())(t), must(filter.Seal())(t)
	if s.compile {
		o.Mode = confine.Compile
		o.Filter = must(filter.Compile())(t)
	}

	in, stdin := pipe(t)
	log, logW := pipe(t)
	p.stdin, p.log, p.logFile = stdin, bufio.NewReader(log), log
	p.stderr = create(t, filepath.Join(p.dir, "stderr"))
	p.lock = filepath.Join(p.dir, "lock")
	if s.lockedBy != "" {
		other := create(t, p.lock)
		t.Cleanup(func() { other.Close() })
		if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
	}
	if s.lockHolds != "" {
		writeFile(t, p.lock, s.lockHolds)
	}
	null := must(os.OpenFile("/dev/null", os.O_RDWR, 0))(t)
	files := []*os.File{nil, null, null, create(t, p.lock), logW}
	if s.compile {
		files = []*os.File{nil, null, logW}
	}
	add := func(f *os.File) int {
		files = append(files, f)
		return 2 + len(files)
	}
	for len(files)+3 < spec.FDFirstFree {
		add(null)
	}
	empty := must(confine.EmptyMountNS())(t)
	p.emptyNS = must(os.Readlink(fmt.Sprintf("/proc/self/fd/%d", empty.Fd())))(t)
	o.EmptyNS = add(empty)
	p.netns = newNetNS(t)
	o.NetNS = add(p.netns)
	for _, f := range s.tasks {
		o.Tasks = append(o.Tasks, add(f))
	}
	if !s.compile {
		code := filepath.Join(p.dir, "code")
		writeFile(t, code, strings.Repeat("c", 4096))
		if s.codeMode != 0 {
			must(0, os.Chmod(code, s.codeMode))(t)
		}
		o.Code = add(must(confine.Clone(code, confine.Code))(t))
		o.Root.Size = 1 << 20
		if s.root != nil {
			o.Root = confine.Root{FD: add(s.root)}
		}
	}
	for _, v := range s.mounts {
		f := must(confine.Clone(v.source, v.attr))(t)
		o.Mounts = append(o.Mounts, confine.Mount{FD: add(f), Path: v.path, File: v.file, Writable: v.attr == confine.Volume})
	}
	if s.extra != nil {
		add(s.extra)
	}
	if s.order != nil {
		s.order(o)
	}
	files[0] = must(o.File([]byte(s.payload)))(t)
	p.exec(s, in, files)
	logW.Close()
	in.Close()
	for _, f := range files {
		if f != p.netns {
			f.Close()
		}
	}
	return p
}

func (p *pod) exec(s setup, in *os.File, files []*os.File) {
	path := s.binary
	if path == "" {
		path = buildProbe(p.t)
	}
	p.cmd = exec.Command(path)
	p.cmd.Env = []string{"LIMPET_HOST=1", "GOMAXPROCS=1"}
	if s.compile {
		p.cmd.Args = append(p.cmd.Args, "compile")
	}
	if s.skip != "" {
		p.cmd.Env = append(p.cmd.Env, "LIMPET_CONFINE_SKIP="+s.skip)
	}
	p.cmd.Stdin, p.cmd.Stderr, p.cmd.ExtraFiles = in, p.stderr, files
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS, Setsid: true,
	}
	if s.attr != nil {
		s.attr(p.cmd.SysProcAttr)
	}
	start := p.cmd.Start
	if s.thread != nil {
		start = func() error {
			return thread.Own(func() error {
				if err := s.thread(p); err != nil {
					return err
				}
				return p.cmd.Start()
			})
		}
	}
	if err := start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { p.end() })
}

// failed reports whether the probe ended before it answered everything.
func (p *pod) failed(payload string) bool {
	return len(p.answers) < max(1, strings.Count(payload, "\n"))
}

// read waits for the answers to all lines of the payload, or the end.
func (p *pod) read(payload string) {
	for range strings.Count(payload, "\n") {
		line, err := p.log.ReadString('\n')
		if err == io.EOF {
			return
		}
		if err != nil {
			p.t.Fatal(err)
		}
		k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " = ")
		p.answers[k] = v
	}
}

// end closes the standard input, so that the probe ends, and returns its exit
// code and what it said on standard error.
func (p *pod) end() (*os.ProcessState, string) {
	if p.cmd.ProcessState == nil {
		p.stdin.Close()
		_ = p.cmd.Wait() // the state says how it ended
	}
	b, err := os.ReadFile(filepath.Join(p.dir, "stderr"))
	if err != nil {
		p.t.Error(err)
	}
	return p.cmd.ProcessState, string(b)
}

// close lets go of what the test holds of it.
func (p *pod) close() {
	for _, f := range []*os.File{p.logFile, p.stderr, p.netns, p.stdin} {
		f.Close()
	}
}

// run starts a probe and reads its answers.
func run(t testing.TB, s setup) *pod {
	t.Helper()
	if s.payload == "" {
		s.payload = "confined\n" // its answer says that everything is done
	}
	p := start(t, s)
	p.read(s.payload)
	return p
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func create(t testing.TB, path string) *os.File {
	t.Helper()
	return must(os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644))(t)
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// newNetNS makes a network namespace on a thread that is thrown away.
func newNetNS(t testing.TB) *os.File {
	t.Helper()
	var f *os.File
	err := thread.Own(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		f, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// status reads a /proc status file into a map.
func status(t testing.TB, path string) map[string]string {
	t.Helper()
	m := map[string]string{}
	for line := range bytes.Lines(must(os.ReadFile(path))(t)) {
		if k, v, ok := strings.Cut(string(bytes.TrimSpace(line)), ":"); ok {
			m[k] = strings.Join(strings.Fields(v), " ")
		}
	}
	return m
}

// BenchmarkStart takes the time from the order to the first answer of a
// probe with five mounts, and its end.
func BenchmarkStart(b *testing.B) {
	needRoot(b)
	s := prepareVolumes(b)
	s.payload = "pid\n"
	buildProbe(b)
	for b.Loop() {
		p := run(b, s)
		p.end()
		p.close()
	}
}
