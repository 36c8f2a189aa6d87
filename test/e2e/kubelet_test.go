//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/limpet-cri/limpet/test/node"
)

// kubelet is a stock one in standalone mode: no API server, pods from a
// folder.
type kubelet struct {
	n       *node.Node
	dir     string
	address string // the node's, added to lo
	ports   struct{ main, readOnly, health int }
	cmd     *exec.Cmd
	ended   chan struct{}
}

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: %[1]s
enforceNodeAllocatable: []
containerRuntimeEndpoint: unix://%[2]s
imageServiceEndpoint: unix://%[2]s
staticPodPath: %[3]s/manifests
podLogsDir: %[3]s/logs
volumePluginDir: %[3]s/plugins
address: %[4]s
port: %[5]d
readOnlyPort: %[6]d
healthzBindAddress: 127.0.0.1
healthzPort: %[7]d
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
oomScoreAdj: 0
resolvConf: ""
evictionHard: {memory.available: 50Mi, nodefs.available: 1%%, nodefs.inodesFree: 1%%, imagefs.available: 1%%}
makeIPTablesUtilChains: false
registerNode: false
syncFrequency: 5s
fileCheckFrequency: 1s
maxPods: 200
serializeImagePulls: false
containerLogMaxSize: 16Ki
containerLogMaxFiles: 5
containerLogMonitorInterval: 3s
logging: {verbosity: 2}
`

// startKubelet starts a kubelet on the node; pods come from Apply.
func startKubelet(t *testing.T, n *node.Node) *kubelet {
	t.Helper()
	k := &kubelet{n: n, dir: filepath.Join(n.Dir, "kubelet")}
	for _, d := range []string{"manifests", "logs", "plugins", "root", "pki"} {
		if err := os.MkdirAll(filepath.Join(k.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	k.addAddress(t)
	k.ports.main, k.ports.readOnly, k.ports.health = freePort(t, k.address), freePort(t, k.address), freePort(t, "127.0.0.1")
	config := filepath.Join(k.dir, "config.yaml")
	text := fmt.Sprintf(kubeletConfig, n.Cgroup, n.Socket, k.dir, k.address, k.ports.main, k.ports.readOnly, k.ports.health)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	logFile, err := os.Create(filepath.Join(k.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	k.cmd = exec.Command(peer(t, n, "kubelet"), "--config="+config, "--root-dir="+filepath.Join(k.dir, "root"),
		"--cert-dir="+filepath.Join(k.dir, "pki"), "--hostname-override=limpet-e2e", "--node-ip="+k.address)
	k.cmd.Stdout, k.cmd.Stderr = logFile, logFile
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	k.ended = make(chan struct{})
	go func() { k.cmd.Wait(); close(k.ended) }()
	t.Cleanup(func() { k.stop(t); logFile.Close() })
	eventually(t, time.Minute, func() error {
		select {
		case <-k.ended:
			return fmt.Errorf("the kubelet ended (%s): %w\n%s", k.cmd.ProcessState, errNever, k.logTail())
		default:
		}
		_, err := get(fmt.Sprintf("http://127.0.0.1:%d/healthz", k.ports.health))
		return err
	})
	return k
}

// addAddress puts an address of the node's own on lo: the kubelet refuses one
// of 127.0.0.0/8, and this one does not leave the machine.
func (k *kubelet) addAddress(t *testing.T) {
	t.Helper()
	k.address = fmt.Sprintf("10.244.%d.%d", 100+os.Getpid()%100, 1+os.Getpid()/100%250)
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr(k.address + "/32")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(lo, a); err != nil {
		t.Fatalf("add %s to lo: %v", a, err)
	}
	t.Cleanup(func() {
		if err := netlink.AddrDel(lo, a); err != nil {
			t.Errorf("remove %s from lo: %v", a, err)
		}
	})
}

func freePort(t *testing.T, address string) int {
	t.Helper()
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// stop removes the pods, lets the kubelet take them down, and ends it.
func (k *kubelet) stop(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(k.dir, "manifests", "*"))
	for _, f := range files {
		os.Remove(f)
	}
	k.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-k.ended:
	case <-time.After(20 * time.Second):
		k.cmd.Process.Kill()
		<-k.ended
	}
	if t.Failed() {
		t.Logf("the end of the kubelet's log:\n%s", k.logTail())
	}
}

func (k *kubelet) logTail() string {
	b, _ := os.ReadFile(filepath.Join(k.dir, "log"))
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-25):], "\n")
}

// apply makes a static pod of a manifest under pods/ or examples/.
func (k *kubelet) apply(t *testing.T, manifest string) {
	t.Helper()
	b, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("registry.example", k.n.Registry, "/DIR/", k.n.Dir+"/").Replace(string(b))
	// Without an API server a kubelet knows no RuntimeClass: the pods of the
	// tests name none, those of the examples do.
	text = strings.ReplaceAll(text, "  runtimeClassName: limpet\n", "")
	if err := os.WriteFile(k.manifest(manifest), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (k *kubelet) manifest(name string) string {
	return filepath.Join(k.dir, "manifests", strings.TrimLeft(strings.ReplaceAll(name, "/", "-"), ".-"))
}

// podStatus is what the tests read of a pod.
type podStatus struct {
	Metadata struct {
		Name, UID string
	}
	Status struct {
		Phase                 string
		InitContainerStatuses []containerStatus
		ContainerStatuses     []containerStatus
	}
}

type containerStatus struct {
	Name             string
	RestartCount     int
	Ready            bool
	ImageID          string
	State, LastState containerState
}

type containerState struct {
	Waiting    *struct{ Reason, Message string }
	Running    *struct{ StartedAt time.Time }
	Terminated *struct {
		ExitCode              int
		Reason, Message       string
		StartedAt, FinishedAt time.Time
	}
}

func get(url string) ([]byte, error) {
	client := http.Client{Timeout: 5 * time.Second}
	r, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, r.Status, b)
	}
	return b, err
}

// pods returns the kubelet's pods by name, the node's name taken off.
func (k *kubelet) pods() (map[string]podStatus, error) {
	b, err := get(fmt.Sprintf("http://%s:%d/pods", k.address, k.ports.readOnly))
	if err != nil {
		return nil, err
	}
	var list struct{ Items []podStatus }
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, err
	}
	m := map[string]podStatus{}
	for _, p := range list.Items {
		m[strings.TrimSuffix(p.Metadata.Name, "-limpet-e2e")] = p
	}
	return m, nil
}

// await waits until the pod is as the function wants it.
func (k *kubelet) await(t *testing.T, pod string, limit time.Duration, ok func(podStatus) error) podStatus {
	t.Helper()
	var p podStatus
	eventually(t, limit, func() error {
		all, err := k.pods()
		if err != nil {
			return err
		}
		var there bool
		if p, there = all[pod]; !there {
			return fmt.Errorf("pod %s is not there", pod)
		}
		if err := ok(p); err != nil {
			return fmt.Errorf("%w\n%+v", err, p.Status)
		}
		return nil
	})
	return p
}

// log reads everything a container has logged in its given attempt.
func (k *kubelet) log(t *testing.T, p podStatus, container string, attempt int) string {
	t.Helper()
	file := filepath.Join(k.dir, "logs", "default_"+p.Metadata.Name+"_"+p.Metadata.UID, container, fmt.Sprintf("%d.log", attempt))
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return logText(string(b))
}

func logText(raw string) string {
	var text strings.Builder
	for _, l := range strings.Split(strings.TrimSuffix(raw, "\n"), "\n") {
		f := strings.SplitN(l, " ", 4)
		if len(f) < 4 {
			continue
		}
		text.WriteString(f[3])
		if f[2] == "F" {
			text.WriteByte('\n')
		}
	}
	return text.String()
}
