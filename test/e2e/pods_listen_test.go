//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// listen asks the server of a pod that has a socket of the pod's network: from
// inside that network, since the pod has no address on the node's.
func (k *kubelet) listen(t *testing.T) {
	p := k.await(t, "web", patience, phase("Running"))
	eventually(t, patience, func() error {
		if got := k.log(t, p, "web", p.Status.ContainerStatuses[0].RestartCount); !strings.Contains(got, "serving") {
			return fmt.Errorf("logged %q", got)
		}
		return nil
	})
	r, err := k.n.Runtime.ListPodSandbox(t.Context(), &runtime.ListPodSandboxRequest{Filter: &runtime.PodSandboxFilter{
		LabelSelector: map[string]string{"io.kubernetes.pod.name": p.Metadata.Name},
	}})
	if err != nil || len(r.GetItems()) != 1 {
		t.Fatalf("sandboxes of the pod: %v, %v", r, err)
	}
	answer, err := askInside(filepath.Join(k.n.Dir, "run", "netns", r.GetItems()[0].GetId()), "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(answer, "hello /there, from WebAssembly") {
		t.Errorf("the server says %q", answer)
	}
}

// askInside speaks HTTP from a thread in the network namespace.
func askInside(netns, address string) (string, error) {
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		// The thread is not unlocked: it ends with the goroutine, and the
		// namespace with it.
		goruntime.LockOSThread()
		text, err := ask(netns, address)
		got <- answer{text, err}
	}()
	a := <-got
	return a.text, a.err
}

func ask(netns, address string) (string, error) {
	f, err := os.Open(netns)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return "", fmt.Errorf("setns %s: %w", netns, err)
	}
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, "GET /there HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}
