package pod_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

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
	x.restart(x.config)
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

// Recovery itself is killed between its steps, twice in a row, while hosts that
// nobody watches are killed too.
func TestCrashRecovery(t *testing.T) {
	x := newCrashes(t)
	seen := map[string]int{}
	for _, c := range []struct {
		at       string
		life     life
		guest    string
		killHost bool
	}{
		{"run.networked", polite, "idle", false}, {"create.hosted", polite, "files", false}, {"host.born", polite, "idle", false},
		{"start.told", polite, "idle", true}, {"exit.seen", polite, "idle", false}, {"remove.recorded", polite, "files", false},
		{"remove-sandbox.recorded", rude, "spin", false}, {"unhost.ended", vain, "", false},
	} {
		for n := int64(1); ; n++ {
			x.d.must(ask{Op: "arm", Name: c.at})
			if x.live(c.life, c.guest) {
				t.Fatalf("a life without %s", c.at)
			}
			if c.killHost {
				x.killOthers()
			}
			cut := x.config
			cut.KillAt = n
			d, err := startDaemon(t, cut)
			if err == nil { // recovery has no Nth step
				x.d = d
				x.d.must(ask{Op: "arm", N: 1 << 40})
				x.check(c.at)
				x.clear(c.at)
				break
			}
			seen[x.step()]++
			if d, err := startDaemon(t, cut); err == nil {
				x.d = d // less was left to do
				x.d.must(ask{Op: "arm", N: 1 << 40})
			} else {
				seen[x.step()]++
				x.restart(x.config)
			}
			when := fmt.Sprintf("%s, then while recovering at %s", c.at, x.step())
			x.check(when)
			x.clear(when)
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	t.Logf("killed at %v", seen)
	for _, step := range []string{"recover.container", "sweep.container", "sweep.sandbox", "sweep.unnetted", "discard.released", "unhost.ended"} {
		if seen[step] == 0 {
			t.Errorf("recovery was never killed at %s", step)
		}
	}
	x.end()
}

// killOthers kills every host but the steady one, with nobody there to see it.
func (x *crashes) killOthers() {
	x.Helper()
	for _, p := range x.hosts() {
		if p == x.pid {
			continue
		}
		pid, err := strconv.Atoi(p)
		if err == nil {
			err = unix.Kill(pid, unix.SIGKILL)
		}
		if err != nil {
			x.Fatal(err)
		}
	}
	eventually(x, "ended", func() bool { return len(x.hosts()) == 1 })
}

// The daemon is killed at random points of a storm of lives: half of them are
// borders between steps, the others any moment.
func TestCrashStorm(t *testing.T) {
	x := newCrashes(t)
	const rounds, atOnce, most = 50, 6, 250
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	where := map[string]int{}
	for round := range rounds {
		atStep := round%2 == 0
		if atStep {
			x.d.must(ask{Op: "arm", N: 1 + r.Int64N(most)})
		} else {
			time.AfterFunc(time.Duration(r.Int64N(int64(150*time.Millisecond))), func() { _ = x.d.cmd.Process.Kill() })
		}
		var wg sync.WaitGroup
		for i := range atOnce {
			wg.Go(func() {
				for n := 0; ; n++ {
					guest := []string{"idle", "exit7", "hello", "files"}[(i+n)%4]
					l := []life{polite, polite, rude, vain}[rand.IntN(4)]
					if err := l(x, fmt.Sprintf("storm-%d-%d-%d", round, i, n), guest); err != nil {
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
		step := "any moment"
		if atStep {
			step = x.step()
		}
		where[step]++
		x.restart(x.config)
		x.check(step)
		x.clear(step)
		if t.Failed() {
			t.Fatalf("round %d, after %s", round, step)
		}
	}
	t.Logf("killed at %v", where)
	x.d.must(ask{Op: "arm", N: 1 << 40})
	x.end()
}
