package shim_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim"
	"github.com/limpet-cri/limpet/shim/cgroup"
	"github.com/limpet-cri/limpet/shim/logs"
	"github.com/limpet-cri/limpet/shim/spec"
)

// helperEnv makes this binary a daemon that supervises and can be killed.
const helperEnv = "LIMPET_SHIM_TEST_HELPER"

// job is what a helper does.
type job struct {
	Host, Run  string
	Containers []*spec.Container
	// Storm lets it create, start, stop and remove them over and over; else it
	// starts each once and waits.
	Storm bool
}

// helper never returns but by being killed, or when its parent is gone.
func helper(file string) {
	must := func(err error) {
		if err != nil {
			fmt.Println("FAILED", err)
			os.Exit(1)
		}
	}
	b, err := os.ReadFile(file)
	must(err)
	var j job
	must(json.Unmarshal(b, &j))
	h, err := cgroup.Detect(cgroup.Root)
	must(err)
	s, err := shim.New(shim.Config{HostPath: j.Host, RunDir: j.Run, Cgroups: h}, slog.New(slog.NewTextHandler(os.Stdout, nil)))
	must(err)
	ctx := context.Background()
	for round := 0; ; round++ {
		for _, c := range j.Containers {
			h, err := s.Create(ctx, c, nil)
			must(err)
			must(h.Start(ctx))
			if j.Storm {
				fmt.Println("round", round)
				must(h.Stop(ctx, unix.SIGTERM))
				<-h.Done()
				must(s.Remove(ctx, c))
			}
		}
		if !j.Storm {
			break
		}
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin) // until killed
}

// supervise starts a helper and returns once it said a line that begins with
// word, with the function that kills it.
func (n *node) supervise(j job, word string) (kill func()) {
	n.Helper()
	j.Host, j.Run = n.cfg.HostPath, n.cfg.RunDir
	b, err := json.Marshal(&j)
	if err != nil {
		n.Fatal(err)
	}
	file := filepath.Join(n.dir, "job")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		n.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"="+file)
	in, err := cmd.StdinPipe()
	if err != nil {
		n.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), word) {
			break
		}
		n.Log(lines.Text())
	}
	if !strings.HasPrefix(lines.Text(), word) {
		n.Fatalf("the helper ended: %v", cmd.Wait())
	}
	return func() {
		cmd.Process.Kill()
		cmd.Wait()
		in.Close()
	}
}

