package pod_test

import (
	"fmt"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// holdings is all that pods could leave behind: on the node, and in the daemon,
// which is this process. Each line is one kind of thing with its count or name.
func (b *bench) holdings() []string {
	b.Helper()
	l := b.inventory(b)
	leases, err := b.images.Leased(b.Context())
	b.must("leases", err)
	for _, id := range leases {
		l = append(l, "lease "+id)
	}
	for what, n := range descriptors(b) {
		l = append(l, fmt.Sprintf("%d descriptors of %s", n, what))
	}
	for _, pid := range zombies(b) {
		l = append(l, "zombie "+pid)
	}
	for _, s := range b.ListPodSandbox(nil) {
		l = append(l, "listed sandbox "+s.GetId())
	}
	for _, c := range b.ListContainers(nil) {
		l = append(l, "listed container "+c.GetId())
	}
	l = append(l, fmt.Sprintf("%d goroutines", goruntime.NumGoroutine()))
	slices.Sort(l)
	return l
}

// descriptors counts this process's open files, by what they are of.
func descriptors(t testing.TB) map[string]int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	l := map[string]int{}
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil {
			continue // the folder's own
		}
		if kind, _, ok := strings.Cut(to, ":["); ok {
			to = kind // sockets, pipes and namespaces have numbers
		}
		l[to]++
	}
	return l
}

// zombies returns the children of this process that nobody waited for.
func zombies(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var l []string
	for _, e := range entries {
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if f[0] == "Z" && f[1] == strconv.Itoa(os.Getpid()) {
			l = append(l, e.Name())
		}
	}
	return l
}

// After a hundred pods the node and the daemon are as before: no process, dead
// or alive, no cgroup, mount, namespace, file, lease, descriptor or goroutine.
func TestRealLeaks(t *testing.T) {
	b := newBench(t)
	for _, g := range []string{"hello", "files", "spin", "foreign"} {
		b.pull(g)
	}
	for i := range 4 {
		b.must("life", b.tryLife(fmt.Sprint("warm-", i), i))
	}
	b.settled()
	before := b.holdings()
	const pods, atOnce = 100, 4
	began := time.Now()
	work, done := make(chan int), make(chan error, pods)
	for range atOnce {
		go func() {
			for i := range work {
				done <- b.tryLife(fmt.Sprint("leak-", i), i)
			}
		}()
	}
	for i := range pods {
		work <- i
	}
	close(work)
	for range pods {
		b.must("life", <-done)
	}
	t.Logf("%d pods made and unmade in %v", pods, time.Since(began))
	without := func(l, m []string) []string {
		return slices.DeleteFunc(slices.Clone(l), func(s string) bool { return slices.Contains(m, s) })
	}
	// Connections of the registry's client and the runtime's own come and go,
	// and what a library left to the collector goes: nothing more is to be here.
	var after []string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); b.settled() {
		if after = without(b.holdings(), before); len(after) == 0 {
			return
		}
	}
	t.Errorf("left %q, where before there were %q", after, before)
}

// settled lets goroutines that have nothing left to do end.
func (b *bench) settled() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	last := -1
	for n := goruntime.NumGoroutine(); n != last; n = goruntime.NumGoroutine() {
		last = n
		<-tick.C
	}
}

// tryLife leads one of four lives: one that ends by itself, one with a root
// file system that is stopped, one that is killed with its sandbox, and one
// whose container cannot be made.
func (b *bench) tryLife(name string, kind int) error {
	ctx := b.Context()
	guest := []string{"hello", "files", "spin", "foreign"}[kind%4]
	pod, err := b.RunPodSandbox(ctx, b.sandbox(name), "")
	if err != nil {
		return err
	}
	ctr, err := b.CreateContainer(ctx, &runtime.CreateContainerRequest{PodSandboxId: pod, Config: b.container(guest)})
	if guest == "foreign" && err != nil {
		return b.RemovePodSandbox(ctx, pod)
	}
	if err != nil {
		return err
	}
	var steps []func() error
	steps = append(steps, func() error { return b.StartContainer(ctx, ctr) })
	if guest != "spin" {
		steps = append(steps, func() error { return b.StopContainer(ctx, ctr, 5) },
			func() error { return b.StopPodSandbox(ctx, pod) }, func() error { return b.RemoveContainer(ctx, ctr) })
	}
	steps = append(steps, func() error { return b.RemovePodSandbox(ctx, pod) })
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
