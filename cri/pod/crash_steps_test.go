package pod_test

import (
	"slices"
	"strings"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// stood is what is listed of a pod: the state of its container, or nothing.
type stood struct {
	sandbox   bool
	container string
}

// Where a pod stands after the restart of a daemon that was killed at a step:
// what was not promised yet is gone, what was is there.
var stands = map[string]stood{
	"run.reserved": {}, "run.recorded": {}, "run.networked": {}, "run.files": {}, "run.ready": {true, ""},
	"create.reserved": {true, ""}, "create.recorded": {true, ""}, "create.prepared": {true, ""}, "create.log": {true, ""}, "create.rooted": {true, ""},
	"host.claimed": {true, ""}, "host.opened": {true, ""}, "host.listens": {true, ""}, "host.files": {true, ""}, "host.ordered": {true, ""},
	"host.grouped": {true, ""}, "host.born": {true, ""}, "host.ready": {true, ""}, "create.hosted": {true, ""}, "create.saved": {true, "CREATED"},
	"start.recorded": {true, "CREATED"}, "start.told": {true, "RUNNING"}, "start.saved": {true, "RUNNING"},
	"stop.recorded": {true, "RUNNING"}, "stop.signalled": {true, "EXITED"}, "stop.kill": {true, "RUNNING"}, "stop.killed": {true, "EXITED"},
	"exit.seen": {true, "EXITED"}, "exit.recorded": {true, "EXITED"},
	"remove.stopped": {true, "EXITED"}, "remove.recorded": {true, ""},
	"discard.released": {true, ""}, "unhost.ended": {true, ""}, "unhost.ungrouped": {true, ""}, "unhost.unsocketed": {true, ""}, "unhost.done": {true, ""},
	"discard.unhosted": {true, ""}, "discard.unlayered": {true, ""}, "discard.done": {true, ""}, "undo.begun": {true, ""}, "undo.step": {true, ""}, "remove.done": {true, ""},
	"stop-sandbox.stopped": {true, ""}, "stop-sandbox.recorded": {true, ""}, "stop-sandbox.done": {true, ""},
	"remove-sandbox.stopped": {true, ""}, "remove-sandbox.emptied": {true, ""}, "remove-sandbox.recorded": {}, "remove-sandbox.done": {},
}

// Of a sandbox that is removed with its container, the container is still there
// at some steps.
var standsRude = map[string]stood{
	"stop-sandbox.stopped": {true, "EXITED"}, "stop-sandbox.recorded": {true, "EXITED"}, "stop-sandbox.done": {true, "EXITED"},
	"remove-sandbox.stopped": {true, "EXITED"},
}

// The daemon is killed between every two steps of run, create, start, stop,
// remove, stop-sandbox and remove-sandbox, those that fail included. After a
// restart what was promised goes on, and the same life can be led again under
// the same name.
func TestCrashEveryStep(t *testing.T) {
	x := newCrashes(t)
	seen := map[string]bool{}
	for _, c := range []struct {
		name  string
		life  life
		guest string
		other map[string]stood
	}{{"polite", polite, "files", nil}, {"rude", rude, "spin", standsRude}, {"vain", vain, "", nil}} {
		var steps []string
		for n := int64(1); ; n++ {
			x.d.must(ask{Op: "arm", N: n})
			if x.live(c.life, c.guest) {
				break // there is no Nth step
			}
			step := x.step()
			steps, seen[step] = append(steps, step), true
			x.restart(x.config)
			want, ok := c.other[step]
			if !ok {
				want, ok = stands[step]
			}
			if !ok {
				t.Errorf("step %s is not in the table", step)
			}
			id, state := x.halfMade(step, x.check(step), want)
			x.goOn(step, id, state)
			x.clear(step)
			if t.Failed() {
				t.Fatalf("%s, after step %s", c.name, step)
			}
		}
		x.d.must(ask{Op: "arm", N: 1 << 40})
		t.Logf("%s: killed at %s", c.name, strings.Join(steps, " "))
	}
	for step := range stands {
		if seen[step] {
			continue
		}
		// Steps of two goroutines change places, and hide from the count.
		x.d.must(ask{Op: "arm", Name: step})
		if x.live(polite, "files") {
			t.Errorf("never killed at %s", step)
			continue
		}
		x.restart(x.config)
		x.check(step)
		x.clear(step)
	}
	x.end()
}

// halfMade checks what a restart makes of a step, and returns the container's
// id and state if it is listed.
func (x *crashes) halfMade(step string, l answer, want stood) (id, state string) {
	x.Helper()
	var is stood
	for _, s := range l.Sandboxes {
		is.sandbox = is.sandbox || s.GetId() != x.steadyPod
	}
	for _, c := range l.Containers {
		if c.GetId() != x.steady {
			id, is.container = c.GetId(), strings.TrimPrefix(c.GetState().String(), "CONTAINER_")
		}
	}
	if (step == "stop.signalled" || step == "stop.killed") && is.container == "RUNNING" {
		return id, "" // it was told, and is about to end
	}
	if is != want {
		x.Errorf("killed at %s: sandbox %v, container %q; want %v, %q", step, is.sandbox, is.container, want.sandbox, want.container)
	}
	return id, is.container
}

// goOn does what a kubelet does next with a container: start it if it is
// created, stop it if it runs. A stop whose signal may never have been sent is
// heard all the same.
func (x *crashes) goOn(step, id, state string) {
	x.Helper()
	if state == "CREATED" {
		x.d.must(ask{Op: "start", ID: id})
		state = "RUNNING"
	}
	if state != "RUNNING" {
		return
	}
	x.d.must(ask{Op: "stop", ID: id, N: 3600})
	l := x.d.must(ask{Op: "list"})
	i := slices.IndexFunc(l.Containers, func(c *runtime.ContainerStatus) bool { return c.GetId() == id })
	if i < 0 || l.Containers[i].GetExitCode() != 143 {
		x.Errorf("killed at %s, then stopped: %v", step, l.Containers)
	}
}
