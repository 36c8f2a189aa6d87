// Package cgroup owns the containers' control groups: it makes them under the
// pod's cgroup parent, sets limits, measures, ends and removes them. It speaks
// version 1 (memory, cpu, cpuacct, pids) and version 2 through the file system
// alone; it talks to no service manager.
//
// It never touches a group that it was not given by path, nor the parents' of
// one, but for two things on version 2: it enables missing controllers for the
// children of the parents, and it gives a pod one CPU more while a container of
// it is being stopped.
//
// A Group holds no state but its path, so that a restarted daemon continues
// with Open. The kernel orders what happens in a group, and one goroutine at a
// time creates or removes a given group; the only lock is the Hierarchy's, for
// the quota that the containers of a pod share.
package cgroup
