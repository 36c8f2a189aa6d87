package filter

import (
	"encoding/binary"
	"fmt"
	"maps"
	"runtime"
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data, little-endian: an argument's low half comes
// first.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
	wordSize  = 4
)

// x32Bit marks system calls of amd64's x32 ABI, which has the same arch value.
const x32Bit = 0x40000000

// Run returns the program for a host that runs a guest.
func Run() ([]byte, error) {
	return encode(assemble(runtime.GOARCH, plan{
		allow:  [][]rule{runtimeCalls, guestCalls},
		checks: [][]conditional{runtimeConditions, guestConditions},
	}))
}

// Compile returns the program for a host that compiles a module or tells the
// engine's key.
func Compile() ([]byte, error) {
	return encode(assemble(runtime.GOARCH, plan{
		allow:  [][]rule{runtimeCalls},
		checks: [][]conditional{runtimeConditions},
	}))
}

// Seal returns the program that is installed on top of Run's once the guest's
// code is mapped: nothing becomes executable any more, and no further filter
// is installed.
func Seal() ([]byte, error) { return encode(assembleSeal(runtime.GOARCH)) }

// plan is what a program is made of.
type plan struct {
	allow  [][]rule
	checks [][]conditional
}

// entry is what a program does on one system call: a part that ends in a
// return on every way through it.
type entry struct {
	call string
	part []bpf.Instruction
}

// entries lists what p says, in the tables' order.
func (p plan) entries(goarch string) []entry {
	var l []entry
	for _, conditions := range p.checks {
		for _, c := range conditions {
			l = append(l, entry{c.call, c.assemble()})
		}
	}
	for _, r := range refusals {
		for _, call := range r.calls {
			l = append(l, entry{call, []bpf.Instruction{errnoReturn(r.errno)}})
		}
	}
	for _, name := range names(goarch, p.allow) {
		l = append(l, entry{name, []bpf.Instruction{actionReturn(seccomp.ActionAllow)}})
	}
	return l
}

// assemble puts the program together; what has no entry ends the process.
//
// Names, numbers and actions are the library's, the program is not: its groups
// assemble for the running machine alone, and after an argument condition that
// does not hold they compare the numbers that follow with that argument.
func assemble(goarch string, p plan) ([]bpf.Instruction, error) {
	return dispatch(goarch, p.entries(goarch), actionReturn(seccomp.ActionKillProcess))
}

// chunkSize is how many numbers are compared one after another. The kernel
// walks the program once for each of its system calls when it is installed, to
// know which are always allowed: in chunks that takes 120 us, in one list 220.
const chunkSize = 12

// dispatch compares the number with those of the entries, in their order and
// in chunks that are skipped as a whole, and returns otherwise for the rest.
func dispatch(goarch string, entries []entry, otherwise bpf.Instruction) ([]bpf.Instruction, error) {
	info, err := archInfo(goarch)
	if err != nil {
		return nil, err
	}
	numbers, parts, err := byNumber(info, entries)
	if err != nil {
		return nil, err
	}
	prog := prologue(info)
	for chunk := range slices.Chunk(numbers, chunkSize) {
		var body []bpf.Instruction
		for _, nr := range chunk {
			body = append(body, bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipFalse: uint8(len(parts[nr]))})
			body = append(body, parts[nr]...)
		}
		body = append(body, otherwise)
		if len(body) > maxSkip {
			return nil, fmt.Errorf("seccomp filter: a chunk of %d instructions", len(body))
		}
		last := chunk[len(chunk)-1]
		prog = append(prog, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: last, SkipTrue: uint8(len(body))})
		prog = append(prog, body...)
	}
	return append(prog, otherwise), nil
}

// maxSkip is how far a jump leads in BPF.
const maxSkip = 255

