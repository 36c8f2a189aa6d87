//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/test/node"
)

const patience = 90 * time.Second

// TestKubelet points a stock kubelet at limpetd. All pods are there from the
// beginning, as on a node; each test waits for what it wants to see.
func TestKubelet(t *testing.T) {
	n := startNode(t)
	files, err := filepath.Glob("pods/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests: %v", err)
	}
	shared := filepath.Join(n.Dir, "shared")
	if err := errors.Join(os.Mkdir(shared, 0o777), os.Chmod(shared, 0o777),
		os.WriteFile(filepath.Join(shared, "letter.txt"), []byte("from the node\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for name := range examplePods {
		files = append(files, filepath.Join(examplesDir, name))
	}
	// A pod that never pulls runs what is there already.
	if _, err := n.Pull(t.Context(), n.Registry+"/exit3:1"); err != nil {
		t.Fatal(err)
	}
	k := startKubelet(t, n)
	for _, f := range files {
		k.apply(t, f)
	}
	t.Run("pods", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T){
			"restartPolicy Never":            k.never,
			"restartPolicy OnFailure":        k.onFailure,
			"restartPolicy Always backs off": k.always,
			"init and restartable init":      k.inits,
			"several containers":             k.several,
			"environment and downward API":   k.environment,
			"emptyDir hostPath and files":    k.volumes,
			"termination message":            k.terminationMessage,
			"log rotation":                   k.rotation,
			"imagePullPolicy":                k.pullPolicy,
			"a trap is told":                 k.trap,
			"memory limit":                   k.memory,
			"unprivileged by default":        k.unprivileged,
			"stats summary":                  k.summary,
		} {
			t.Run(name, func(t *testing.T) { t.Parallel(); test(t) })
		}
		for name, test := range examplePods {
			t.Run("examples "+name, func(t *testing.T) { t.Parallel(); test(k, t) })
		}
	})
	t.Run("limpetd restarts under running pods", k.restart)
	t.Run("pods that are taken away leave nothing", k.gone)
}

// phase wants a pod to have come to an end, or to run.
func phase(want string) func(podStatus) error {
	return func(p podStatus) error {
		if p.Status.Phase != want {
			return fmt.Errorf("phase %q, want %q", p.Status.Phase, want)
		}
		return nil
	}
}

// ended wants the pod's only container to have ended with a code.
func ended(t *testing.T, p podStatus, code int, reason string) *struct {
	ExitCode              int
	Reason, Message       string
	StartedAt, FinishedAt time.Time
} {
	t.Helper()
	e := p.Status.ContainerStatuses[0].State.Terminated
	if e == nil {
		t.Fatalf("not ended: %+v", p.Status)
	}
	if e.ExitCode != code || e.Reason != reason {
		t.Errorf("ended with %d %s, want %d %s", e.ExitCode, e.Reason, code, reason)
	}
	return e
}

func (k *kubelet) never(t *testing.T) {
	p := k.await(t, "never", patience, phase("Failed"))
	ended(t, p, 3, "Error")
	if p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Error("it was restarted")
	}
	ok := k.await(t, "once", patience, phase("Succeeded"))
	ended(t, ok, 0, "Completed")
	if got := k.log(t, ok, "once", 0); !strings.HasPrefix(got, "Hello from WebAssembly") {
		t.Errorf("logged %q", got)
	}
}

func (k *kubelet) onFailure(t *testing.T) {
	k.await(t, "onfailure", patience, restarted(1, 3))
	k.await(t, "onfailure", patience, backsOff)
	ok := k.await(t, "onfailure-ok", patience, phase("Succeeded"))
	ended(t, ok, 0, "Completed")
	if n := ok.Status.ContainerStatuses[0].RestartCount; n != 0 {
		t.Errorf("one that succeeded was restarted %d times", n)
	}
}

// backsOff wants the kubelet to wait before it starts the container again.
func backsOff(p podStatus) error {
	if w := p.Status.ContainerStatuses[0].State.Waiting; w == nil || w.Reason != "CrashLoopBackOff" {
		return errors.New("not backing off")
	}
	return nil
}

// restarted wants a container that ended with a code and came back.
func restarted(times, code int) func(podStatus) error {
	return func(p podStatus) error {
		if len(p.Status.ContainerStatuses) == 0 {
			return errors.New("no container yet")
		}
		c := p.Status.ContainerStatuses[0]
		last := c.LastState.Terminated
		if c.RestartCount < times || last == nil || last.ExitCode != code {
			return fmt.Errorf("%d restarts, last %+v", c.RestartCount, last)
		}
		return nil
	}
}

