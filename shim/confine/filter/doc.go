// Package filter owns the seccomp programs of hosts: one table that says which
// system calls a confined process may make and why, and their assembly for
// amd64 and arm64. It runs in the daemon; a host gets the bytes in its order.
//
// What no table names ends the process (SIGSYS): a host needs nothing else,
// so whoever tries has taken it over.
package filter
