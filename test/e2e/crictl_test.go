//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/test/node"
)

// crictl is the real one against a node.
type crictl struct {
	n       *node.Node
	program string
}

func newCrictl(t *testing.T) crictl {
	n := startNode(t)
	return crictl{n, peer(t, n, "crictl")}
}

// try runs crictl and returns what it printed.
func (c crictl) try(args ...string) (string, error) {
	all := append([]string{"-c", "/dev/null", "-r", "unix://" + c.n.Socket, "-i", "unix://" + c.n.Socket, "-t", "30s"}, args...)
	out, err := exec.Command(c.program, all...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		err = fmt.Errorf("crictl %s: %w\n%s", strings.Join(args, " "), err, text)
	}
	return text, err
}

// do runs crictl, which has to succeed.
func (c crictl) do(t *testing.T, args ...string) string {
	t.Helper()
	text, err := c.try(args...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// object runs crictl with -o json and decodes the answer.
func (c crictl) object(t *testing.T, args ...string) map[string]any {
	t.Helper()
	text := c.do(t, args...)
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("crictl %s: %v\n%s", strings.Join(args, " "), err, text)
	}
	return v
}

// at walks down an object by keys.
func at(v any, keys ...string) any {
	for _, k := range keys {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[k]
	}
	return v
}

// file writes a message as crictl reads it: by the field tags of its Go type.
func (c crictl) file(t *testing.T, name string, m any) string {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(c.n.Dir, name)
	if err := os.WriteFile(p, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// ref is a guest's image.
func (c crictl) ref(guest string) string { return c.n.Registry + "/" + guest + ":1" }

// start makes a pod of one container with crictl, call by call.
func (c crictl) start(t *testing.T, name, guest string) (pod, ctr string) {
	t.Helper()
	s := node.Sandbox(name, filepath.Join(c.n.Dir, "logs", name), c.n.Cgroup, runtime.NamespaceMode_POD)
	sandbox := c.file(t, name+"-pod.json", s)
	container := c.file(t, name+"-container.json", node.Container(name, c.ref(guest)))
	pod = c.do(t, "runp", "--runtime", "limpet", sandbox)
	ctr = c.do(t, "create", pod, container, sandbox)
	c.do(t, "start", ctr)
	return pod, ctr
}

// state waits until a container is in a state.
func (c crictl) state(t *testing.T, ctr, want string) map[string]any {
	t.Helper()
	var status map[string]any
	eventually(t, 15*time.Second, func() error {
		status = c.object(t, "inspect", "-o", "json", ctr)
		if got := at(status, "status", "state"); got != want {
			return fmt.Errorf("container is %v, want %s", got, want)
		}
		return nil
	})
	return status
}

func TestCrictl(t *testing.T) {
	c := newCrictl(t)
	t.Run("version", func(t *testing.T) {
		if v := c.do(t, "version"); !strings.Contains(v, "RuntimeName:  limpet") {
			t.Errorf("crictl version says\n%s", v)
		}
	})
	t.Run("info", func(t *testing.T) {
		info := c.object(t, "info")
		for _, cond := range at(info, "status", "conditions").([]any) {
			if at(cond, "status") != true {
				t.Errorf("condition %v", cond)
			}
		}
	})
	t.Run("pull", func(t *testing.T) {
		for _, g := range guests {
			if out := c.do(t, "pull", c.ref(g)); !strings.Contains(out, "sha256:") {
				t.Errorf("crictl pull %s says %q", g, out)
			}
		}
	})
	t.Run("images", c.images)
	t.Run("a pod from run to rm", c.life)
	t.Run("exit code and reason", c.ends)
	t.Run("stop", c.stop)
	t.Run("lists and filters", c.lists)
	t.Run("stats", c.stats)
	t.Run("refusals", c.refusals)
	t.Run("rmi", func(t *testing.T) {
		c.do(t, "rmi", c.ref("trap"))
		if out := c.do(t, "images"); strings.Contains(out, "/trap") {
			t.Errorf("after rmi the image is still listed:\n%s", out)
		}
	})
}

func (c crictl) images(t *testing.T) {
	list := c.do(t, "images")
	for _, g := range guests {
		if !strings.Contains(list, c.n.Registry+"/"+g) {
			t.Errorf("crictl images lacks %s:\n%s", g, list)
		}
	}
	image := c.object(t, "inspecti", "-o", "json", c.ref("hello"))
	if id, _ := at(image, "status", "id").(string); !strings.HasPrefix(id, "sha256:") {
		t.Errorf("inspecti gives id %v", at(image, "status", "id"))
	}
	usage := c.object(t, "imagefsinfo", "-o", "json")
	if text := fmt.Sprint(usage); !strings.Contains(text, "mountpoint") || !strings.Contains(text, "usedBytes") {
		t.Errorf("imagefsinfo says %v", usage)
	}
}

func (c crictl) life(t *testing.T) {
	pod, ctr := c.start(t, "life", "hello")
	status := c.state(t, ctr, "CONTAINER_EXITED")
	if code := at(status, "status", "exitCode"); code != 0.0 {
		t.Errorf("exit code %v", code)
	}
	if reason := at(status, "status", "reason"); reason != "Completed" {
		t.Errorf("reason %v", reason)
	}
	if out := c.do(t, "logs", ctr); !strings.HasPrefix(out, "Hello from WebAssembly") {
		t.Errorf("crictl logs says %q", out)
	}
	if got := at(c.object(t, "inspectp", "-o", "json", pod), "status", "state"); got != "SANDBOX_READY" {
		t.Errorf("the pod is %v", got)
	}
	c.do(t, "rm", ctr)
	c.do(t, "stopp", pod)
	c.do(t, "stopp", pod) // a second time is normal
	c.do(t, "rmp", pod)
	if out := c.do(t, "pods", "-q"); strings.Contains(out, pod) {
		t.Errorf("after rmp the pod is still listed: %s", out)
	}
	if _, err := c.try("inspect", ctr); err == nil {
		t.Error("inspect of a removed container succeeds")
	}
}

func (c crictl) ends(t *testing.T) {
	for _, x := range []struct {
		guest   string
		code    float64
		reason  string
		message string
	}{
		{"exit3", 3, "Error", ""},
		{"trap", 134, "Trap", "integer divide by zero"},
	} {
		pod, ctr := c.start(t, "ends-"+x.guest, x.guest)
		s := c.state(t, ctr, "CONTAINER_EXITED")
		if at(s, "status", "exitCode") != x.code || at(s, "status", "reason") != x.reason {
			t.Errorf("%s ended with %v %v, want %v %s", x.guest, at(s, "status", "exitCode"), at(s, "status", "reason"), x.code, x.reason)
		}
		if m, _ := at(s, "status", "message").(string); !strings.Contains(m, x.message) {
			t.Errorf("%s: message %q, want %q in it", x.guest, m, x.message)
		}
		c.do(t, "rmp", "-f", pod)
	}
}

func (c crictl) stop(t *testing.T) {
	pod, ctr := c.start(t, "stop", "forever")
	c.state(t, ctr, "CONTAINER_RUNNING")
	begin := time.Now()
	c.do(t, "stop", "--timeout", "10", ctr)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("stop took %s of a grace period of 10 s", took)
	}
	if s := c.state(t, ctr, "CONTAINER_EXITED"); at(s, "status", "exitCode") != 143.0 {
		t.Errorf("exit code %v, want 143", at(s, "status", "exitCode"))
	}
	c.do(t, "stop", ctr) // a second time is normal
	c.do(t, "rmp", "-f", pod)
}

func (c crictl) lists(t *testing.T) {
	one, a := c.start(t, "list-one", "forever")
	two, b := c.start(t, "list-two", "hello")
	c.state(t, b, "CONTAINER_EXITED")
	for _, x := range []struct {
		args      []string
		with, not string
	}{
		{[]string{"ps", "-q", "--no-trunc"}, a, b},
		{[]string{"ps", "-a", "-q", "--no-trunc", "--state", "exited"}, b, a},
		{[]string{"ps", "-a", "-q", "--no-trunc", "--pod", two}, b, a},
		{[]string{"ps", "-a", "-q", "--no-trunc", "--label", "io.kubernetes.container.name=list-one"}, a, b},
		{[]string{"pods", "-q", "--no-trunc", "--name", "list-one"}, one, two},
		{[]string{"pods", "-q", "--no-trunc", "--label", "io.kubernetes.pod.uid=list-two-uid"}, two, one},
	} {
		out := c.do(t, x.args...)
		if !strings.Contains(out, x.with) || strings.Contains(out, x.not) {
			t.Errorf("crictl %s: want %.12s and not %.12s in\n%s", strings.Join(x.args, " "), x.with, x.not, out)
		}
	}
	c.do(t, "rmp", "-f", one)
	c.do(t, "rmp", "-f", two)
}

func (c crictl) stats(t *testing.T) {
	pod, ctr := c.start(t, "stats", "forever")
	all := c.object(t, "stats", "-o", "json", "--id", ctr)
	list, _ := at(all, "stats").([]any)
	if len(list) != 1 {
		t.Fatalf("stats of one container: %v", all)
	}
	for _, keys := range [][]string{
		{"memory", "workingSetBytes", "value"}, {"cpu", "usageCoreNanoSeconds", "value"},
	} {
		if v, _ := at(list[0], keys...).(string); v == "" || v == "0" {
			t.Errorf("%s is %q in %v", strings.Join(keys, "."), v, list[0])
		}
	}
	c.do(t, "rmp", "-f", pod)
}

// refusals: what cannot be is refused with a sentence that says why.
func (c crictl) refusals(t *testing.T) {
	if _, err := c.try("pull", c.n.Registry+"/nothing:1"); err == nil || !strings.Contains(err.Error(), "nothing:1") {
		t.Errorf("pull of an image that is not there: %v", err)
	}
	s := c.file(t, "refused.json", node.Sandbox("refused", filepath.Join(c.n.Dir, "logs"), c.n.Cgroup, runtime.NamespaceMode_POD))
	if _, err := c.try("runp", "--runtime", "nobody", s); err == nil || !strings.Contains(err.Error(), "nobody") || !strings.Contains(err.Error(), "limpet") {
		t.Errorf("an unknown handler has to be refused by name, with those known: %v", err)
	}
}
