//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/test/node"
)

// demo is the program of make demo, in a process group of its own as under a
// shell.
type demo struct {
	cmd   *exec.Cmd
	out   string // the file that it prints to
	ended chan error
}

func startDemo(t *testing.T, args ...string) *demo {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "demo")
	if out, err := exec.Command("go", "build", "-o", program, "../demo").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d := &demo{cmd: exec.Command(program, args...), out: filepath.Join(dir, "out"), ended: make(chan error, 1)}
	f, err := os.Create(d.out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d.cmd.Stdout, d.cmd.Stderr = f, f
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.ended <- d.cmd.Wait() }()
	t.Cleanup(func() {
		if t.Failed() {
			d.interrupt()
			t.Logf("the demo printed\n%s", d.text())
		}
	})
	return d
}

func (d *demo) text() string {
	b, _ := os.ReadFile(d.out)
	return string(b)
}

func (d *demo) awaitText(t *testing.T, want string) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		if !strings.Contains(d.text(), want) {
			return fmt.Errorf("it does not say %q", want)
		}
		return nil
	})
}

// interrupt is Ctrl-C: the signal goes to the whole group.
func (d *demo) interrupt() { syscall.Kill(-d.cmd.Process.Pid, syscall.SIGINT) }

// left wants the demo to have ended with the code, and nothing of it left.
func (d *demo) left(t *testing.T, code int) {
	t.Helper()
	var exit *exec.ExitError
	if err := <-d.ended; err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := d.cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("the demo ended with %d, want %d", got, code)
	}
	dir := regexp.MustCompile(`answers on (/\S+)/run/limpetd\.sock`).FindStringSubmatch(d.text())
	if dir == nil {
		t.Fatal("it does not name its socket")
	}
	nodeGone(t, dir[1])
}

// nodeGone wants no file, mount, cgroup or process of a node's folder.
func nodeGone(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Lstat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
	if mounts, err := node.Mounts(dir); err != nil || len(mounts) > 0 {
		t.Errorf("mounts are left: %v, %v", mounts, err)
	}
	if groups := node.Groups("/" + filepath.Base(dir)); groups > 0 {
		t.Errorf("%d cgroups are left", groups)
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range lines {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(dir)) {
			t.Errorf("a process is left: %s", bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
		}
	}
}

// TestDemo types the crictl lines that make demo KEEP=1 prints, then Ctrl-C.
func TestDemo(t *testing.T) {
	d := startDemo(t, "-keep")
	d.awaitText(t, "Everything stays")
	for _, want := range []string{"All 6 ended as they should", "Hello from WebAssembly", "integer divide by zero", "exited   143  Stopped"} {
		if !strings.Contains(d.text(), want) {
			t.Errorf("the demo does not show %q", want)
		}
	}
	var script strings.Builder
	for l := range strings.Lines(d.text()) {
		l, ok := strings.CutPrefix(l, "  ")
		if !ok || !regexp.MustCompile(`^(export |crictl |[A-Z]+=\$\(crictl )`).MatchString(l) {
			continue
		}
		if strings.HasPrefix(l, "crictl logs") {
			// A person is not faster than the guest; this script may be.
			fmt.Fprintf(&script, "until crictl inspect $CTR | grep -q CONTAINER_EXITED; do sleep 0.1; done\n")
		}
		script.WriteString(l)
	}
	if n := strings.Count(script.String(), "crictl"); n < 10 {
		t.Fatalf("%d crictl lines in\n%s", n, script.String())
	}
	peers, err := filepath.Abs("../../build/peers")
	if err != nil {
		t.Fatal(err)
	}
	sh := exec.Command("sh", "-eu", "-c", script.String())
	sh.Env = append(os.Environ(), "PATH="+peers+":"+os.Getenv("PATH"))
	out, err := sh.CombinedOutput()
	if strings.Contains(string(out), " unknown ") {
		t.Errorf("crictl does not know whose container it is:\n%s", out)
	}
	if err != nil || !strings.Contains(string(out), "\nHello from WebAssembly") {
		t.Errorf("the lines by hand: %v\n%s\n%s", err, script.String(), out)
	}
	d.interrupt()
	d.left(t, 0)
}

// TestDemoInterrupted presses Ctrl-C in the middle.
func TestDemoInterrupted(t *testing.T) {
	d := startDemo(t)
	d.awaitText(t, "Pushed with limpet push")
	d.interrupt()
	d.left(t, 1)
	if text := d.text(); !strings.Contains(text, "demo: interrupted") || !strings.Contains(text, "Cleaned up") {
		t.Errorf("it does not say what became of it")
	}
}

// TestNothingLeftWithoutDaemon: a node whose limpetd was killed under a running
// pod is cleaned up all the same.
func TestNothingLeftWithoutDaemon(t *testing.T) {
	n := startNode(t)
	id, err := n.Pull(t.Context(), n.Registry+"/forever:1")
	if err != nil {
		t.Fatal(err)
	}
	sandbox := node.Sandbox("stays", filepath.Join(n.Dir, "logs"), n.Cgroup, runtime.NamespaceMode_POD)
	if _, err := n.RunPod(t.Context(), "limpet", sandbox, node.Container("stays", id)); err != nil {
		t.Fatal(err)
	}
	if err := n.StopDaemon(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	nodeGone(t, n.Dir)
}