func (k *kubelet) always(t *testing.T) {
	k.await(t, "always", patience, restarted(1, 3))
	p := k.await(t, "always", patience, backsOff)
	if got := k.log(t, p, "always", p.Status.ContainerStatuses[0].RestartCount); got == "" {
		t.Error("the restarted container logged nothing")
	}
	k.await(t, "always-ok", patience, restarted(1, 0))
}

func (k *kubelet) inits(t *testing.T) {
	p := k.await(t, "inits", patience, phase("Succeeded"))
	first, sidecar := p.Status.InitContainerStatuses[0].State.Terminated, p.Status.InitContainerStatuses[1].State.Terminated
	main := p.Status.ContainerStatuses[0].State.Terminated
	if first == nil || sidecar == nil || main == nil {
		t.Fatalf("not all have ended: %+v", p.Status)
	}
	if first.ExitCode != 0 || first.FinishedAt.After(main.StartedAt) {
		t.Errorf("the init container: %+v, the main one: %+v", first, main)
	}
	if sidecar.ExitCode != 143 || sidecar.StartedAt.After(main.StartedAt) || sidecar.FinishedAt.Before(main.FinishedAt) {
		t.Errorf("the restartable init container has to span the main one and be stopped: %+v, %+v", sidecar, main)
	}
}

func (k *kubelet) several(t *testing.T) {
	k.await(t, "several", patience, func(p podStatus) error {
		if len(p.Status.ContainerStatuses) != 3 {
			return errors.New("not three containers")
		}
		for _, c := range p.Status.ContainerStatuses {
			if !c.Ready || c.State.Running == nil || c.RestartCount != 0 {
				return fmt.Errorf("%s does not run", c.Name)
			}
		}
		return nil
	})
}

func (k *kubelet) environment(t *testing.T) {
	p := k.await(t, "environment", patience, phase("Succeeded"))
	got := k.log(t, p, "environment", 0)
	for _, want := range []string{`GREETING="hello environment-limpet-e2e of default with 67108864 bytes"`, `"/shared/letter.txt"`} {
		if !strings.Contains(got, want) {
			t.Errorf("the log lacks %s:\n%s", want, got)
		}
	}
}

func (k *kubelet) volumes(t *testing.T) {
	p := k.await(t, "volumes", patience, phase("Succeeded"))
	ended(t, p, 0, "Completed")
	b, err := os.ReadFile(filepath.Join(k.n.Dir, "shared", "copied.txt"))
	if err != nil || string(b) != "from the node\n" {
		t.Errorf("the copy on the node is %q, %v", b, err)
	}
	// What the guest wrote into the emptyDir's folder came from a single file
	// of the node; the main container has the emptyDir read-only.
	if got := k.log(t, p, "into-scratch", 0); !strings.Contains(got, "from /etc/letter.txt to /scratch/deep/letter.txt") {
		t.Errorf("the init container logged %q", got)
	}
	if got := k.log(t, p, "volumes", 0); !strings.Contains(got, "writing to /scratch/letter.txt was refused") || !strings.Contains(got, "Read-only") {
		t.Errorf("the main container logged %q", got)
	}
}

func (k *kubelet) pullPolicy(t *testing.T) {
	waits := func(reasons ...string) func(podStatus) error {
		return func(p podStatus) error {
			if len(p.Status.ContainerStatuses) == 0 {
				return errors.New("no container yet")
			}
			if w := p.Status.ContainerStatuses[0].State.Waiting; w == nil || !slices.Contains(reasons, w.Reason) {
				return fmt.Errorf("waiting %+v, want %v", w, reasons)
			}
			return nil
		}
	}
	k.await(t, "pull-never", patience, waits("ErrImageNeverPull"))
	ended(t, k.await(t, "pull-present", patience, phase("Failed")), 3, "Error")
	p := k.await(t, "pull-missing", patience, waits("ErrImagePull", "ImagePullBackOff"))
	if m := p.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(m, "missing") {
		t.Errorf("the message does not name the image: %q", m)
	}
	always := k.await(t, "pull-always", patience, phase("Succeeded"))
	if id := always.Status.ContainerStatuses[0].ImageID; !strings.Contains(id, "sha256:") {
		t.Errorf("imageID %q", id)
	}
}

func (k *kubelet) trap(t *testing.T) {
	p := k.await(t, "trap", patience, phase("Failed"))
	if e := ended(t, p, 134, "Trap"); !strings.Contains(e.Message, "integer divide by zero") {
		t.Errorf("message %q", e.Message)
	}
}

