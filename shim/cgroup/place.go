package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// v1Order is the order in which a group's controllers are visited.
var v1Order = []string{"memory", "cpu", "cpuacct", "pids"}

// dir returns the group's folder of a version 1 controller.
func (g *Group) dir(controller string) string {
	return filepath.Join(g.h.dirs[controller], g.path)
}

// dirV2 returns the group's folder of version 2.
func (g *Group) dirV2() string { return filepath.Join(g.h.root, g.path) }

// leafV2 returns the folder in which the guest lives on version 2.
func (g *Group) leafV2() string { return filepath.Join(g.dirV2(), leaf) }

// dirs returns the group's folders, each once: version 1 controllers may share
// a mount.
func (g *Group) dirs() []string {
	if g.h.v2 {
		return []string{g.dirV2()}
	}
	var l []string
	for _, c := range v1Order {
		if d := g.dir(c); !slices.Contains(l, d) {
			l = append(l, d)
		}
	}
	return l
}

// Children returns the names of the groups right below this one, in order.
func (g *Group) Children() ([]string, error) {
	var names []string
	for _, d := range g.dirs() {
		entries, err := os.ReadDir(d)
		if err != nil {
			return nil, fmt.Errorf("list cgroups below %s: %w", g.path, gone(err))
		}
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// mkdirs makes the group's folders and returns those that were not there, the
// deepest first.
func (g *Group) mkdirs() ([]string, error) {
	var made []string
	for _, d := range g.dirs() {
		m, err := mkdirAll(d)
		made = append(m, made...)
		if err != nil {
			return made, err
		}
	}
	if !g.h.v2 {
		return made, nil
	}
	if err := g.enableV2(); err != nil {
		return made, err
	}
	m, err := mkdirAll(g.leafV2())
	return append(m, made...), err
}

// mkdirAll makes dir and what is missing above it, and tells what it made, the
// deepest first.
func mkdirAll(dir string) ([]string, error) {
	err := os.Mkdir(dir, 0o755)
	switch {
	case err == nil:
		return []string{dir}, nil
	case errors.Is(err, fs.ErrExist):
		return nil, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	made, err := mkdirAll(filepath.Dir(dir))
	if err != nil {
		return made, err
	}
	if err := os.Mkdir(dir, 0o755); err == nil {
		return append([]string{dir}, made...), nil
	} else if !errors.Is(err, fs.ErrExist) {
		return made, err
	}
	return made, nil
}

// enableV2 makes the controllers available in the group's leaf: from the root
// down to the group, where one is missing in a parent's subtree_control.
func (g *Group) enableV2() error {
	dir := g.h.root
	if err := enableIn(dir); err != nil {
		return err
	}
	for part := range strings.SplitSeq(g.path[1:], "/") {
		dir = filepath.Join(dir, part)
		if err := enableIn(dir); err != nil {
			return err
		}
	}
	return nil
}

func enableIn(dir string) error {
	file := filepath.Join(dir, "cgroup.subtree_control")
	have, err := fields(file)
	if err != nil {
		return err
	}
	lack := without(needed[true], have)
	if len(lack) == 0 {
		return nil
	}
	if err := write(file, "+"+strings.Join(lack, " +")); err != nil {
		return fmt.Errorf("enable %s below %s (a group with processes of its own cannot pass controllers on): %w",
			strings.Join(lack, ", "), dir, err)
	}
	return nil
}

// Join returns what a new process needs to be in the group from its first
// instruction: on version 1 the `tasks` files, into which it writes "0" while
// it has one thread (cgroup.procs costs some 10 ms of waiting there); on
// version 2 the folder for CLONE_INTO_CGROUP.
func (g *Group) Join() (tasks []*os.File, v2 *os.File, err error) {
	if g.h.v2 {
		f, err := os.Open(g.leafV2())
		if err != nil {
			return nil, nil, fmt.Errorf("join cgroup: %w", gone(err))
		}
		return nil, f, nil
	}
	for _, d := range g.dirs() {
		f, err := os.OpenFile(filepath.Join(d, "tasks"), os.O_WRONLY, 0)
		if err != nil {
			for _, t := range tasks {
				t.Close()
			}
			return nil, nil, fmt.Errorf("join cgroup: %w", gone(err))
		}
		tasks = append(tasks, f)
	}
	return tasks, nil, nil
}
