package pod_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
	x.restart()
	for _, g := range []string{"count", "idle", "late", "exit7", "hello"} {
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
func (x *crashes) restart() {
	x.Helper()
	var err error
	if x.d, err = startDaemon(x.TB, x.config); err != nil {
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

// life is everything that can be done to a pod, in order, until something
// fails.
func (x *crashes) life(name, guest string) error {
	run, err := x.d.ask(ask{Op: "run", Name: name})
	if err != nil {
		return err
	}
	created, err := x.d.ask(ask{Op: "create", ID: run.ID, Guest: guest})
	if err != nil {
		return err
	}
	for _, q := range []ask{
		{Op: "start", ID: created.ID}, {Op: "stop", ID: created.ID, N: 10}, {Op: "remove", ID: created.ID},
		{Op: "stop-sandbox", ID: run.ID}, {Op: "remove-sandbox", ID: run.ID},
	} {
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

// The daemon is killed between every two steps of run, create, start, stop,
// remove, stop-sandbox and remove-sandbox. After a restart the same life can be
// led again under the same name.
func TestCrashEveryStep(t *testing.T) {
	x := newCrashes(t)
	var steps []string
	for n := int64(1); ; n++ {
		x.d.must(ask{Op: "arm", N: n})
		err := x.life("victim", "idle")
		if err == nil {
			break // there is no Nth step
		}
		if !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		x.d.wait()
		step := x.step()
		steps = append(steps, step)
		x.restart()
		l := x.check(step)
		x.halfMade(step, l)
		x.clear(step)
		if t.Failed() {
			t.Fatalf("after step %s", step)
		}
	}
	x.d.must(ask{Op: "arm", N: 1 << 40})
	t.Logf("killed at %s", strings.Join(steps, " "))
	for _, want := range []string{"run.", "create.", "start.", "stop.", "exit.", "remove.", "discard.", "stop-sandbox.", "remove-sandbox."} {
		if !slices.ContainsFunc(steps, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("never killed at %s*", want)
		}
	}
	x.end()
}

// halfMade checks what a restart makes of each step: what was not promised yet
// is gone, what was is there.
func (x *crashes) halfMade(step string, l answer) {
	x.Helper()
	sandbox, container := false, ""
	for _, s := range l.Sandboxes {
		sandbox = sandbox || s.GetId() != x.steadyPod
	}
	for _, c := range l.Containers {
		if c.GetId() != x.steady {
			container = strings.TrimPrefix(c.GetState().String(), "CONTAINER_")
		}
	}
	want := map[string]struct {
		sandbox   bool
		container string
	}{
		"run.reserved": {}, "run.recorded": {}, "run.networked": {}, "run.files": {}, "run.ready": {true, ""},
		"create.reserved": {true, ""}, "create.recorded": {true, ""}, "create.prepared": {true, ""}, "create.rooted": {true, ""}, "create.hosted": {true, ""},
		"create.saved": {true, "CREATED"}, "start.recorded": {true, "CREATED"}, "start.told": {true, "RUNNING"}, "start.saved": {true, "RUNNING"},
		"stop.recorded": {true, "RUNNING"}, "stop.signalled": {true, "EXITED"}, "exit.seen": {true, "EXITED"}, "exit.recorded": {true, "EXITED"},
		"remove.stopped": {true, "EXITED"}, "remove.recorded": {true, ""}, "discard.released": {true, ""}, "discard.unhosted": {true, ""}, "remove.done": {true, ""},
		"stop-sandbox.stopped": {true, ""}, "stop-sandbox.recorded": {true, ""}, "stop-sandbox.done": {true, ""},
		"remove-sandbox.stopped": {true, ""}, "remove-sandbox.emptied": {true, ""}, "remove-sandbox.recorded": {}, "remove-sandbox.done": {},
	}
	w, ok := want[step]
	if !ok {
		x.Errorf("step %s is not in the table", step)
	}
	if step == "stop.signalled" && container == "RUNNING" {
		return // the signal was sent, and the guest is about to end
	}
	if sandbox != w.sandbox || container != w.container {
		x.Errorf("killed at %s: sandbox %v, container %q; want %v, %q", step, sandbox, container, w.sandbox, w.container)
	}
}

// What ends while no daemon is there is told with its own code and time.
func TestCrashExitMeanwhile(t *testing.T) {
	x := newCrashes(t)
	pod := x.d.must(ask{Op: "run", Name: "late"}).ID
	ctr := x.d.must(ask{Op: "create", ID: pod, Guest: "late"}).ID
	x.d.must(ask{Op: "start", ID: ctr})
	x.d.kill()
	killed := time.Now()
	eventually(t, "ended", func() bool { return len(x.hosts()) == 1 })
	ended := time.Now()
	x.restart()
	for _, c := range x.check("exit").Containers {
		if c.GetId() != ctr {
			continue
		}
		at := time.Unix(0, c.GetFinishedAt())
		if c.GetState() != runtime.ContainerState_CONTAINER_EXITED || c.GetExitCode() != 7 || c.GetReason() != "Error" {
			t.Errorf("%v", c)
		}
		if at.Before(killed) || at.After(ended) {
			t.Errorf("finished at %v, which is not between %v and %v", at, killed, ended)
		}
	}
	x.clear("exit")
	x.end()
}

// Recovery itself is killed between its steps.
func TestCrashRecovery(t *testing.T) {
	x := newCrashes(t)
	for _, at := range []string{"create.hosted", "remove.recorded"} {
		for n := int64(1); ; n++ {
			x.d.must(ask{Op: "arm", N: map[string]int64{"create.hosted": 10, "remove.recorded": 20}[at]})
			if err := x.life("victim", "idle"); !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			x.d.wait()
			c := x.config
			c.KillAt = n
			d, err := startDaemon(t, c)
			if err == nil { // recovery has no Nth step
				x.d = d
				x.d.must(ask{Op: "arm", N: 1 << 40})
				x.clear(x.step())
				break
			}
			x.restart()
			x.check("recovery, " + x.step())
			x.clear("recovery, " + x.step())
		}
	}
	x.end()
}

// The daemon is killed at random moments of a storm of lives.
func TestCrashStorm(t *testing.T) {
	x := newCrashes(t)
	const rounds, atOnce, most = 50, 6, 150
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	where := map[string]int{}
	for round := range rounds {
		x.d.must(ask{Op: "arm", N: 1 + r.Int64N(most)})
		var wg sync.WaitGroup
		for i := range atOnce {
			wg.Go(func() {
				for n := 0; ; n++ {
					guest := []string{"idle", "exit7", "hello"}[(i+n)%3]
					if err := x.life(fmt.Sprintf("storm-%d-%d-%d", round, i, n), guest); err != nil {
						if !errors.Is(err, errKilled) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			break
		}
		x.d.wait()
		step := x.step()
		where[step]++
		x.restart()
		x.check(step)
		x.clear(step)
		if t.Failed() {
			t.Fatalf("round %d, after step %s", round, step)
		}
	}
	t.Logf("killed at %v", where)
	x.d.must(ask{Op: "arm", N: 1 << 40})
	x.end()
}