// byNumber returns the entries' numbers in order, and each one's part.
func byNumber(info *arch.Info, entries []entry) ([]uint32, map[uint32][]bpf.Instruction, error) {
	parts := make(map[uint32][]bpf.Instruction, len(entries))
	for _, e := range entries {
		nr, ok := info.SyscallNames[e.call]
		if !ok && e.call == "newfstatat" {
			nr, ok = info.SyscallNames["fstatat"] // its name in the table of arm64
		}
		if !ok {
			return nil, nil, fmt.Errorf("seccomp filter: %s has no system call %s", info.Name, e.call)
		}
		if _, twice := parts[uint32(nr)]; twice {
			return nil, nil, fmt.Errorf("seccomp filter: %s stands twice", e.call)
		}
		parts[uint32(nr)] = e.part
	}
	return slices.Sorted(maps.Keys(parts)), parts, nil
}

func archInfo(goarch string) (*arch.Info, error) {
	if goarch != "amd64" && goarch != "arm64" {
		return nil, fmt.Errorf("seccomp filter: no table for %s", goarch)
	}
	info, err := arch.GetInfo(goarch)
	if err != nil {
		return nil, fmt.Errorf("seccomp filter: %w", err)
	}
	return info, nil
}

func names(goarch string, lists [][]rule) []string {
	if goarch == "amd64" {
		lists = append(lists[:len(lists):len(lists)], amd64Calls)
	}
	var l []string
	for _, rules := range lists {
		for _, r := range rules {
			l = append(l, r.calls...)
		}
	}
	return l
}

// prologue ends the process for calls of another architecture and leaves the
// number in the accumulator.
func prologue(info *arch.Info) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: wordSize},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(info.ID), SkipTrue: 1},
		actionReturn(seccomp.ActionKillProcess),
		bpf.LoadAbsolute{Off: offNumber, Size: wordSize},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32Bit, SkipFalse: 1},
		actionReturn(seccomp.ActionKillProcess),
	}
}

func actionReturn(a seccomp.Action) bpf.Instruction { return bpf.RetConstant{Val: uint32(a)} }

func errnoReturn(e unix.Errno) bpf.Instruction {
	return bpf.RetConstant{Val: uint32(seccomp.ActionErrno) | uint32(e)}
}

// assemble allows the call if one set of checks holds and ends the process
// otherwise.
func (c conditional) assemble() []bpf.Instruction {
	var part []bpf.Instruction
	for _, set := range c.any {
		part = append(part, allHold(set, actionReturn(seccomp.ActionAllow))...)
	}
	return append(part, actionReturn(seccomp.ActionKillProcess))
}

// checkSize is the number of instructions of one check.
const checkSize = 3

// allHold returns then if all checks hold and goes on behind otherwise.
func allHold(set []check, then bpf.Instruction) []bpf.Instruction {
	var part []bpf.Instruction
	for i, c := range set {
		rest := checkSize*(len(set)-1-i) + 1
		part = append(part,
			bpf.LoadAbsolute{Off: offArgs + 2*wordSize*c.arg, Size: wordSize},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: c.mask},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: c.value, SkipFalse: uint8(rest)})
	}
	return append(part, then)
}

// assembleSeal refuses PROT_EXEC with EPERM and allows the rest: Run's program
// stays in force beneath.
func assembleSeal(goarch string) ([]bpf.Instruction, error) {
	exec := []check{{2, unix.PROT_EXEC, unix.PROT_EXEC}}
	entries := []entry{{"seccomp", []bpf.Instruction{errnoReturn(unix.EPERM)}}}
	for _, call := range []string{"mmap", "mprotect", "pkey_mprotect"} {
		part := append(allHold(exec, errnoReturn(unix.EPERM)), actionReturn(seccomp.ActionAllow))
		entries = append(entries, entry{call, part})
	}
	return dispatch(goarch, entries, actionReturn(seccomp.ActionAllow))
}

// encode turns a program into the kernel's struct sock_filter array.
func encode(prog []bpf.Instruction, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	raw, err := bpf.Assemble(prog)
	if err != nil {
		return nil, fmt.Errorf("assemble seccomp filter: %w", err)
	}
	b := make([]byte, 0, 8*len(raw))
	for _, i := range raw {
		b = binary.LittleEndian.AppendUint16(b, i.Op)
		b = append(b, i.Jt, i.Jf)
		b = binary.LittleEndian.AppendUint32(b, i.K)
	}
	return b, nil
}
