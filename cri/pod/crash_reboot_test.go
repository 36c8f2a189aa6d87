package pod_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/shim/cgroup"
)

// A machine that goes down takes along every process, mount, namespace and
// cgroup, and what is in memory: below run, unless that is on a disk. Below
// root there are images and writable layers still. The next daemon sees another
// boot.
func TestCrashReboot(t *testing.T) {
	for name, onDisk := range map[string]bool{"run in memory": false, "run on a disk": true} {
		t.Run(name, func(t *testing.T) {
			x := newCrashes(t)
			pod := x.d.must(ask{Op: "run", Name: "web"}).ID
			files := x.d.must(ask{Op: "create", ID: pod, Guest: "files"}).ID
			x.d.must(ask{Op: "start", ID: files})
			ended := x.d.must(ask{Op: "create", ID: pod, Guest: "exit7"}).ID
			x.d.must(ask{Op: "start", ID: ended})
			eventually(t, "exited", func() bool { return x.container(ended).GetState() == runtime.ContainerState_CONTAINER_EXITED })
			x.d.kill()
			x.powerOff(onDisk)

			next := x.config
			next.Boot = "another-boot"
			x.restart(next)
			l := x.d.must(ask{Op: "list"})
			if !onDisk {
				if len(l.Sandboxes)+len(l.Containers)+len(l.Leases) > 0 {
					t.Errorf("remembered: %v", l)
				}
			} else {
				for _, s := range l.Sandboxes {
					if s.GetState() != runtime.PodSandboxState_SANDBOX_NOTREADY {
						t.Errorf("%v", s)
					}
				}
				if c := x.container(files); c.GetState() != runtime.ContainerState_CONTAINER_EXITED || c.GetExitCode() != 137 || !strings.Contains(c.GetMessage(), "restarted or lost power") {
					t.Errorf("what ran: %v", c)
				}
				if c := x.container(ended); c.GetExitCode() != 7 {
					t.Errorf("what had exited: %v", c)
				}
				for _, s := range l.Sandboxes {
					x.d.must(ask{Op: "remove-sandbox", ID: s.GetId()})
				}
			}
			if left := x.inventory(t); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			// The images are still good.
			if err := polite(x, "web", "files"); err != nil {
				t.Error(err)
			}
		})
	}
}

func (x *crashes) container(id string) *runtime.ContainerStatus {
	x.Helper()
	for _, c := range x.d.must(ask{Op: "list"}).Containers {
		if c.GetId() == id {
			return c
		}
	}
	return nil
}

// powerOff ends all that a machine takes along.
func (x *crashes) powerOff(runOnDisk bool) {
	x.Helper()
	must := func(err error) {
		x.Helper()
		if err != nil {
			x.Fatal(err)
		}
	}
	for _, p := range x.hosts() {
		pid, err := strconv.Atoi(p)
		must(err)
		must(unix.Kill(pid, unix.SIGKILL))
	}
	eventually(x, "ended", func() bool { return len(x.hosts()) == 0 })
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(err)
	for line := range strings.Lines(string(mounts)) {
		if at := strings.Fields(line)[4]; strings.HasPrefix(at, x.Run) || strings.HasPrefix(at, x.Dir) {
			must(unix.Unmount(at, unix.MNT_DETACH))
		}
	}
	h, err := cgroup.Detect(cgroup.Root)
	must(err)
	must(h.Open(x.Cgroup).Remove(context.Background()))
	if runOnDisk {
		return
	}
	entries, err := os.ReadDir(x.Run)
	must(err)
	for _, e := range entries {
		must(os.RemoveAll(filepath.Join(x.Run, e.Name())))
	}
}
