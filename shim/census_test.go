package shim_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// census is everything a container could leave behind.
type census map[string][]string

// ownFiles are descriptors that the runtime opens when it first needs them.
var ownFiles = map[string]bool{"anon_inode:[eventpoll": true, "anon_inode:[eventfd": true, "/proc/" + strconv.Itoa(os.Getpid()) + "/fd": true}

// census counts what this process and this node's folders hold.
func (n *node) census() census {
	n.Helper()
	c := census{}
	for _, e := range n.list("/proc/self/fd") {
		// Detached mounts are but descriptors of "/"; sockets, pipes and
		// namespaces have numbers.
		to, err := os.Readlink("/proc/self/fd/" + e)
		kind := strings.TrimRight(to, "0123456789]")
		if err == nil && !ownFiles[kind] {
			c["descriptor"] = append(c["descriptor"], kind)
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
		had := slices.Clone(before[what])
		var more []string
		for _, thing := range l {
			if i := slices.Index(had, thing); i >= 0 {
				had = slices.Delete(had, i, i+1)
			} else {
				more = append(more, thing)
			}
		}
		if len(more) > 0 {
			n.Errorf("%s: %q, where before there were %q", what, more, before[what])
		}
	}
}
