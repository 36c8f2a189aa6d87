// Command bench measures Limpet beside containerd and runc: the same machine,
// client, log path and network, pod by pod in turns (A B B A), the first pods
// discarded, medians. It writes build/bench/pods.json, a list of {metric, unit,
// ours, theirs, ratio} where a ratio above 1 means that ours is better, and
// prints a table.
//
// Ours runs guests/forever.wat, theirs test/bench/native/idle.c: both write one
// line and wait. Both use the node's network, so that no network set-up is
// measured on either side.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/limpet-cri/limpet/test/node"
)

// plan is how much is measured.
type plan struct {
	warm, pods    int // pod_start, pod_stop: pods per side
	bursts, burst int // burst_50
	idle          int // memory_per_idle_pod
	settle        time.Duration
}

func main() {
	p := plan{}
	flag.IntVar(&p.warm, "warm", 3, "pods per side before the measuring")
	flag.IntVar(&p.pods, "n", 40, "pods per side, one after the other")
	flag.IntVar(&p.bursts, "bursts", 3, "bursts per side")
	flag.IntVar(&p.burst, "burst", 50, "pods in a burst")
	flag.IntVar(&p.idle, "idle", 100, "idle pods for the memory figure")
	flag.DurationVar(&p.settle, "settle", 5*time.Second, "wait before memory is read")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, p); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, p plan) (err error) {
	n, err := node.Start(ctx, node.Options{})
	if err != nil {
		return err
	}
	defer func() {
		if e := n.Close(); e != nil && err == nil {
			err = e
		}
	}()
	if err := node.MakeCgroup(n.Cgroup); err != nil {
		return err
	}
	ours, err := limpet(ctx, n)
	if err != nil {
		return err
	}
	theirs, err := containerd(ctx, n)
	if err != nil {
		return err
	}
	defer theirs.stop()
	fmt.Printf("%s beside %s\n", ours.version, theirs.version)
	b := &bench{plan: p, sides: [2]*side{ours, theirs}, logs: filepath.Join(n.Dir, "logs"), cgroup: n.Cgroup}
	results, err := b.measure(ctx)
	if err != nil {
		return fmt.Errorf("%w\nlimpetd's log says:\n%s", err, n.LogTail())
	}
	return report(results, ours, theirs)
}

// measure runs the three parts in order.
func (b *bench) measure(ctx context.Context) ([]result, error) {
	sequence, err := b.sequence(ctx)
	if err != nil {
		return nil, err
	}
	bursts, err := b.bursts(ctx)
	if err != nil {
		return nil, err
	}
	memory, err := b.memory(ctx)
	if err != nil {
		return nil, err
	}
	return append(append(sequence, bursts), memory), nil
}
