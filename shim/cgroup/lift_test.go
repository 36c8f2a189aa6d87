package cgroup

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func quota(us int64) *specs.LinuxResources {
	return &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &us, Period: ptr(uint64(defaultPeriod))}}
}

// pod makes a pod's group with a quota and in it a container's, with the same
// as the kubelet has it, and returns both.
func pod(t *testing.T, h *Hierarchy, path string, us int64) (pod, container *Group) {
	t.Helper()
	pod, err := h.Create(filepath.Dir(path), quota(us))
	if err != nil {
		t.Fatal(err)
	}
	container, err = h.Create(path, quota(us))
	if err != nil {
		t.Fatal(err)
	}
	return pod, container
}

// throttled is how often the group was held back.
func (g *Group) throttled(t *testing.T) uint64 {
	t.Helper()
	n, err := table(g.file("cpu", "cpu.stat", "cpu.stat"))
	if err != nil {
		t.Fatal(err)
	}
	return n["nr_throttled"]
}

// A pod's quota holds a stop back as the container's own does.
func TestLiftReachesThePod(t *testing.T) {
	h := hierarchy(t)
	parent, g := pod(t, h, scratch(t, h), 5000)
	// The control: 30 ms of CPU are six periods' worth.
	p := start(t, g, "spin")
	p.goOn(t)
	p.expect(t, "done\n")
	if n := parent.throttled(t) + g.throttled(t); n < 3 {
		t.Fatalf("the quota does not bite: held back %d times", n)
	}
	p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		t.Fatal(err)
	}

	p = start(t, g, "spin")
	if err := g.LiftCPU(); err != nil {
		t.Fatal(err)
	}
	before := parent.throttled(t) + g.throttled(t)
	p.goOn(t)
	p.expect(t, "done\n")
	// A period that was used up before the lift is counted when it ends.
	if n := parent.throttled(t) + g.throttled(t); n > before+1 {
		t.Errorf("lifted, it was held back %d times", n-before)
	}
	if pids, err := g.Pids(); err != nil || len(pids) != 1 {
		t.Errorf("Pids = %v, %v", pids, err)
	}
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	if err := g.RestoreCPU(); err != nil {
		t.Error(err)
	}
	wantFile(t, parent.file("cpu", "cpu.cfs_quota_us", "cpu.max"), either(h, "5000", "5000 100000"))
}

// needV2 returns a pod of 50 ms, its file, and two containers of it.
func needV2(t *testing.T) (h *Hierarchy, file string, a, b *Group) {
	t.Helper()
	h = hierarchy(t)
	if !h.v2 {
		t.Skip("needs cgroup version 2")
	}
	path := scratch(t, h)
	parent, a := pod(t, h, path, 50000)
	b, err := h.Create(path+"-sibling", quota(50000))
	if err != nil {
		t.Fatal(err)
	}
	return h, filepath.Join(parent.dirV2(), "cpu.max"), a, b
}

const podOwn, podRaised = "50000 100000", "150000 100000"

// wantMarks wants the pod to carry attributes of ours, or none.
func wantMarks(t *testing.T, file string, want bool) {
	t.Helper()
	pod := filepath.Dir(file)
	old, err := mark(pod, markQuota)
	if err != nil {
		t.Fatal(err)
	}
	left, err := stopping(pod)
	if err != nil {
		t.Fatal(err)
	}
	if (old != "" || left) != want {
		t.Errorf("attributes: %q, %v, want some: %v", old, left, want)
	}
}

func call(t *testing.T, f func() error) {
	t.Helper()
	if err := f(); err != nil {
		t.Error(err)
	}
}

func TestLiftIsRestored(t *testing.T) {
	_, file, a, _ := needV2(t)
	call(t, a.RestoreCPU)
	wantFile(t, file, podOwn)
	for range 2 { // a stop, and the kill after it
		call(t, a.LiftCPU)
		wantFile(t, file, podRaised)
	}
	wantMarks(t, file, true)
	for range 2 {
		call(t, a.RestoreCPU)
		wantFile(t, file, podOwn)
	}
	wantMarks(t, file, false)
}

// Two that end at the same time share the one CPU, until both are gone.
func TestLiftOfSiblings(t *testing.T) {
	_, file, a, b := needV2(t)
	call(t, a.LiftCPU)
	call(t, b.LiftCPU)
	wantFile(t, file, podRaised)
	call(t, a.RestoreCPU)
	wantFile(t, file, podRaised)
	call(t, b.RestoreCPU)
	wantFile(t, file, podOwn)
	wantMarks(t, file, false)
}

// A limpetd that was killed in between has left it to the next one.
func TestLiftOutlivesTheDaemon(t *testing.T) {
	_, file, a, _ := needV2(t)
	call(t, a.LiftCPU)
	again, err := Detect(Root)
	if err != nil {
		t.Fatal(err)
	}
	call(t, again.Open(a.Path()).RestoreCPU)
	wantFile(t, file, podOwn)
	wantMarks(t, file, false)
}

func TestRemoveRestores(t *testing.T) {
	_, file, a, b := needV2(t)
	call(t, a.LiftCPU)
	call(t, func() error { return a.Remove(context.Background()) })
	wantFile(t, file, podOwn)
	// One that is gone without a word holds nobody up.
	call(t, b.LiftCPU)
	if err := unix.Setxattr(filepath.Dir(file), markStop+"strayed", nil, 0); err != nil {
		t.Fatal(err)
	}
	call(t, b.RestoreCPU)
	wantFile(t, file, podOwn)
	wantMarks(t, file, false)
}

// The kubelet may resize the pod meanwhile: what it sets stays.
func TestResizeDuringLift(t *testing.T) {
	h, file, a, b := needV2(t)
	call(t, a.LiftCPU)
	resize := func(us int64) {
		t.Helper()
		call(t, func() error { return h.Open(filepath.Dir(a.Path())).Update(quota(us)) })
	}
	resize(20000)
	call(t, a.RestoreCPU)
	wantFile(t, file, "20000 100000")
	wantMarks(t, file, false)

	call(t, a.LiftCPU)
	resize(30000)
	call(t, b.LiftCPU)
	wantFile(t, file, "130000 100000")
	call(t, b.RestoreCPU)
	call(t, a.RestoreCPU)
	wantFile(t, file, "30000 100000")
}

func TestLiftWithoutPodQuota(t *testing.T) {
	h, file, a, _ := needV2(t)
	call(t, func() error { return h.Open(filepath.Dir(a.Path())).Update(quota(-1)) })
	call(t, a.LiftCPU)
	wantFile(t, file, "max 100000")
	call(t, a.RestoreCPU)
	wantFile(t, file, "max 100000")
	wantMarks(t, file, false)
}

func TestRestoreOfNothing(t *testing.T) {
	h := hierarchy(t)
	if err := h.Open("/limpet-test-absent/pod/container").RestoreCPU(); err != nil {
		t.Error(err)
	}
	if err := h.Open("/limpet-test-absent/pod/container").LiftCPU(); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestOneMore(t *testing.T) {
	for own, want := range map[string]string{
		"max 100000": "max 100000", "5000 100000": "105000 100000", "300000 50000": "350000 50000", "": "", "5000": "5000",
	} {
		if got := oneMore(own); got != want {
			t.Errorf("oneMore(%q) = %q, want %q", own, got, want)
		}
	}
}
