// Command demo shows Limpet at work on one machine: it starts the built limpetd
// in a scratch folder beside a registry on loopback, pushes six guests, pulls
// them and runs each as a pod, all through the CRI socket as a kubelet would,
// and prints what became of them.
//
//	demo [-keep]
//
// With -keep everything stays until Ctrl-C, so that the crictl lines it prints
// can be typed in another terminal.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/limpet-cri/limpet/test/node"
)

func main() {
	keep := flag.Bool("keep", false, "leave everything running until Ctrl-C")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// hangs is when the demo gives up. It takes ten seconds; a machine that is slow
// is no failure.
const hangs = 5 * time.Minute

var errInterrupted = errors.New("interrupted")

func run(ctx context.Context, keep bool) (err error) {
	if os.Geteuid() != 0 {
		return fmt.Errorf("needs root: limpetd makes namespaces, cgroups and mounts for its pods")
	}
	limit, cancel := context.WithTimeout(ctx, hangs)
	defer cancel()
	begin := time.Now()
	n, err := node.Start(limit, node.Options{})
	if err != nil {
		return err
	}
	defer func() {
		if e := n.Close(); e != nil && err == nil {
			err = e
		}
		if err == nil || errors.Is(err, errInterrupted) {
			fmt.Printf("\nCleaned up: no process, mount, cgroup or file is left of it.\n")
		}
	}()
	fmt.Printf("limpetd answers on %s (%s after its start), a registry on %s.\n\n", n.Socket, short(time.Since(begin)), n.Registry)
	if err := show(limit, n); ctx.Err() != nil {
		return errInterrupted
	} else if err != nil {
		return fmt.Errorf("%w\nlimpetd's log says:\n%s", err, n.LogTail())
	}
	if err := byHand(n, keep); err != nil {
		return err
	}
	if keep {
		fmt.Println("\nEverything stays until you press Ctrl-C.")
		<-ctx.Done()
	}
	return nil
}

// show pulls the images, runs the pods and prints the table.
func show(ctx context.Context, n *node.Node) error {
	acts, err := prepare(n)
	if err != nil {
		return err
	}
	fmt.Println("Pushed with limpet push, pulled through CRI (the module is compiled at the pull, once per node):")
	for i := range acts {
		if err := pull(ctx, n, &acts[i]); err != nil {
			return err
		}
	}
	fmt.Print(legend)
	header()
	bad := 0
	for i := range acts {
		if err := play(ctx, n, &acts[i]); err != nil {
			return fmt.Errorf("pod %s: %w", acts[i].name, err)
		}
		if !acts[i].row() {
			bad++
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d pods did not end as they should", bad, len(acts))
	}
	fmt.Printf("\nAll %d ended as they should.\n", len(acts))
	return nil
}
