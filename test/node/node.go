// Package node runs the built limpetd in a scratch folder, beside a registry
// on loopback that holds the guests of this repository, and talks to it as a
// kubelet does. The demo, the end-to-end tests and the bench stand on it.
//
// Everything it starts listens on loopback or on a unix socket in its folder,
// and Close leaves nothing: process, cgroup, mount, file.
package node

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// Node is one limpetd with its registry.
type Node struct {
	*Client
	Dir      string // the scratch folder
	Socket   string
	Bin      string // where limpetd, limpet-host and limpet are
	Guests   string // where the built guests are
	Registry string // host:port
	Cgroup   string // parent of the pods' cgroups, made by whom it concerns

	daemon   *exec.Cmd
	ended    chan struct{}
	registry *httptest.Server
	log      *os.File
}

// Options of Start; the zero value is what tests want.
type Options struct {
	Dir    string // made if empty
	Config string // appended to the configuration
}

// root is the repository: what make exports, or the folder above the tests.
func root() (string, error) {
	if r := os.Getenv("LIMPET_BUILD"); r != "" {
		return r, nil
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := wd; d != "/"; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
	}
	return "", fmt.Errorf("%s is not inside the repository", wd)
}

// Start makes a node and waits until it answers.
func Start(ctx context.Context, o Options) (*Node, error) {
	top, err := root()
	if err != nil {
		return nil, err
	}
	n := &Node{Dir: o.Dir, Bin: filepath.Join(top, "bin"), Guests: filepath.Join(top, "build", "guests")}
	for _, p := range []string{filepath.Join(n.Bin, "limpetd"), n.Guests} {
		if _, err := os.Stat(p); err != nil {
			return nil, fmt.Errorf("%w: run make build guests first", err)
		}
	}
	if n.Dir == "" {
		if n.Dir, err = os.MkdirTemp("", "limpet-"); err != nil {
			return nil, err
		}
	}
	n.Cgroup = "/" + filepath.Base(n.Dir)
	n.Socket = filepath.Join(n.Dir, "run", "limpetd.sock")
	if err := MountMemory(filepath.Join(n.Dir, "run")); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	if err := n.serveRegistry(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	if err := os.WriteFile(n.ConfigFile(), []byte(n.config()+o.Config), 0o644); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	if err := n.StartDaemon(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// serveRegistry listens on loopback; it keeps its blobs in memory.
func (n *Node) serveRegistry() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	quiet := log.New(discard{}, "", 0)
	n.registry = &httptest.Server{Listener: l, Config: &http.Server{Handler: registry.New(registry.Logger(quiet)), ErrorLog: quiet}}
	n.registry.Start()
	n.Registry = l.Addr().String()
	return nil
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// ConfigFile is the path of limpetd's configuration.
func (n *Node) ConfigFile() string { return filepath.Join(n.Dir, "limpetd.toml") }

// LogFile is the path of limpetd's log.
func (n *Node) LogFile() string { return filepath.Join(n.Dir, "limpetd.log") }

// StartDaemon starts limpetd on the node's folder and waits until it answers.
func (n *Node) StartDaemon(ctx context.Context) error {
	f, err := os.OpenFile(n.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(n.Bin, "limpetd"), "--config", n.ConfigFile())
	cmd.Stdout, cmd.Stderr = f, f
	// Ctrl-C in a terminal goes to a whole process group. It is for whoever
	// started the node, and needs limpetd to clean up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		f.Close()
		return err
	}
	n.daemon, n.log, n.ended = cmd, f, make(chan struct{})
	go func(ended chan struct{}) {
		cmd.Wait()
		close(ended)
	}(n.ended)
	if n.Client == nil {
		if n.Client, err = Dial(n.Socket); err != nil {
			return err
		}
	}
	return n.awaitAnswer(ctx)
}

const startLimit = 30 * time.Second

func (n *Node) awaitAnswer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		err := n.Client.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-n.ended:
			return fmt.Errorf("limpetd ended: %s\n%s", n.daemon.ProcessState, n.LogTail())
		case <-ctx.Done():
			return fmt.Errorf("limpetd does not answer: %w\n%s", err, n.LogTail())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// LogTail returns the last lines of limpetd's log.
func (n *Node) LogTail() string {
	b, err := os.ReadFile(n.LogFile())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// PID returns limpetd's process id.
func (n *Node) PID() int { return n.daemon.Process.Pid }

// StopDaemon ends limpetd with the signal; pods stay.
func (n *Node) StopDaemon(sig syscall.Signal) error {
	if n.daemon == nil {
		return nil
	}
	defer func() { n.daemon = nil; n.log.Close() }()
	if err := n.daemon.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-n.ended:
		return nil
	case <-time.After(startLimit):
		n.daemon.Process.Kill()
		<-n.ended
		return fmt.Errorf("limpetd did not end within %s of %s", startLimit, sig)
	}
}

// Push makes an artifact of a file with limpet push and returns its reference.
func (n *Node) Push(ctx context.Context, file, name string) (string, error) {
	ref := n.Registry + "/" + name
	out, err := exec.CommandContext(ctx, filepath.Join(n.Bin, "limpet"), "push", file, ref).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("limpet push %s %s: %w\n%s", file, ref, err, out)
	}
	return ref, nil
}

// PushGuest pushes a guest of this repository under its name.
func (n *Node) PushGuest(ctx context.Context, guest string) (string, error) {
	return n.Push(ctx, filepath.Join(n.Guests, guest+".wasm"), guest+":1")
}

// alive reports whether limpetd runs.
func (n *Node) alive() bool {
	if n.daemon == nil {
		return false
	}
	select {
	case <-n.ended:
		return false
	default:
		return true
	}
}

// Close removes every pod, ends what was started and removes the folder. A
// limpetd that is gone already leaves hosts behind: those are killed. A second
// Close does nothing.
func (n *Node) Close() error {
	var errs []error
	if n.alive() && n.Client != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		errs = append(errs, n.Client.RemoveAll(ctx))
		cancel()
	}
	errs = append(errs, n.StopDaemon(syscall.SIGTERM))
	if n.Client != nil {
		errs = append(errs, n.Client.Close())
		n.Client = nil
	}
	if n.registry != nil {
		n.registry.Close()
	}
	errs = append(errs, killCgroup(n.Cgroup), removeCgroups(n.Cgroup), unmountBelow(n.Dir), os.RemoveAll(n.Dir))
	return errors.Join(errs...)
}
