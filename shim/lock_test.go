package shim_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim"
	"github.com/limpet-cri/limpet/shim/spec"
)

// A host can write its own lock, so what a lock says is not believed without
// other signs: a host that was taken over must not have limpetd, which is root,
// end somebody else's process. Whatever it says, End and Remove end the right one.
func TestForgedLocks(t *testing.T) {
	victim := exec.Command("sleep", "1000")
	if err := victim.Start(); err != nil {
		t.Skip("needs sleep: ", err)
	}
	defer func() {
		if err := victim.Process.Signal(unix.Signal(0)); err != nil {
			t.Errorf("the other process was ended: %v", err)
		}
		victim.Process.Kill()
		victim.Wait()
	}()
	for _, c := range []struct {
		name string
		lock func(host string) string
	}{
		{"empty", func(string) string { return "" }},
		{"no numbers", func(string) string { return "host\n" }},
		{"cut", func(host string) string { return strings.TrimSuffix(host, "\n") }},
		{"longer than a lock is", func(host string) string { return host + strings.Repeat("9", 4096) }},
		{"a pid that nobody has", func(string) string { return "2147483647 1\n" }},
		{"its pid, used again", func(host string) string {
			pid, _, _ := strings.Cut(host, " ")
			return pid + " 1\n"
		}},
		{"the pid of another", func(string) string { return started(t, victim.Process.Pid) }},
		{"the pid of init", func(string) string { return started(t, 1) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			ctx := context.Background()
			before := n.census()
			k := n.container(guestSleep)
			h, err := n.sup.Create(ctx, k, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Start(ctx); err != nil {
				t.Fatal(err)
			}
			n.close()
			path := filepath.Join(k.Dir, spec.FileLock)
			lock, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(c.lock(string(lock))), 0o600); err != nil {
				t.Fatal(err)
			}
			n.open()
			if h, err := n.sup.Adopt(ctx, k); err == nil || errors.Is(err, shim.ErrNoHost) {
				t.Errorf("adopted: %v, %v", h, err)
			} else {
				t.Log(err)
			}
			for range 2 { // the second of what has ended
				if err := n.sup.End(ctx, k); err != nil {
					t.Fatal(err)
				}
			}
			// Without a lock there is none that can be told of.
			if h, err := n.sup.Adopt(ctx, k); err == nil {
				if x := n.ended(h); x.Code != spec.CodeKilled {
					t.Errorf("ended with %+v", x)
				}
			} else if !errors.Is(err, shim.ErrNoHost) {
				t.Error(err)
			}
			if err := n.sup.Remove(ctx, k); err != nil {
				t.Fatal(err)
			}
			// It is this process's child, which another daemon's would not be.
			if _, err := unix.Wait4(h.PID(), nil, 0, nil); err != nil && !errors.Is(err, unix.ECHILD) {
				t.Error(err)
			}
			n.compare(before, n.census())
		})
	}
}

// started is what a lock of this process would hold.
func started(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d %s\n", pid, strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[19])
}

// Of a host that is gone, whatever its lock and its record hold: the end is
// told from what is whole, and never taken from nothing.
func TestDamagedFilesOfTheDead(t *testing.T) {
	whole := (&spec.Exit{Code: 42, Reason: spec.ReasonError}).Encode()
	for _, c := range []struct {
		name   string
		lock   string // empty: as it is
		exit   []byte
		code   int32
		reason spec.Reason
	}{
		{"a whole record", "", whole, 42, spec.ReasonError},
		{"a whole record beside a damaged lock", "junk", whole, 42, spec.ReasonError},
		{"a damaged lock", "junk", nil, 137, spec.ReasonUnknown},
		{"a torn record", "", whole[:len(whole)-1], 137, spec.ReasonUnknown},
		{"a record with a wrong checksum", "", append(whole[:len(whole)-1:len(whole)-1], whole[len(whole)-1]^1), 137, spec.ReasonUnknown},
		{"two records", "", append(append([]byte{}, whole...), whole...), 137, spec.ReasonUnknown},
		{"a longer file than a record", "", append(append([]byte{}, whole...), make([]byte, 1<<20)...), 137, spec.ReasonUnknown},
		{"no record", "", nil, 137, spec.ReasonUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			ctx := context.Background()
			k := n.container(guestSleep)
			h, err := n.sup.Create(ctx, k, nil)
			if err != nil {
				t.Fatal(err)
			}
			pid := h.PID()
			n.close()
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
				t.Fatal(err)
			}
			if c.lock != "" {
				if err := os.WriteFile(filepath.Join(k.Dir, spec.FileLock), []byte(c.lock), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Remove(filepath.Join(k.Dir, spec.FileExit)); err != nil {
				t.Fatal(err)
			}
			if c.exit != nil {
				if err := os.WriteFile(filepath.Join(k.Dir, spec.FileExit), c.exit, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			n.open()
			h, err = n.sup.Adopt(ctx, k)
			if err != nil {
				t.Fatal(err)
			}
			if x := n.ended(h); x.Code != c.code || x.Reason != c.reason {
				t.Errorf("ended with %+v, want %d %s", x, c.code, c.reason)
			}
			if err := n.sup.Remove(ctx, k); err != nil {
				t.Error(err)
			}
		})
	}
}

// The record of an earlier container in the same folder is not the next one's.
func TestRecordOfAnEarlierHost(t *testing.T) {
	n := newNode(t)
	ctx := context.Background()
	first := n.container(guestExit3)
	n.ended(n.start(first))
	second := n.container(guestSleep, func(c *spec.Container) {
		c.ID, c.Dir, c.Socket = first.ID, first.Dir, first.Socket
		c.OCI.Linux.CgroupsPath = first.OCI.Linux.CgroupsPath
	})
	h, err := n.sup.Create(ctx, second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Kill(); err != nil {
		t.Fatal(err)
	}
	if x := n.ended(h); x.Code != 137 || x.Reason != spec.ReasonKilled {
		t.Errorf("ended with %+v", x)
	}
}