// Kill -9 of the supervisor: what runs runs on, what exits meanwhile is told
// with its own code, and the log has no gap.
func TestAdoptAfterKill(t *testing.T) {
	n := newNode(t)
	ctx := context.Background()
	running := n.container(guestCount)
	exits := n.container(wat(`(call $sleep (i64.const 200000000)) (call $proc_exit (i32.const 42))`))
	killed := n.container(guestSleep)
	ready := n.container(guestHello)
	kill := n.supervise(job{Containers: []*spec.Container{running, exits, killed}}, "ready")
	n.sup.Close() // only the helper supervises
	kill()
	seen := n.ticks(running)

	// While nobody watches, one exits and one is killed.
	n.awaitEmpty(exits)
	pid := n.pid(killed)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.awaitEmpty(killed)

	eventually(n, "the running one goes on", func() bool { return n.ticks(running) > seen+20 })
	n.open()
	h, err := n.sup.Adopt(ctx, running)
	if err != nil {
		t.Fatal(err)
	}
	if h.Phase() != spec.PhaseRunning || h.PID() != n.pid(running) {
		t.Errorf("phase %d, pid %d", h.Phase(), h.PID())
	}
	if again, err := n.sup.Adopt(ctx, running); err != nil || again != h {
		t.Errorf("adopted twice: %v", err)
	}
	for c, want := range map[*spec.Container]spec.Exit{
		exits:  {Code: 42, Reason: spec.ReasonError},
		killed: {Code: 137, Reason: spec.ReasonUnknown},
	} {
		h, err := n.sup.Adopt(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		x := n.ended(h)
		if x.Code != want.Code || x.Reason != want.Reason || x.At.After(time.Now()) || time.Since(x.At) > time.Minute {
			t.Errorf("ended with %+v, want %+v", x, want)
		}
	}
	if _, err := n.sup.Adopt(ctx, ready); !errors.Is(err, shim.ErrNoHost) {
		t.Errorf("a container that was never made: %v", err)
	}
	if err := h.Stop(ctx, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if x := n.ended(h); x.Code != 143 {
		t.Errorf("the running one ended with %+v", x)
	}
	n.checkTicks(running, 10*time.Second)
	for _, c := range []*spec.Container{running, exits, killed} {
		if err := n.sup.Remove(ctx, c); err != nil {
			t.Error(err)
		}
	}
}

// A host that was adopted is nobody's child; how it was killed is told by the
// kernel if it is new enough, and not guessed otherwise.
func TestKilledAfterAdoption(t *testing.T) {
	n := newNode(t)
	ctx := context.Background()
	byOther, byUs := n.container(guestSleep), n.container(guestSpin)
	kill := n.supervise(job{Containers: []*spec.Container{byOther, byUs}}, "ready")
	kill()
	h, err := n.sup.Adopt(ctx, byOther)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(h.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	x := n.ended(h)
	if x.Code != 137 || x.Reason != spec.ReasonKilled && x.Reason != spec.ReasonUnknown {
		t.Errorf("killed by another, it ended with %+v", x)
	}
	t.Log(x.Reason, x.Message)
	if h, err = n.sup.Adopt(ctx, byUs); err != nil {
		t.Fatal(err)
	}
	if err := h.Kill(); err != nil {
		t.Fatal(err)
	}
	if x := n.ended(h); x.Code != 137 || x.Reason != spec.ReasonKilled {
		t.Errorf("killed by us, it ended with %+v", x)
	}
	for _, c := range []*spec.Container{byOther, byUs} {
		if err := n.sup.Remove(ctx, c); err != nil {
			t.Error(err)
		}
	}
}

// pid reads a container's lock.
func (n *node) pid(c *spec.Container) int {
	n.Helper()
	b, err := os.ReadFile(filepath.Join(c.Dir, spec.FileLock))
	if err != nil {
		n.Fatal(err)
	}
	var pid int
	var start uint64
	if _, err := fmt.Sscanf(string(b), "%d %d\n", &pid, &start); err != nil {
		n.Fatalf("lock holds %q: %v", b, err)
	}
	return pid
}

// awaitEmpty waits until no process holds the container's lock.
func (n *node) awaitEmpty(c *spec.Container) {
	n.Helper()
	f, err := os.OpenFile(filepath.Join(c.Dir, spec.FileLock), os.O_RDWR, 0)
	if err != nil {
		n.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		n.Fatal(err)
	}
}

// ticks counts what such a guest has printed so far.
func (n *node) ticks(c *spec.Container) int {
	n.Helper()
	b, err := os.ReadFile(c.Limpet.LogPath)
	if err != nil {
		n.Fatal(err)
	}
	return bytes.Count(b, []byte("\n"))
}

// checkTicks looks for a gap in the log of a guest that prints without end.
func (n *node) checkTicks(c *spec.Container, gap time.Duration) {
	n.Helper()
	b, err := os.ReadFile(c.Limpet.LogPath)
	if err != nil {
		n.Fatal(err)
	}
	var last time.Time
	lines := 0
	for ; len(b) > 0; lines++ {
		e, rest, err := logs.Parse(b)
		if err != nil || string(e.Text) != "tick" {
			n.Fatalf("line %d: %v, %+v", lines, err, e)
		}
		if !last.IsZero() && e.Time.Sub(last) > gap {
			n.Errorf("line %d: nothing for %v", lines, e.Time.Sub(last))
		}
		last, b = e.Time, rest
	}
	n.Logf("%d lines", lines)
}

// A host that was ready when its supervisor went is started by the next one;
// one that runs is stopped by it, and its log reopened.
func TestAdoptAfterClose(t *testing.T) {
	n := newNode(t)
	ctx := context.Background()
	ready, runs := n.container(guestExit3), n.container(guestCount)
	old := n.create(ready)
	n.start(runs)
	n.close()
	select {
	case <-old.Done():
		t.Fatal("Close ended a host")
	default:
	}
	if err := old.Kill(); !errors.Is(err, shim.ErrClosed) {
		t.Errorf("kill after Close: %v", err)
	}

	n.open()
	h, err := n.sup.Adopt(ctx, ready)
	if err != nil {
		t.Fatal(err)
	}
	if h.Phase() != spec.PhaseReady {
		t.Fatalf("phase %d", h.Phase())
	}
	if err := h.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if x := n.ended(h); x.Code != 3 {
		t.Errorf("ended with %+v", x)
	}

	h, err = n.sup.Adopt(ctx, runs)
	if err != nil {
		t.Fatal(err)
	}
	first := runs.Limpet.LogPath
	if err := os.Rename(first, first+".1"); err != nil {
		t.Fatal(err)
	}
	if err := h.ReopenLog(ctx); err != nil {
		t.Fatal(err)
	}
	n.awaitOutput(runs, "tick")
	if err := h.Stop(ctx, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if x := n.ended(h); x.Code != 143 {
		t.Errorf("ended with %+v", x)
	}
	n.checkTicks(runs, 10*time.Second)
}

// A storm of creates, starts, stops and removes, killed at random points:
// whatever is found afterwards can be adopted or removed, and nothing is left.
func TestStormOfKills(t *testing.T) {
	rounds := 50
	if testing.Short() {
		rounds = 10
	}
	n := newNode(t)
	ctx := context.Background()
	var all []*spec.Container
	for range 3 {
		all = append(all, n.container(guestSleep))
	}
	before := n.census()
	found := map[string]int{}
	for range rounds {
		kill := n.supervise(job{Containers: all, Storm: true}, "round")
		timer := time.NewTimer(time.Duration(rand.IntN(20_000)) * time.Microsecond)
		<-timer.C
		kill()
		for _, c := range all {
			h, err := n.sup.Adopt(ctx, c)
			switch {
			case errors.Is(err, shim.ErrNoHost):
				found["nothing"]++
			case err != nil:
				t.Fatal(err)
			case h.Phase() == spec.PhaseEnding:
				found["ended, "+string(h.Exit().Reason)]++
			default:
				found[fmt.Sprint("alive in phase ", h.Phase())]++
			}
			if err := n.sup.Remove(ctx, c); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Log(found)
	n.awaitReaped()
	n.compare(before, n.census())
}

// awaitReaped waits until init has reaped the hosts that were orphaned.
func (n *node) awaitReaped() {
	n.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-tick.C {
		if len(n.hosts()) == 0 {
			return
		}
	}
}
