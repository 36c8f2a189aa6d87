package pod_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/image"
)

// A daemon in a process of its own that can be killed: this test binary again,
// asked by lines of JSON on its input, answering on its output.

// daemonEnv holds the daemonConfig of a daemon.
const daemonEnv = "LIMPET_TEST_DAEMON"

type daemonConfig struct {
	Place place
	Hub   string
	// KillAt is the number of the checkpoint at which to die while
	// recovering; 0 is never.
	KillAt int64
	// Boot is what the daemon takes for the boot id; empty is the kernel's.
	Boot string
}

// ask is one request; Op names a call of the manager, or arm, which lets the
// daemon kill itself at the Nth checkpoint from then on, or at the next one of
// a name.
type ask struct {
	Seq             int64
	Op              string
	Name, Guest, ID string
	N               int64
}

type answer struct {
	Seq        int64
	Err        string
	ID         string
	Sandboxes  []*runtime.PodSandbox
	Containers []*runtime.ContainerStatus
	Leases     []string
}

// fuse counts checkpoints and kills the process at one of them.
type fuse struct {
	dir   string
	count atomic.Int64
	at    atomic.Int64
	name  atomic.Value // string
}

func (f *fuse) step(name string) {
	if n := f.count.Add(1); n != f.at.Load() && name != f.name.Load() {
		return
	}
	// So that a failure can name the step.
	if err := os.WriteFile(filepath.Join(f.dir, "killed-at"), []byte(name), 0o600); err != nil {
		panic(err)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func daemon(config string) int {
	var c daemonConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return 2
	}
	log, err := os.OpenFile(filepath.Join(c.Place.Dir, "daemon.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 2
	}
	if err := pretendBoot(c); err != nil {
		log.WriteString(err.Error() + "\n")
		return 1
	}
	f := &fuse{dir: c.Place.Dir}
	f.at.Store(c.KillAt)
	s, err := c.Place.open(context.Background(), f.step, log)
	if err != nil {
		log.WriteString(err.Error() + "\n")
		return 1
	}
	d := &served{stack: s, fuse: f, place: c.Place, hub: hub{c.Hub}, out: json.NewEncoder(os.Stdout)}
	d.answer(answer{})
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var q ask
		if err := json.Unmarshal(in.Bytes(), &q); err != nil {
			return 2
		}
		go func() {
			a := d.do(context.Background(), q)
			a.Seq = q.Seq
			d.answer(a)
		}()
	}
	if err := s.close(); err != nil {
		log.WriteString(err.Error() + "\n")
		return 1
	}
	return 0
}

// pretendBoot puts another boot id in the kernel's place, in this process's
// own view of the file system.
func pretendBoot(c daemonConfig) error {
	if c.Boot == "" {
		return nil
	}
	file := filepath.Join(c.Place.Dir, "boot-id")
	err := os.WriteFile(file, []byte(c.Boot+"\n"), 0o644)
	if err == nil {
		err = syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	}
	if err == nil {
		err = syscall.Mount(file, "/proc/sys/kernel/random/boot_id", "", syscall.MS_BIND, "")
	}
	return err
}

type served struct {
	*stack
	fuse  *fuse
	place place
	hub   hub
	mu    sync.Mutex
	out   *json.Encoder
}

func (d *served) answer(a answer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.out.Encode(a); err != nil {
		os.Exit(3)
	}
}

func (d *served) do(ctx context.Context, q ask) (a answer) {
	var err error
	switch q.Op {
	case "arm":
		d.fuse.name.Store(q.Name)
		if q.N > 0 {
			d.fuse.at.Store(d.fuse.count.Load() + q.N)
		}
	case "pull":
		_, err = d.images.Pull(ctx, d.hub.ref(q.Guest), image.PullOptions{})
	case "run":
		a.ID, err = d.RunPodSandbox(ctx, d.place.sandbox(q.Name), "")
	case "create":
		a.ID, err = d.CreateContainer(ctx, &runtime.CreateContainerRequest{PodSandboxId: q.ID, Config: d.hub.container(q.Guest)})
	case "start":
		err = d.StartContainer(ctx, q.ID)
	case "stop":
		err = d.StopContainer(ctx, q.ID, q.N)
	case "remove":
		err = d.RemoveContainer(ctx, q.ID)
	case "stop-sandbox":
		err = d.StopPodSandbox(ctx, q.ID)
	case "remove-sandbox":
		err = d.RemovePodSandbox(ctx, q.ID)
	case "list":
		a.Sandboxes = d.ListPodSandbox(nil)
		for _, c := range d.ListContainers(nil) {
			if r, err := d.ContainerStatus(c.GetId(), false); err == nil {
				a.Containers = append(a.Containers, r.GetStatus())
			}
		}
		a.Leases, err = d.images.Leased(ctx)
	default:
		err = errors.New("unknown op " + q.Op)
	}
	if err != nil {
		a.Err = err.Error()
	}
	return a
}

// remoteDaemon is the parent's end of a daemon.
type remoteDaemon struct {
	testing.TB
	cmd *exec.Cmd
	in  *json.Encoder

	mu      sync.Mutex
	seq     int64
	waiting map[int64]chan answer
	dead    bool
	gone    chan struct{} // closed when its output has ended
}

// errKilled is what a request gets whose daemon died.
var errKilled = errors.New("the daemon was killed")

// startDaemon starts a daemon and waits until it has recovered, or died.
func startDaemon(t testing.TB, c daemonConfig) (*remoteDaemon, error) {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	d := &remoteDaemon{TB: t, cmd: exec.Command(os.Args[0]), waiting: map[int64]chan answer{}, gone: make(chan struct{})}
	d.cmd.Env = append(os.Environ(), daemonEnv+"="+string(b))
	if c.Boot != "" {
		d.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	}
	in, err := d.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan answer, 1)
	d.waiting[0], d.in = ready, json.NewEncoder(in)
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go d.read(json.NewDecoder(out))
	t.Cleanup(func() { // closes its input, which ends it in order
		in.Close()
		d.wait()
	})
	if _, ok := <-ready; !ok {
		d.wait()
		return d, errKilled
	}
	return d, nil
}

