package pod

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxHostname is the kernel's bound (HOST_NAME_MAX).
const maxHostname = 64

// hostname is what a sandbox is called: as asked, or as the node.
func (m *Manager) hostname(c *runtime.PodSandboxConfig) string {
	if h := c.GetHostname(); h != "" {
		return h
	}
	return m.node
}

// writeSandboxFiles writes the three files that every container of a sandbox
// sees in its /etc. The kubelet mounts its own hosts over ours when it has one.
func (m *Manager) writeSandboxFiles(s *sandbox) error {
	resolv, err := resolvConf(s.config.GetDnsConfig(), m.cfg.ResolvConf)
	if err != nil {
		return err
	}
	hosts := hostsFile(m.hostname(s.config))
	if hostNetwork(s.config) {
		if b, err := os.ReadFile("/etc/hosts"); err == nil {
			hosts = string(b)
		}
	}
	for name, text := range map[string]string{
		fileHostname: m.hostname(s.config) + "\n", fileHosts: hosts, fileResolvConf: resolv,
	} {
		// Not flushed: after a power loss the sandbox is not ready any more.
		if err := os.WriteFile(filepath.Join(m.sandboxDir(s.id), name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write the sandbox's files: %w", err)
		}
	}
	return nil
}

func hostsFile(hostname string) string {
	return "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\t" + hostname + "\n"
}

// resolvConf is resolv.conf as asked for, or the node's.
func resolvConf(d *runtime.DNSConfig, node string) (string, error) {
	if len(d.GetServers())+len(d.GetSearches())+len(d.GetOptions()) == 0 {
		if d != nil || node == "" {
			return "", nil
		}
		b, err := os.ReadFile(node)
		if err != nil && !os.IsNotExist(err) {
			return "", fmt.Errorf("copy the node's resolver configuration: %w", err)
		}
		return string(b), nil
	}
	var b strings.Builder
	if l := d.GetSearches(); len(l) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(l, " "))
	}
	for _, s := range d.GetServers() {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if l := d.GetOptions(); len(l) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(l, " "))
	}
	if strings.Count(b.String(), "\n") != len(d.GetServers())+min(len(d.GetSearches()), 1)+min(len(d.GetOptions()), 1) {
		return "", invalid("dns_config holds a line break")
	}
	return b.String(), nil
}
