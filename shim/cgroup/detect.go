package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Root is where the hierarchy is mounted on every usual node.
const Root = "/sys/fs/cgroup"

// needed are the controllers that containers cannot do without.
var needed = map[bool][]string{
	false: {"memory", "cpu", "cpuacct", "pids"},
	true:  {"memory", "cpu", "pids"},
}

// Detect finds out what is mounted at root: version 2 if root itself is, else
// version 1 with a folder per controller, also when a version 2 hierarchy
// without controllers is mounted beside.
func Detect(root string) (*Hierarchy, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		return nil, fmt.Errorf("%w: %s: %w; mount the cgroup file system there", ErrUnsupported, root, err)
	}
	if fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return detectV2(root)
	}
	return detectV1(root)
}

func detectV2(root string) (*Hierarchy, error) {
	have, err := fields(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return nil, fmt.Errorf("detect cgroup version 2: %w", err)
	}
	if lack := without(needed[true], have); len(lack) > 0 {
		return nil, fmt.Errorf("%w: version 2 at %s has no controller %s (it has: %s)",
			ErrUnsupported, root, strings.Join(lack, ", "), strings.Join(have, " "))
	}
	return &Hierarchy{root: root, v2: true, swap: true}, nil
}

func detectV1(root string) (*Hierarchy, error) {
	h := &Hierarchy{root: root, dirs: map[string]string{}}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("detect cgroup version 1: %w", err)
	}
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		if !isV1(dir) {
			continue
		}
		// A folder is named after its controllers ("cpu,cpuacct"); single
		// names are links to it.
		for c := range strings.SplitSeq(e.Name(), ",") {
			if h.dirs[c] == "" {
				h.dirs[c] = dir
			}
		}
	}
	if lack := without(needed[false], keys(h.dirs)); len(lack) > 0 {
		return nil, fmt.Errorf("%w: version 1 at %s has no controller %s; mount it, or boot with version 2",
			ErrUnsupported, root, strings.Join(lack, ", "))
	}
	if _, err := os.Stat(filepath.Join(h.dirs["memory"], "memory.memsw.limit_in_bytes")); err == nil {
		h.swap = true
	} else {
		h.missing = append(h.missing, "memory.memsw (boot with swapaccount=1): swap is not limited")
	}
	return h, nil
}

func isV1(dir string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && fs.Type == unix.CGROUP_SUPER_MAGIC
}

func without(want, have []string) []string {
	var lack []string
	for _, w := range want {
		if !slices.Contains(have, w) {
			lack = append(lack, w)
		}
	}
	return lack
}

func keys(m map[string]string) []string {
	l := make([]string, 0, len(m))
	for k := range m {
		l = append(l, k)
	}
	slices.Sort(l)
	return l
}
