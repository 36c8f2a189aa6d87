package node

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchies are the folders in which cgroups are made: one for v2, one per
// controller for v1.
func hierarchies() []string {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return []string{cgroupRoot}
	}
	var dirs []string
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(cgroupRoot, e.Name()))
		}
	}
	return dirs
}

// MakeCgroup makes a parent group in every hierarchy, as an init system would
// for a kubelet.
func MakeCgroup(path string) error {
	for _, h := range hierarchies() {
		dir := filepath.Join(h, path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		// A v1 cpuset takes no process before it has processors and nodes.
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			b, err := os.ReadFile(filepath.Join(filepath.Dir(dir), f))
			if err != nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, f), b, 0o644); err != nil {
				return err
			}
		}
		if h != cgroupRoot {
			continue
		}
		// On v2 a kubelet refuses a root that lacks a controller of the node's.
		if err := errors.Join(passOn(h), passOn(dir)); err != nil {
			return err
		}
	}
	return nil
}

// passOn enables for the groups below dir every controller that dir has.
func passOn(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(b)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups removes the group and what is below it, deepest first.
func removeCgroups(path string) error {
	var errs []error
	for _, h := range hierarchies() {
		for _, dir := range groupsBelow(filepath.Join(h, path)) {
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, &fs.PathError{Op: "rmdir", Path: dir, Err: err})
			}
		}
	}
	return errors.Join(errs...)
}

// RemoveCgroup removes what MakeCgroup made.
func RemoveCgroup(path string) error { return removeCgroups(path) }

func groupsBelow(top string) []string {
	var dirs []string
	filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	slices.Reverse(dirs)
	return dirs
}

// Groups counts the cgroups at and below path, over all hierarchies.
func Groups(path string) int {
	count := 0
	for _, h := range hierarchies() {
		count += len(groupsBelow(filepath.Join(h, path)))
	}
	return count
}

// Mounts returns the mount points below dir.
func Mounts(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var points []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			points = append(points, fields[4])
		}
	}
	return points, lines.Err()
}

// MountMemory makes a folder and mounts a tmpfs on it, as /run is one on a
// node. Close unmounts what is below a node's folder.
func MountMemory(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("limpet-test", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return &fs.PathError{Op: "mount tmpfs", Path: dir, Err: err}
	}
	return nil
}

func unmountBelow(dir string) error {
	points, err := Mounts(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range slices.Backward(points) {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil {
			errs = append(errs, &fs.PathError{Op: "unmount", Path: p, Err: err})
		}
	}
	return errors.Join(errs...)
}
