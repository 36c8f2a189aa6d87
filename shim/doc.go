// Package shim owns the hosts: the limpet-host processes in which guests run.
// Its Supervisor makes, starts, stops, watches, adopts and removes them, and
// runs the confined compiler.
//
// A host needs nothing of its Supervisor: it owns its log, its lock and its
// exit record, and listens for whoever supervises it. So a Supervisor may end,
// or be killed, at any moment; the next one finds each host by its control
// socket and its lock (Adopt), and derives how one ended that nobody watched.
//
// How an end is told, in this order: the host's own record; the cgroup's OOM
// counter; the wait status, while the Supervisor is the parent; what the
// kernel keeps for a pidfd (6.15); else that it is not known. One goroutine
// per host waits, in the runtime's poller and without a thread, and alone
// tells.
//
// The package runs no guest code, reads no guest bytes, and knows neither pods
// nor images: what to run comes as a spec.Container, the root file system as a
// mount.
//
// Lock order: Host.mu, then Supervisor.mu. Neither is held over a system call
// that can wait. Host.lifting is held over writes to the cgroup, and over no
// other lock of this package.
package shim
