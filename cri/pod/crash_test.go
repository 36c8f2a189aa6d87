package pod_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// crashes is a node on which daemons are killed, beside a pod that must not
// notice: it counts, and its log shows every gap.
type crashes struct {
	testing.TB
	place
	config daemonConfig
	d      *remoteDaemon

	steadyPod, steady string
	pid               string   // of the steady container
	before            []string // what there is with the steady pod alone
}

func newCrashes(t *testing.T) *crashes {
	t.Helper()
	x := &crashes{TB: t, place: newPlace(t)}
	x.config = daemonConfig{Place: x.place, Hub: newHub(t).host}
	x.restart(x.config)
	for _, g := range []string{"count", "idle", "files", "foreign", "spin", "late", "exit7", "hello"} {
		x.d.must(ask{Op: "pull", Guest: g})
	}
	x.steadyPod = x.d.must(ask{Op: "run", Name: "steady"}).ID
	x.steady = x.d.must(ask{Op: "create", ID: x.steadyPod, Guest: "count"}).ID
	x.d.must(ask{Op: "start", ID: x.steady})
	pids := x.hosts()
	if len(pids) != 1 {
		t.Fatalf("hosts: %v", pids)
	}
	x.pid, x.before = pids[0], x.inventory(t)
	return x
}

// restart starts the next daemon.
func (x *crashes) restart(c daemonConfig) {
	x.Helper()
	var err error
	if x.d, err = startDaemon(x.TB, c); err != nil {
		b, _ := os.ReadFile(filepath.Join(x.Dir, "daemon.log"))
		x.Fatalf("%v\n%s", err, b)
	}
}

// step is where the daemon killed itself.
func (x *crashes) step() string {
	x.Helper()
	b, err := os.ReadFile(filepath.Join(x.Dir, "killed-at"))
	if err != nil {
		x.Fatal(err)
	}
	return string(b)
}

// A life is what is done to a pod, in order, until something fails.
type life func(x *crashes, name, guest string) error

// polite does everything that can be done to a pod.
func polite(x *crashes, name, guest string) error {
	pod, ctr, err := x.create(name, guest)
	if err != nil {
		return err
	}
	return x.asks(ask{Op: "start", ID: ctr}, ask{Op: "stop", ID: ctr, N: 3600}, ask{Op: "remove", ID: ctr},
		ask{Op: "stop-sandbox", ID: pod}, ask{Op: "remove-sandbox", ID: pod})
}

// rude removes a sandbox in which a guest runs that has to be killed.
func rude(x *crashes, name, guest string) error {
	pod, ctr, err := x.create(name, guest)
	if err != nil {
		return err
	}
	return x.asks(ask{Op: "start", ID: ctr}, ask{Op: "remove-sandbox", ID: pod})
}

// vain tries to create a container of which no host can be made.
func vain(x *crashes, name, _ string) error {
	pod, _, err := x.create(name, "foreign")
	switch {
	case err == nil:
		return errors.New("a module that cannot be linked was taken")
	case errors.Is(err, errKilled), pod == "":
		return err
	}
	return x.asks(ask{Op: "remove-sandbox", ID: pod})
}

// create makes a pod with a container, as far as it comes.
func (x *crashes) create(name, guest string) (pod, ctr string, err error) {
	run, err := x.d.ask(ask{Op: "run", Name: name})
	if err != nil {
		return "", "", err
	}
	made, err := x.d.ask(ask{Op: "create", ID: run.ID, Guest: guest})
	return run.ID, made.ID, err
}

func (x *crashes) asks(l ...ask) error {
	for _, q := range l {
		if _, err := x.d.ask(q); err != nil {
			return err
		}
	}
	return nil
}

// check looks at the node after a restart: the steady pod did not notice, and
// everything that is listed stands on something.
func (x *crashes) check(when string) answer {
	x.Helper()
	l := x.d.must(ask{Op: "list"})
	for _, c := range l.Containers {
		if c.GetId() == x.steady && c.GetState() != runtime.ContainerState_CONTAINER_RUNNING {
			x.Fatalf("killed at %s: the steady container is %s: %s", when, c.GetState(), c.GetMessage())
		}
		if c.GetState() == runtime.ContainerState_CONTAINER_UNKNOWN {
			x.Errorf("killed at %s: container %s is unknown: %s", when, c.GetId(), c.GetMessage())
		}
	}
	if !slices.Contains(x.hosts(), x.pid) {
		x.Fatalf("killed at %s: the steady container's process is gone", when)
	}
	alive := 0
	for _, c := range l.Containers {
		if c.GetState() != runtime.ContainerState_CONTAINER_EXITED {
			alive++
		}
	}
	if n := len(x.hosts()); n != alive {
		x.Errorf("killed at %s: %d processes, %d containers that should have one", when, n, alive)
	}
	if len(l.Leases) != len(l.Containers) {
		x.Errorf("killed at %s: %d leases, %d containers", when, len(l.Leases), len(l.Containers))
	}
	return l
}

// clear removes all but the steady pod, after which the node is as before.
func (x *crashes) clear(when string) {
	x.Helper()
	for _, s := range x.d.must(ask{Op: "list"}).Sandboxes {
		if s.GetId() != x.steadyPod {
			x.d.must(ask{Op: "remove-sandbox", ID: s.GetId()})
		}
	}
	if after := x.inventory(x.TB); !slices.Equal(x.before, after) {
		x.Errorf("killed at %s: left %q, before %q", when, after, x.before)
	}
	if l := x.d.must(ask{Op: "list"}); len(l.Sandboxes) != 1 || len(l.Containers) != 1 || len(l.Leases) != 1 {
		x.Errorf("killed at %s: %d sandboxes, %d containers, %d leases", when, len(l.Sandboxes), len(l.Containers), len(l.Leases))
	}
}

// end ends the steady pod and reads its log.
func (x *crashes) end() {
	x.Helper()
	x.d.must(ask{Op: "stop", ID: x.steady, N: 10})
	x.d.must(ask{Op: "remove-sandbox", ID: x.steadyPod})
	lines := x.lines(x.TB, "steady", "count")
	unbroken(x.TB, lines)
	x.Logf("%d lines without a gap", len(lines))
	if l := x.inventory(x.TB); len(l) > 0 {
		x.Errorf("left: %q", l)
	}
}

// live leads a life that is to be cut off, and waits for the daemon's death.
func (x *crashes) live(l life, guest string) (finished bool) {
	x.Helper()
	err := l(x, "victim", guest)
	if err == nil {
		return true
	}
	if !errors.Is(err, errKilled) {
		x.Fatal(err)
	}
	x.d.wait()
	return false
}
