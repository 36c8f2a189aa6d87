// Package host is the body of limpet-host: the confined process in which one
// container's guest runs, or (other modes) in which a module is compiled.
//
// When Main begins, the constructor of shim/confine has done its part: the
// process has its user, its file system and its filter already. Main maps the
// compiled code, links what the module imports, forbids executable mappings,
// and waits for its supervisor on the control socket. It owns the container's
// log and exit record, and needs nobody from then on: a supervisor may come
// and go.
//
// Two goroutines matter: the guest's, on the main thread, and the one that
// answers the control socket. The latter polls descriptors itself instead of
// using the runtime's poller, and ends the process when the guest is to stop:
// a guest that spins or waits need not cooperate. Whoever sets host.ending
// first writes the exit record and ends the process. host.mu orders changes of
// the memory's bound with the making of the guest's store; the running guest
// takes no lock.
//
// Every page that this package's imports touch at start is paid by every
// container: it uses neither fmt, net, os/exec, log/slog nor encoding/json.
package host
