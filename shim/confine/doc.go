// Package confine owns how a host is confined. Its C half is a constructor
// that runs in limpet-host before the Go runtime, with one thread, and does
// what an Order says: cgroups, lock, namespaces, the guest's root as a real
// mount tree, limits, user, capabilities, Landlock and seccomp. Its Go half
// writes the Order (daemon side), makes what the Order refers to (an empty
// mount namespace, detached mounts), and forbids executable mappings once the
// guest's code is mapped (Seal, host side).
//
// The package never runs guest code and never reads what a guest, an image or
// a client wrote: an Order comes from the daemon, in a sealed memory file, and
// the C half checks it all the same. It builds without cgo for the daemon; the
// constructor is then absent.
//
// There are no locks and no state.
package confine
