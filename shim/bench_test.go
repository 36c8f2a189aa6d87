package shim_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim"
	"github.com/limpet-cri/limpet/shim/spec"
)

// watchLog makes the container's log and returns a descriptor whose read
// returns with the log's first byte.
func (n *node) watchLog(c *spec.Container) (inotify int) {
	if err := os.WriteFile(c.Limpet.LogPath, nil, 0o600); err != nil {
		n.Fatal(err)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		n.Fatal(err)
	}
	if _, err := unix.InotifyAddWatch(fd, c.Limpet.LogPath, unix.IN_MODIFY); err != nil {
		n.Fatal(err)
	}
	return fd
}

type times struct{ ready, start, both []time.Duration }

func quantile(l []time.Duration, q float64) float64 {
	l = slices.Sorted(slices.Values(l))
	return float64(l[int(q*float64(len(l)-1))].Microseconds()) / 1000
}

// BenchmarkPod measures create -> ready, start -> first byte in the log, and
// both, of one container at a time.
func BenchmarkPod(b *testing.B) {
	n := newNode(b)
	ctx := context.Background()
	var t times
	cpu := cpuTime(b)
	for b.Loop() {
		c := n.container(guestSleep)
		log := n.watchLog(c)
		t0 := time.Now()
		h, err := n.sup.Create(ctx, c, nil)
		if err != nil {
			b.Fatal(err)
		}
		t1 := time.Now()
		t2 := time.Now()
		if err := h.Start(ctx); err != nil {
			b.Fatal(err)
		}
		if _, err := unix.Read(log, make([]byte, 4096)); err != nil {
			b.Fatal(err)
		}
		t3 := time.Now()
		t.ready, t.start, t.both = append(t.ready, t1.Sub(t0)), append(t.start, t3.Sub(t2)), append(t.both, t1.Sub(t0)+t3.Sub(t2))
		b.StopTimer()
		unix.Close(log) // waits for a grace period of the kernel
		if err := n.sup.Remove(ctx, c); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/1000/float64(len(t.both)), "cpu-ms")
	b.ReportMetric(quantile(t.ready, 0), "ready-min-ms")
	b.ReportMetric(quantile(t.ready, .5), "ready-ms")
	b.ReportMetric(quantile(t.start, .5), "first-byte-ms")
	b.ReportMetric(quantile(t.both, .5), "both-ms")
	b.ReportMetric(quantile(t.both, .9), "both-p90-ms")
}

// cpuTime is what this process and the hosts that it reaped have used. It
// counts the removals too, but no neighbour's load.
func cpuTime(b *testing.B) time.Duration {
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var r unix.Rusage
		if err := unix.Getrusage(who, &r); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	return sum
}

// BenchmarkBurst measures 50 containers at once, until all gave their byte.
func BenchmarkBurst(b *testing.B) {
	n := newNode(b)
	ctx := context.Background()
	var walls []time.Duration
	for b.Loop() {
		var all []*spec.Container
		for range 50 {
			all = append(all, n.container(guestSleep))
		}
		began := time.Now()
		n.many(ctx, all)
		walls = append(walls, time.Since(began))
		b.StopTimer()
		for _, c := range all {
			if err := n.sup.Remove(ctx, c); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
	b.ReportMetric(quantile(walls, .5), "50-at-once-ms")
}

// many creates and starts containers at once and waits for their output.
func (n *node) many(ctx context.Context, all []*spec.Container) []*shim.Host {
	hosts := make([]*shim.Host, len(all))
	var wg sync.WaitGroup
	for i, c := range all {
		wg.Go(func() {
			h, err := n.sup.Create(ctx, c, nil)
			if err == nil {
				err = h.Start(ctx)
			}
			if err != nil {
				n.Error(err)
				return
			}
			hosts[i] = h
		})
	}
	wg.Wait()
	for _, c := range all {
		n.awaitOutput(c, "wait")
	}
	return hosts
}

// BenchmarkIdle measures what an idle container costs when there are 100.
func BenchmarkIdle(b *testing.B) {
	n := newNode(b)
	ctx := context.Background()
	sum := map[string]float64{}
	const pods = 100
	for b.Loop() {
		clear(sum)
		var all []*spec.Container
		for range pods {
			all = append(all, n.container(guestSleep))
		}
		for _, h := range n.many(ctx, all) {
			if h == nil {
				b.Fatal("a host is missing")
			}
			n.addMemory(sum, h)
		}
		for _, c := range all {
			if err := n.sup.Remove(ctx, c); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, k := range []string{"Pss", "Private_Dirty", "threads", "fds", "memcg"} {
		b.ReportMetric(sum[k]/pods, k+"/pod")
	}
}

func (n *node) addMemory(sum map[string]float64, h *shim.Host) {
	proc := "/proc/" + strconv.Itoa(h.PID())
	f, err := os.Open(proc + "/smaps_rollup")
	if err != nil {
		n.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kb float64
		name, rest, _ := strings.Cut(s.Text(), ":")
		if _, err := fmt.Sscanf(rest, "%f kB", &kb); err == nil {
			sum[name] += kb
		}
	}
	sum["threads"] += float64(len(n.list(proc + "/task")))
	sum["fds"] += float64(len(n.list(proc + "/fd")))
	st, err := h.Stats()
	if err != nil {
		n.Fatal(err)
	}
	sum["memcg"] += float64(st.MemoryUsage) / 1024
}
