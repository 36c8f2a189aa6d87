//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/limpet-cri/limpet/test/docs"
	"github.com/limpet-cri/limpet/test/node"
)

const examplesDir = "../../examples"

// examplePods are the pods of examples/pods and what has to become of them
// under the kubelet of TestKubelet.
var examplePods = map[string]func(*kubelet, *testing.T){
	"pods/hello.yaml": func(k *kubelet, t *testing.T) {
		p := k.await(t, "hello", patience, phase("Succeeded"))
		if got := k.log(t, p, "hello", 0); !strings.HasPrefix(got, "Hello from WebAssembly") {
			t.Errorf("logged %q", got)
		}
	},
	"pods/restricted.yaml": func(k *kubelet, t *testing.T) {
		ended(t, k.await(t, "restricted", patience, phase("Succeeded")), 0, "Completed")
	},
	"pods/server.yaml": (*kubelet).listen,
	"pods/volumes.yaml": func(k *kubelet, t *testing.T) {
		p := k.await(t, "copy", patience, phase("Succeeded"))
		got := k.log(t, p, "copy", 0)
		for _, want := range []string{`GREETING="hello copy-limpet-e2e"`, "from /etc/hostname to /scratch/hostname"} {
			if !strings.Contains(got, want) {
				t.Errorf("the log lacks %s:\n%s", want, got)
			}
		}
	},
}

// exampleFiles are the other examples and who tries them.
var exampleFiles = map[string]func(*examples, *testing.T){
	"limpetd.toml":                      (*examples).configuration,
	"runtimeclass.yaml":                 (*examples).runtimeClass,
	"hosts/registry.example/hosts.toml": (*examples).mirror,
	"hosts/_default/hosts.toml":         (*examples).mirror,
	"crictl/pod.yaml":                   (*examples).byHand,
	"crictl/container.yaml":             (*examples).byHand,
}

// examples is a node whose hosts_dir is that of the examples.
type examples struct {
	crictl
	hosts string
}

