package shim_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// census is everything a container could leave behind.
type census map[string][]string

// census counts what this process and this node's folders hold.
func (n *node) census() census {
	n.Helper()
	c := census{}
	for _, e := range n.list("/proc/self/fd") {
		to, err := os.Readlink("/proc/self/fd/" + e)
		// The runtime's own descriptors and the tests' come and go.
		if err == nil && (strings.Contains(to, "limpet") || strings.Contains(to, "pidfd") || strings.Contains(to, n.dir) || strings.HasPrefix(to, "socket:")) {
			c["descriptor"] = append(c["descriptor"], to)
		}
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		n.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, n.dir) || strings.Contains(line, n.cfg.RunDir) || strings.Contains(line, "limpet-empty") {
			c["mount"] = append(c["mount"], line)
		}
	}
	c["socket"] = n.list(n.cfg.RunDir)
	c["folder"] = n.list(filepath.Join(n.dir, "containers"))
	for _, controller := range []string{"memory", "cpu", "cpuacct", "pids", "."} {
		c["cgroup"] = append(c["cgroup"], n.list(filepath.Join("/sys/fs/cgroup", controller, n.parent))...)
	}
	c["process"] = n.hosts()
	return c
}

// hosts returns the processes that run our binary, zombies included.
func (n *node) hosts() []string {
	var l []string
	for _, e := range n.list("/proc") {
		if _, err := strconv.Atoi(e); err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e + "/stat")
		if err != nil || !strings.Contains(string(stat), "(limpet-host)") {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		exe, err := os.Readlink("/proc/" + e + "/exe")
		if exe == n.cfg.HostPath || (err != nil && fields[1] == strconv.Itoa(os.Getpid())) {
			l = append(l, e+" "+fields[0])
		}
	}
	return l
}

func (n *node) list(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	l := make([]string, 0, len(entries))
	for _, e := range entries {
		// Control files of a cgroup are no leftovers.
		if e.IsDir() || !strings.HasPrefix(dir, "/sys/") || e.Type()&fs.ModeSymlink != 0 {
			l = append(l, e.Name())
		}
	}
	return l
}

// compare fails for what after holds and before does not.
func (n *node) compare(before, after census) {
	n.Helper()
	for what, l := range after {
		had := append([]string(nil), before[what]...)
		now := append([]string(nil), l...)
		sort.Strings(had)
		sort.Strings(now)
		if strings.Join(had, "\n") != strings.Join(now, "\n") {
			n.Errorf("%s: before %q, after %q", what, had, now)
		}
	}
}
