// Package precompile owns the cache of compiled code: one file per module and
// engine, made by a Compiler, checked against a keyed checksum before it is
// handed out, and collected when no image refers to it.
//
// It never compiles anything itself, never has a module compiled whose bytes
// are not those of its digest, and never trusts a file whose checksum it has
// not verified since it was opened.
//
// Lock order: Cache.gc before Cache.mu. Cache.gc is held for reading while a
// finished file is renamed to its place, for writing while the collector
// sweeps; never over a compilation.
package precompile

import (
	"context"
	"os"
)

// Compiler turns a module into code for this node's engine. The Supervisor
// of hosts is one; tests have their own.
type Compiler interface {
	// Compile reads a core module from in, from its start, and writes its
	// code to out, an empty file. An error that says that the module is at
	// fault (and not the machine) should wrap nothing in particular: every
	// error is reported, and remembered for a bounded time.
	Compile(ctx context.Context, in, out *os.File, proposals []string) error
	// EngineKey names the engine's build and settings. Code compiled under
	// one key must not be loaded under another.
	EngineKey(ctx context.Context, proposals []string) (string, error)
}