// TestExamples tries every file under examples/ with what it is for; those of
// pods are tried by TestKubelet. One that nobody tries is a failure.
func TestExamples(t *testing.T) {
	err := filepath.WalkDir(examplesDir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(examplesDir, p)
		if _, pod := examplePods[name]; !pod && exampleFiles[name] == nil {
			t.Errorf("nothing tries examples/%s: add it to examplePods or exampleFiles", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	x := newExamples(t)
	for name, try := range exampleFiles {
		t.Run(name, func(t *testing.T) { try(x, t) })
	}
	t.Run("crictl lines of the pages", x.lines)
}

func newExamples(t *testing.T) *examples {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute*slowness(t))
	defer cancel()
	hosts := t.TempDir()
	n, err := node.Start(ctx, node.Options{Config: fmt.Sprintf("\n[images]\nhosts_dir = %q\n", hosts)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of limpetd's log:\n%s", n.LogTail())
		}
		if err := n.Close(); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
	})
	if err := node.MakeCgroup(n.Cgroup); err != nil {
		t.Fatal(err)
	}
	if _, err := n.PushGuest(ctx, "hello"); err != nil {
		t.Fatal(err)
	}
	x := &examples{crictl: crictl{n, peer(t, n, "crictl")}, hosts: hosts}
	// The mirror and the cache of the examples are the node's registry.
	for _, h := range []string{"registry.example", "_default"} {
		x.copy(t, filepath.Join("hosts", h, "hosts.toml"), filepath.Join(hosts, h, "hosts.toml"),
			"mirror.internal:5000", n.Registry, "cache.internal:5000", n.Registry)
	}
	return x
}

// copy copies an example with words of it replaced; all of them have to be
// there in at least one place.
func (x *examples) copy(t *testing.T, name, to string, replace ...string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(examplesDir, name))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(replace...).Replace(string(b))
	if text == string(b) {
		t.Fatalf("examples/%s has none of %q", name, replace)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func (x *examples) configuration(t *testing.T) {
	out, err := exec.Command(filepath.Join(x.n.Bin, "limpetd"), "config", "check", filepath.Join(examplesDir, "limpetd.toml")).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// mirror pulls by names that only the hosts.toml of the examples leads
// anywhere.
func (x *examples) mirror(t *testing.T) {
	for _, ref := range []string{"registry.example/hello:1", "elsewhere.example/hello:1"} {
		if out := x.do(t, "pull", ref); !strings.Contains(out, "sha256:") {
			t.Errorf("crictl pull %s says %q", ref, out)
		}
	}
}

// byHand runs the pod of examples/crictl.
func (x *examples) byHand(t *testing.T) {
	x.do(t, "pull", "registry.example/hello:1")
	pod, container := filepath.Join(x.n.Dir, "pod.yaml"), filepath.Join(examplesDir, "crictl", "container.yaml")
	x.copy(t, "crictl/pod.yaml", pod, "/var/log/pods", x.n.Dir+"/logs", "cgroup_parent: /", "cgroup_parent: "+x.n.Cgroup+"/")
	id := x.do(t, "runp", "--runtime", "limpet", pod)
	ctr := x.do(t, "create", id, container, pod)
	x.do(t, "start", ctr)
	if s := x.state(t, ctr, "CONTAINER_EXITED"); at(s, "status", "exitCode") != 0.0 {
		t.Errorf("exit code %v", at(s, "status", "exitCode"))
	}
	if out := x.do(t, "logs", ctr); !strings.HasPrefix(out, "Hello from WebAssembly") {
		t.Errorf("crictl logs says %q", out)
	}
	x.do(t, "rmp", "-f", id)
}

// runtimeClass: limpetd knows the handler, and the pods name the class. An API
// server is not there to read the file.
func (x *examples) runtimeClass(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(examplesDir, "runtimeclass.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	field := func(text, name string) string {
		m := regexp.MustCompile(`(?m)^ *` + name + `: *(\S+)$`).FindStringSubmatch(text)
		if m == nil {
			return ""
		}
		return m[1]
	}
	if kind, version := field(string(b), "kind"), field(string(b), "apiVersion"); kind != "RuntimeClass" || version != "node.k8s.io/v1" {
		t.Errorf("it is a %s of %s", kind, version)
	}
	pod := filepath.Join(x.n.Dir, "class.yaml")
	x.copy(t, "crictl/pod.yaml", pod, "/var/log/pods", x.n.Dir+"/logs", "cgroup_parent: /", "cgroup_parent: "+x.n.Cgroup+"/", "hello-by-hand", "class")
	x.do(t, "rmp", "-f", x.do(t, "runp", "--runtime", field(string(b), "handler"), pod))
	for name := range examplePods {
		p, err := os.ReadFile(filepath.Join(examplesDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if class := field(string(p), "runtimeClassName"); class != field(string(b), "name") {
			t.Errorf("examples/%s names the class %q", name, class)
		}
	}
}

// lines holds every "crictl ..." of the pages to crictl's own help.
func (x *examples) lines(t *testing.T) {
	pages, err := docs.Pages("../..")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, p := range pages {
		for _, c := range p.Commands("crictl") {
			words := c.Words[1:]
			for len(words) > 1 && slices.Contains([]string{"-r", "-i", "-t"}, words[0]) {
				words = words[2:]
			}
			help, err := x.try(words[0], "--help")
			if err != nil || !strings.Contains(help, "crictl "+words[0]) {
				t.Errorf("%s: crictl has no such command", c)
				continue
			}
			count++
			for _, w := range words[1:] {
				if strings.HasPrefix(w, "--") && !strings.Contains(help, w) {
					t.Errorf("%s: there is no flag %s", c, w)
				}
				if s, short := strings.CutPrefix(w, "-"); short && w[1] != '-' {
					for _, r := range s {
						if !regexp.MustCompile(`(?m)(^|[ ,])-` + string(r) + `\b`).MatchString(help) {
							t.Errorf("%s: there is no flag -%c", c, r)
						}
					}
				}
			}
		}
	}
	if count < 8 {
		t.Errorf("only %d lines were found", count)
	}
}
