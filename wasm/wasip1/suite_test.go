package wasip1_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm"
	"github.com/limpet-cri/limpet/wasm/wasi"
	"github.com/limpet-cri/limpet/wasm/wasip1"
	"github.com/limpet-cri/limpet/wasm/wasmtime"
)

// suiteVariable names the folder in which WebAssembly/wasi-testsuite is.
const suiteVariable = "WASI_TESTSUITE"

// programTimeout is how long one program of the suite may run.
const programTimeout = 30 * time.Second

// manifest describes a program of the suite, in both forms: the older one
// names preopened folders, the newer one a root and operations.
type manifest struct {
	Args       []string          `json:"args"`
	Dirs       []string          `json:"dirs"`
	Root       string            `json:"root"`
	Env        map[string]string `json:"env"`
	ExitCode   uint32            `json:"exit_code"`
	Stdout     string            `json:"stdout"`
	Stderr     string            `json:"stderr"`
	Proposals  []string          `json:"proposals"`
	World      string            `json:"world"`
	Operations []operation       `json:"operations"`
}

type operation struct {
	Type     string            `json:"type"`
	Args     []string          `json:"args"`
	Root     string            `json:"root"`
	Env      map[string]string `json:"env"`
	ID       string            `json:"id"`
	Payload  string            `json:"payload"`
	ExitCode uint32            `json:"exit_code"`
}

// fold turns operations into the older form, which says the same for every
// program that preview 1 can express.
func (m *manifest) fold() error {
	if len(m.Proposals) > 0 || m.World != "" {
		return errors.New("needs a proposal that preview 1 does not have")
	}
	for _, op := range m.Operations {
		switch {
		case op.Type == "run":
			m.Args, m.Env = append(m.Args, op.Args...), op.Env
			if op.Root != "" {
				m.Root = op.Root
			}
		case op.Type == "read" && op.ID == "stdout":
			m.Stdout += op.Payload
		case op.Type == "read" && op.ID == "stderr":
			m.Stderr += op.Payload
		case op.Type == "wait":
			m.ExitCode = op.ExitCode
		default:
			return errors.New("operation " + op.Type + " is not one of preview 1")
		}
	}
	return nil
}

func readManifest(t *testing.T, program string) manifest {
	var m manifest
	b, err := os.ReadFile(strings.TrimSuffix(program, ".wasm") + ".json")
	if errors.Is(err, fs.ErrNotExist) {
		return m
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	if err := m.fold(); err != nil {
		t.Skip(err)
	}
	return m
}

// TestWasiTestsuite runs the preview 1 programs of WebAssembly/wasi-testsuite,
// each with a fresh copy of its folders.
func TestWasiTestsuite(t *testing.T) {
	suite := os.Getenv(suiteVariable)
	if suite == "" {
		t.Skip("needs " + suiteVariable + ", the folder of a checkout of WebAssembly/wasi-testsuite")
	}
	engine, err := wasmtime.NewEngine(wasmtime.Config{Parallel: true})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	programs := findPrograms(t, suite)
	if len(programs) == 0 {
		t.Fatalf("no wasm32-wasip1/*.wasm below %s", suite)
	}
	for _, p := range programs {
		name := strings.TrimSuffix(filepath.Base(p), ".wasm")
		if rel, err := filepath.Rel(suite, p); err == nil {
			parts := strings.Split(rel, string(filepath.Separator))
			name = parts[min(1, len(parts)-1)] + "/" + name
		}
		t.Run(name, func(t *testing.T) { runProgram(t, engine, p) })
	}
}

func findPrograms(t *testing.T, suite string) []string {
	var programs []string
	err := filepath.WalkDir(suite, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(p, ".wasm") && filepath.Base(filepath.Dir(p)) == "wasm32-wasip1" {
			programs = append(programs, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(programs)
	return programs
}

// log keeps what a guest wrote.
type log struct{ bytes.Buffer }

func (*log) Flush() error { return nil }

func runProgram(t *testing.T, engine *wasmtime.Engine, program string) {
	m := readManifest(t, program)
	var stdout, stderr log
	cfg := wasi.Config{Args: append([]string{filepath.Base(program)}, m.Args...), Stdin: -1, Stdout: &stdout, Stderr: &stderr}
	for k, v := range m.Env {
		cfg.Env = append(cfg.Env, k+"="+v)
	}
	fresh := freshCopy(t, filepath.Dir(program), append(slices.Clone(m.Dirs), m.Root))
	for _, d := range m.Dirs {
		cfg.Preopens = append(cfg.Preopens, wasi.Preopen{Name: d, FD: openFolder(t, filepath.Join(fresh, d))})
	}
	if m.Root != "" {
		cfg.Preopens = append(cfg.Preopens, wasi.Preopen{Name: "/", FD: openFolder(t, filepath.Join(fresh, m.Root)), Root: true})
	}
	code := run(t, engine, program, cfg)
	if code != m.ExitCode {
		t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", code, m.ExitCode, stdout.String(), stderr.String())
	}
	if m.Stdout != "" && stdout.String() != m.Stdout {
		t.Errorf("stdout %q, want %q", stdout.String(), m.Stdout)
	}
	if m.Stderr != "" && stderr.String() != m.Stderr {
		t.Errorf("stderr %q, want %q", stderr.String(), m.Stderr)
	}
}

// freshCopy copies the folders of a program's fixtures, without what an
// earlier run may have left.
func freshCopy(t *testing.T, from string, folders []string) string {
	to := t.TempDir()
	for _, f := range folders {
		if f == "" {
			continue
		}
		if err := os.MkdirAll(filepath.Join(to, f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(filepath.Join(to, f), os.DirFS(filepath.Join(from, f))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	err := filepath.WalkDir(to, func(p string, d fs.DirEntry, err error) error {
		if err == nil && p != to && strings.HasSuffix(p, ".cleanup") {
			if err := os.RemoveAll(p); err != nil {
				return err
			}
			if d.IsDir() {
				return fs.SkipDir
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func openFolder(t testing.TB, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return fd
}

// load compiles a program and maps its code.
func load(t testing.TB, engine *wasmtime.Engine, program []byte) *wasmtime.Module {
	t.Helper()
	code, err := engine.Compile(program)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(path, code, 0o644); err != nil {
		t.Fatal(err)
	}
	module, err := engine.LoadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(module.Close)
	return module
}

// start makes an instance of a module over sys.
func start(t testing.TB, engine *wasmtime.Engine, module *wasmtime.Module, sys *wasi.System) *wasmtime.Instance {
	t.Helper()
	linked, err := engine.Link(module, wasip1.Imports(sys))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(linked.Close)
	instance, err := linked.Instantiate(wasm.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(instance.Close)
	return instance
}

// run runs a program to its end and returns its exit code, 134 for a trap.
func run(t *testing.T, engine *wasmtime.Engine, program string, cfg wasi.Config) uint32 {
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	module := load(t, engine, b)
	sys, err := wasi.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	timer := time.AfterFunc(programTimeout, func() { sys.Interrupt(errors.New("the program took too long")) })
	defer timer.Stop()
	err = start(t, engine, module, sys).Call("_start")
	var exit *wasm.Exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.Code
	}
	t.Log(err)
	return 134
}
