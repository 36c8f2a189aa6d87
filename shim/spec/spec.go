// Package spec owns the contract between the daemon and a host (a limpet-host
// process): what to run (Container, Payload), how to talk to it (the control
// protocol), how it ended (Exit), and the descriptors it starts with.
//
// It holds data and its encodings, and does nothing else. Both sides import
// it, so it stays free of encoding/json, fmt and the like: every page that the
// host touches is paid once per container.
package spec

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Container describes one container to the Supervisor.
type Container struct {
	// ID is unique on the node; Dir is the container's folder on local disk
	// (files: see FileLock and the following), Socket the path at which the
	// host listens for its supervisor, at most 107 bytes.
	ID, Dir, Socket string
	// OCI is the OCI runtime spec (runtime-spec 1.3). What a host reads of it:
	// process (args, env, cwd, user, rlimits, oomScoreAdj), root.readonly,
	// mounts of type bind, linux.namespaces (network with a path, or none for
	// the node's), linux.cgroupsPath and linux.resources.
	OCI *specs.Spec
	// Limpet is what the OCI runtime spec has no words for.
	Limpet Limpet
}

// Limpet is the part of a Container that is ours.
type Limpet struct {
	// Code is the path of the compiled code on the node; Module is the
	// guest's file name, for backtraces.
	Code, Module string
	// LogPath is the CRI log file; empty means that the output is dropped.
	LogPath string
	// MemoryLimit bounds each linear memory of the guest, in bytes; zero
	// means no bound besides the cgroup.
	MemoryLimit uint64
	// RootSize bounds the memory-backed root of a container whose image
	// brings no root file system, in bytes.
	RootSize uint64
	// Proposals are the Wasm proposals beyond the default set that the code
	// was compiled with, as the profile names them.
	Proposals []string
	// Listen are the sockets that the guest inherits as descriptors, after
	// its preopened folders.
	Listen []Listen
	// OnStop says what a stop signal does.
	OnStop OnStop
	// Stdin is true when the guest's standard input can be attached to;
	// otherwise it is at its end from the start.
	Stdin bool
}

// Proposals are the names that Limpet.Proposals may hold: what the engine of a
// host knows beyond its default set.
func Proposals() []string {
	return []string{
		"memory64", "exception-handling", "function-references", "gc", "wide-arithmetic", "custom-page-sizes",
	}
}

// Listen is a TCP socket bound in the pod's network before the guest starts.
type Listen struct {
	// Address is "host:port" with a literal IP address, or ":port" for all.
	Address string
}

// OnStop is what a host does with a guest when it gets the stop signal.
type OnStop uint8

// The ways to stop.
const (
	// OnStopDefault ends a command at once with 128+signal; a guest with
	// listening sockets stops accepting and has the grace period.
	OnStopDefault OnStop = iota
	// OnStopWait lets the guest run on until it ends by itself or the grace
	// period is over.
	OnStopWait
	// OnStopCloseStdin closes the guest's standard input and waits.
	OnStopCloseStdin
	// OnStopKill ends the guest at once with 137.
	OnStopKill
)

// Files in a container's folder.
const (
	FileConfig      = "config.json" // the OCI runtime spec, for people and for other runtimes
	FileLock        = "lock"        // held (flock) by the host while it lives; "PID STARTTIME\n" as seen from outside
	FileExit        = "exit"        // the exit record, see Exit
	FileDiagnostics = "host.err"    // what the host's runtime had to say, normally empty
)

// Descriptors that a host starts with. 0 and 1 are /dev/null, 2 is
// FileDiagnostics. What the constructor consumes comes from FDFirstFree on.
const (
	FDOrder     = 3 // sealed memory file: confine order, then payload
	FDControl   = 4 // listening SOCK_SEQPACKET socket
	FDExit      = 5 // FileExit, opened for appending
	FDLock      = 6 // FileLock, opened for reading and writing
	FDLog       = 7 // the CRI log, opened for appending (or /dev/null)
	FDFirstFree = 8
)

// Descriptors of a compile child instead of those above; 2 is a pipe or file
// for the error text.
const (
	FDCompileIn  = 4 // the module, opened for reading
	FDCompileOut = 5 // an empty file, opened for writing
)

// Paths in the host's own root. The guest sees only what is below GuestRoot.
const (
	GuestRoot = "/guest"
	CodePath  = "/code"
)

// Exit codes of a container that are not the guest's own.
const (
	CodeHostFailed = 128 // the host or the engine failed
	CodeTrap       = 134 // 128 + SIGABRT: a Wasm trap
	CodeKilled     = 137 // 128 + SIGKILL
	CodeSignalBase = 128 // 128 + n: ended for signal n
)