func (k *kubelet) memory(t *testing.T) {
	hog := k.await(t, "hog", patience, phase("Failed"))
	ended(t, hog, 1, "Error")
	if got := k.log(t, hog, "hog", 0); !strings.Contains(got, "memory.grow was refused") {
		t.Errorf("logged %q", got)
	}
	flood := k.await(t, "flood", patience, phase("Failed"))
	ended(t, flood, 137, "OOMKilled")
}

func (k *kubelet) unprivileged(t *testing.T) {
	p := k.await(t, "nonroot", patience, phase("Succeeded"))
	ended(t, p, 0, "Completed")
}

// summary reads what kubectl top and the eviction manager live on.
func (k *kubelet) summary(t *testing.T) {
	k.await(t, "several", patience, phase("Running"))
	eventually(t, patience, func() error {
		b, err := get(fmt.Sprintf("http://%s:%d/stats/summary", k.address, k.ports.readOnly))
		if err != nil {
			return err
		}
		var s struct {
			Node struct {
				Runtime struct{ ImageFs struct{ UsedBytes uint64 } }
			}
			Pods []struct {
				PodRef     struct{ Name string }
				Containers []struct {
					Name   string
					Memory struct{ WorkingSetBytes uint64 }
					CPU    struct{ UsageCoreNanoSeconds uint64 }
				}
			}
		}
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		if s.Node.Runtime.ImageFs.UsedBytes == 0 {
			return fmt.Errorf("no usage of images: %s", b)
		}
		for _, p := range s.Pods {
			if !strings.HasPrefix(p.PodRef.Name, "several") || len(p.Containers) != 3 {
				continue
			}
			for _, c := range p.Containers {
				if c.Memory.WorkingSetBytes == 0 || c.CPU.UsageCoreNanoSeconds == 0 {
					return fmt.Errorf("no usage of %s: %+v", c.Name, c)
				}
			}
			return nil
		}
		return fmt.Errorf("the pod is not in the summary: %s", b)
	})
}

// restart kills limpetd under a kubelet with running pods: they stay the same
// ones, and go on.
func (k *kubelet) restart(t *testing.T) {
	before := k.await(t, "several", patience, phase("Running"))
	ids := k.running(t)
	if err := k.n.StopDaemon(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := k.n.StartDaemon(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := k.running(t)
	for id := range ids {
		if _, ok := after[id]; !ok {
			t.Errorf("container %.12s (%s) does not run any more", id, ids[id])
		}
	}
	k.await(t, "several", patience, func(p podStatus) error {
		if p.Metadata.UID != before.Metadata.UID || p.Status.Phase != "Running" {
			return errors.New("not the same pod")
		}
		for _, c := range p.Status.ContainerStatuses {
			if c.RestartCount != 0 {
				return fmt.Errorf("%s was restarted", c.Name)
			}
		}
		return nil
	})
}

// running returns the names of the containers of steady pods that run, by id.
func (k *kubelet) running(t *testing.T) map[string]string {
	t.Helper()
	r, err := k.n.Runtime.ListContainers(t.Context(), &runtime.ListContainersRequest{Filter: &runtime.ContainerFilter{
		State: &runtime.ContainerStateValue{State: runtime.ContainerState_CONTAINER_RUNNING},
	}})
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for _, c := range r.GetContainers() {
		ids[c.GetId()] = c.GetMetadata().GetName()
	}
	return ids
}

// gone takes all manifests away and counts what is left.
func (k *kubelet) gone(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(k.dir, "manifests", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	// The kubelet stops the pods at once and removes sandboxes when its
	// garbage collection comes by, every minute.
	eventually(t, 3*time.Minute, func() error {
		pods, err := k.n.Runtime.ListPodSandbox(t.Context(), &runtime.ListPodSandboxRequest{})
		if err != nil {
			return err
		}
		if len(pods.GetItems()) > 0 {
			return fmt.Errorf("%d sandboxes are left", len(pods.GetItems()))
		}
		mounts, err := node.Mounts(filepath.Join(k.n.Dir, "run"))
		if err != nil {
			return err
		}
		if len(mounts) > 0 {
			return fmt.Errorf("mounts are left: %v", mounts)
		}
		if left := node.Groups(k.n.Cgroup + "/kubepods/besteffort"); left > 16 {
			return fmt.Errorf("%d cgroups are left", left)
		}
		return nil
	})
}
