// Package wasip1 owns how the calls of WASI preview 1 look to a guest: their
// names and signatures, the layout of their arguments in guest memory and
// their error numbers. What the calls do is wasm/wasi's.
//
// Both names that modules in the wild import are served:
// wasi_snapshot_preview1 and its forerunner wasi_unstable, with the layouts
// and numbers that differ there.
//
// It never touches guest memory but through the slice that a call is given,
// and every pointer and length is checked against it before anything happens.
package wasip1

import (
	"github.com/limpet-cri/limpet/wasm"
	"github.com/limpet-cri/limpet/wasm/wasi"
)

// Names of the two modules.
const (
	Module         = "wasi_snapshot_preview1"
	ModuleUnstable = "wasi_unstable"
)

// guest is the side of one module name: the System and which layouts apply.
type guest struct {
	sys      *wasi.System
	unstable bool
}

// call is one function of preview 1. a holds its parameters. The error becomes
// the errno that the function returns, unless it ends the guest.
type call func(g *guest, mem []byte, a []wasm.Raw) error

// entry describes a function: its parameters, one letter each (i and I for 32
// and 64 bits), and what carries it out. Every one but proc_exit
// returns an errno.
type entry struct {
	name   string
	params string
	call   call
	fast   wasm.Fast
}

// entries returns the functions in the order of the specification.
func entries() []entry {
	return []entry{
		{"args_get", "ii", argsGet, 0},
		{"args_sizes_get", "ii", argsSizesGet, 0},
		{"environ_get", "ii", environGet, 0},
		{"environ_sizes_get", "ii", environSizesGet, 0},
		{"clock_res_get", "ii", clockResGet, 0},
		{"clock_time_get", "iIi", clockTimeGet, wasm.FastClockTimeGet},
		{"fd_advise", "iIIi", fdAdvise, 0},
		{"fd_allocate", "iII", fdAllocate, 0},
		{"fd_close", "i", fdClose, 0},
		{"fd_datasync", "i", fdDatasync, 0},
		{"fd_fdstat_get", "ii", fdFdstatGet, 0},
		{"fd_fdstat_set_flags", "ii", fdFdstatSetFlags, 0},
		{"fd_fdstat_set_rights", "iII", fdFdstatSetRights, 0},
		{"fd_filestat_get", "ii", fdFilestatGet, 0},
		{"fd_filestat_set_size", "iI", fdFilestatSetSize, 0},
		{"fd_filestat_set_times", "iIIi", fdFilestatSetTimes, 0},
		{"fd_pread", "iiiIi", fdPread, 0},
		{"fd_prestat_get", "ii", fdPrestatGet, 0},
		{"fd_prestat_dir_name", "iii", fdPrestatDirName, 0},
		{"fd_pwrite", "iiiIi", fdPwrite, 0},
		{"fd_read", "iiii", fdRead, 0},
		{"fd_readdir", "iiiIi", fdReaddir, 0},
		{"fd_renumber", "ii", fdRenumber, 0},
		{"fd_seek", "iIii", fdSeek, 0},
		{"fd_sync", "i", fdSync, 0},
		{"fd_tell", "ii", fdTell, 0},
		{"fd_write", "iiii", fdWrite, 0},
		{"path_create_directory", "iii", pathCreateDirectory, 0},
		{"path_filestat_get", "iiiii", pathFilestatGet, 0},
		{"path_filestat_set_times", "iiiiIIi", pathFilestatSetTimes, 0},
		{"path_link", "iiiiiii", pathLink, 0},
		{"path_open", "iiiiiIIii", pathOpen, 0},
		{"path_readlink", "iiiiii", pathReadlink, 0},
		{"path_remove_directory", "iii", pathRemoveDirectory, 0},
		{"path_rename", "iiiiii", pathRename, 0},
		{"path_symlink", "iiiii", pathSymlink, 0},
		{"path_unlink_file", "iii", pathUnlinkFile, 0},
		{"poll_oneoff", "iiii", pollOneoff, 0},
		{"proc_exit", "i", procExit, 0},
		{"proc_raise", "i", procRaise, 0},
		{"sched_yield", "", schedYield, wasm.FastSchedYield},
		{"random_get", "ii", randomGet, wasm.FastRandomGet},
		{"sock_accept", "iii", sockAccept, 0},
		{"sock_recv", "iiiiii", sockRecv, 0},
		{"sock_send", "iiiii", sockSend, 0},
		{"sock_shutdown", "ii", sockShutdown, 0},
	}
}

// Imports returns all functions of both modules over sys.
func Imports(sys *wasi.System) []wasm.Import {
	list := entries()
	out := make([]wasm.Import, 0, 2*len(list))
	for _, g := range []*guest{{sys: sys}, {sys: sys, unstable: true}} {
		for _, e := range list {
			if g.unstable && e.name == "sock_accept" {
				continue // came with a later snapshot
			}
			out = append(out, g.bind(e))
		}
	}
	return out
}

func (g *guest) bind(e entry) wasm.Import {
	imp := wasm.Import{Module: Module, Name: e.name, Fast: e.fast}
	if g.unstable {
		imp.Module = ModuleUnstable
	}
	for _, p := range e.params {
		t := wasm.I32
		if p == 'I' {
			t = wasm.I64
		}
		imp.Type.Params = append(imp.Type.Params, t)
	}
	f := e.call
	if e.name == "proc_exit" {
		imp.Func = func(mem []byte, stack []wasm.Raw) error { return f(g, mem, stack) }
		return imp
	}
	imp.Type.Results = []wasm.ValType{wasm.I32}
	imp.Func = func(mem []byte, stack []wasm.Raw) error { return g.do(f, mem, stack) }
	return imp
}

// do runs a call and puts its errno where the guest finds it. An interrupted
// guest ends with the error that Interrupt was given.
func (g *guest) do(f call, mem []byte, stack []wasm.Raw) error {
	if err := g.sys.Err(); err != nil {
		return err
	}
	err := f(g, mem, stack)
	if err == nil {
		stack[0].SetI32(uint32(errnoSuccess))
		return nil
	}
	if err == wasi.ErrInterrupted {
		return g.sys.Err()
	}
	if exit, ok := err.(*wasm.Exit); ok {
		return exit
	}
	stack[0].SetI32(uint32(ErrnoOf(err)))
	return nil
}
