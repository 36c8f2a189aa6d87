// Package cgroup owns the containers' control groups: it makes them under the
// pod's cgroup parent, sets limits, measures, ends and removes them. It speaks
// version 1 (memory, cpu, cpuacct, pids) and version 2 through the file system
// alone; it talks to no service manager.
//
// It never touches a group that it was not given by path, and never the
// parents' limits: on version 2 it enables missing controllers for the
// children of the parents, and that is all.
//
// A Group holds no state but its path, so that a restarted daemon continues
// with Open. There are no locks; the kernel orders what happens in a group,
// and one goroutine at a time creates or removes a given group.
package cgroup
