package shim_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// confined waits for want compilers that have all of their confinement, and
// returns their pids.
func (n *node) confined(ctx context.Context, want int) (pids []int) {
	n.Helper()
	for ; ctx.Err() == nil; runtime.Gosched() {
		pids = nil
		for _, h := range n.hosts() {
			pid, err := strconv.Atoi(strings.Fields(h)[0])
			if err != nil {
				n.Fatal(err)
			}
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			if err == nil && strings.Contains(string(b), "Seccomp:\t2\n") {
				pids = append(pids, pid)
			}
		}
		if len(pids) == want {
			return pids
		}
	}
	n.Fatalf("%d compilers are confined, want %d", len(pids), want)
	return nil
}

// Each module is compiled by a child of its own, which has nothing but that
// module and a file for its code: no user, no rights, no network, no other
// process, bounds of memory, time and files.
func TestCompilerIsConfined(t *testing.T) {
	n := newNode(t)
	n.close()
	n.cfg.Compilers, n.cfg.CompileMemory = 2, 3<<30
	n.open()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ended := make(chan error, 2)
	own := map[string]bool{}
	for range 2 {
		in, out := n.files(hostile(500_000)) // ample time for a look
		own[in.Name()], own[out.Name()] = true, true
		go func() { ended <- n.sup.Compile(ctx, in, out, nil) }()
	}
	pids := n.confined(ctx, 2)
	seen := map[string]int{}
	for _, pid := range pids {
		got := n.status(pid)
		for k, want := range map[string]string{
			"Uid": "65534 65534 65534 65534", "Gid": "65534 65534 65534 65534", "Groups": "", "NoNewPrivs": "1", "Seccomp": "2",
			"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapBnd": "0000000000000000", "CapAmb": "0000000000000000",
		} {
			if got[k] != want {
				t.Errorf("%s is %q, want %q", k, got[k], want)
			}
		}
		for _, ns := range []string{"net", "pid", "ipc", "uts", "mnt"} {
			if n.namespace(pid, ns) == n.namespace(os.Getpid(), ns) {
				t.Errorf("it shares the node's %s namespace", ns)
			}
		}
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/route", pid)); err != nil || strings.Count(string(b), "\n") > 1 { // a head line, if any
			t.Errorf("its network has routes: %s, %v", b, err)
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`address space +` + fmt.Sprint(n.cfg.CompileMemory), `file size +1073741824`, `open files +64`, `cpu time +[0-9]+`} {
			if !regexp.MustCompile(`(?m)^Max ` + want + ` `).Match(b) {
				t.Errorf("limits without %q:\n%s", want, b)
			}
		}
		for _, e := range n.list(fmt.Sprintf("/proc/%d/fd", pid)) {
			to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e))
			switch {
			case err != nil: // closed just now
			case own[to]:
				seen[to]++
			case to == "/dev/null", strings.HasPrefix(to, "pipe:"), strings.HasPrefix(to, "anon_inode:"), strings.HasPrefix(to, "/memfd:"):
			default:
				t.Errorf("it has %s open", to)
			}
		}
	}
	for name := range own {
		if seen[name] != 1 {
			t.Errorf("%s is open in %d compilers, want one", name, seen[name])
		}
	}
	cancel()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	if err := unix.Kill(pids[0], 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("a compiler is left: %v", err)
	}
}