func (d *remoteDaemon) wait() {
	<-d.gone
	_ = d.cmd.Wait() // killed, or asked before
}

func (d *remoteDaemon) read(out *json.Decoder) {
	defer close(d.gone)
	for {
		var a answer
		err := out.Decode(&a)
		d.mu.Lock()
		if err != nil {
			d.dead = true
			for _, c := range d.waiting {
				close(c)
			}
			d.mu.Unlock()
			return
		}
		c := d.waiting[a.Seq]
		delete(d.waiting, a.Seq)
		d.mu.Unlock()
		c <- a
	}
}

// ask waits for the answer to a request.
func (d *remoteDaemon) ask(q ask) (answer, error) {
	c := make(chan answer, 1)
	d.mu.Lock()
	if d.dead {
		d.mu.Unlock()
		return answer{}, errKilled
	}
	d.seq++
	q.Seq = d.seq
	d.waiting[q.Seq] = c
	err := d.in.Encode(q)
	d.mu.Unlock()
	if err != nil {
		return answer{}, errKilled
	}
	a, ok := <-c
	if !ok {
		return answer{}, errKilled
	}
	if a.Err != "" {
		return a, errors.New(q.Op + ": " + a.Err)
	}
	return a, nil
}

// must asks what has to succeed.
func (d *remoteDaemon) must(q ask) answer {
	d.Helper()
	a, err := d.ask(q)
	if err != nil {
		d.Fatal(err)
	}
	return a
}

// kill kills the daemon from outside.
func (d *remoteDaemon) kill() {
	d.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		d.Fatal(err)
	}
	d.wait()
}
