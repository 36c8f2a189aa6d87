package pod_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/wasm/wasmtime"
)

// netns is the network of a container's process, as the kernel names it.
func (b *bench) netns(ctr string) (id string, interfaces []string) {
	b.Helper()
	r, err := b.ContainerStatus(ctr, true)
	b.must("status", err)
	var pid int
	if _, after, ok := strings.Cut(r.GetInfo()["info"], `"pid":`); ok {
		_, err = fmt.Sscan(strings.SplitN(after, ",", 2)[0], &pid)
		b.must("pid", err)
	}
	id, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	b.must("netns", err)
	dev, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	b.must("interfaces", err)
	for line := range strings.Lines(string(dev)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			interfaces = append(interfaces, strings.TrimSpace(name))
		}
	}
	return id, interfaces
}

// A pod has a network of its own, which its containers share and in which there
// is loopback and nothing else; with NODE it has the node's.
func TestRealNetworks(t *testing.T) {
	b := newBench(t)
	node, err := os.Readlink("/proc/self/ns/net")
	b.must("netns", err)
	pod, ctr := b.start("own", "idle")
	c := b.container("idle")
	c.Metadata.Name, c.LogPath = "second", "second/0.log"
	second, err := b.CreateContainer(t.Context(), &runtime.CreateContainerRequest{PodSandboxId: pod, Config: c, SandboxConfig: b.sandbox("own")})
	b.must("create", err)
	own, interfaces := b.netns(ctr)
	if shared, _ := b.netns(second); own == node || own != shared || len(interfaces) != 1 || interfaces[0] != "lo" {
		t.Errorf("node %s, container %s with %v, its neighbour %s", node, own, interfaces, shared)
	}
	host, ctr := b.start("host", "idle", func(s *runtime.PodSandboxConfig, _ *runtime.ContainerConfig) {
		s.Linux.SecurityContext = &runtime.LinuxSandboxSecurityContext{NamespaceOptions: &runtime.NamespaceOption{Network: runtime.NamespaceMode_NODE}}
	})
	if got, _ := b.netns(ctr); got != node {
		t.Errorf("with the node's network: %s, the node's is %s", got, node)
	}
	for _, s := range []string{pod, host} {
		b.must("remove", b.RemovePodSandbox(t.Context(), s))
	}
}

// guestNames prints its /etc/hostname, its /etc/resolv.conf and its environment.
const guestNames = `(module
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 4096) "etc/hostname") (data (i32.const 4128) "etc/resolv.conf")
  (func $print (param $at i32) (param $len i32)
    (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $len))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func $cat (param $path i32) (param $len i32)
    (if (call $open (i32.const 3) (i32.const 1) (local.get $path) (local.get $len) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 64)) (then unreachable))
    (i32.store (i32.const 0) (i32.const 8192)) (i32.store (i32.const 4) (i32.const 4096))
    (if (call $read (i32.load (i32.const 64)) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
    (call $print (i32.const 8192) (i32.load (i32.const 8))))
  (func (export "_start")
    (call $cat (i32.const 4096) (i32.const 12))
    (call $cat (i32.const 4128) (i32.const 15))
    (if (call $sizes (i32.const 16) (i32.const 20)) (then unreachable))
    (if (call $environ (i32.const 16384) (i32.const 32768)) (then unreachable))
    (call $print (i32.const 32768) (i32.load (i32.const 20)))))`

// What the kubelet leaves to the runtime: the guest reads its pod's name and
// resolver where programs look for them.
func TestRealNames(t *testing.T) {
	b := newBench(t)
	module, err := wasmtime.Wat([]byte(guestNames))
	b.must("translate", err)
	b.push(t, "names", module)
	pod, ctr := b.start("names", "names", func(s *runtime.PodSandboxConfig, _ *runtime.ContainerConfig) {
		s.Hostname = "web-1"
		s.DnsConfig = &runtime.DNSConfig{Servers: []string{"192.0.2.53"}, Searches: []string{"a.example", "b.example"}, Options: []string{"ndots:5"}}
	})
	if st := b.exited(ctr); st.GetExitCode() != 0 {
		t.Fatalf("%d %s", st.GetExitCode(), st.GetMessage())
	}
	log, err := os.ReadFile(filepath.Join(b.Dir, "logs", "names", "names", "0.log"))
	b.must("log", err)
	for _, want := range []string{" F web-1\n", " F search a.example b.example\n", " F nameserver 192.0.2.53\n", " F options ndots:5\n", "HOSTNAME=web-1\x00"} {
		if !strings.Contains(string(log), want) {
			t.Errorf("no %q in %q", want, log)
		}
	}
	b.must("remove", b.RemovePodSandbox(t.Context(), pod))
}
