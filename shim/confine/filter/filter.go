package filter

import (
	"encoding/binary"
	"fmt"
	"runtime"

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
		allow:  [][]rule{runtimeCalls, compileCalls},
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

// assemble puts the program together: what depends on arguments and what is
// refused with an error comes first, each such call's part ending in a return,
// so that the kernel's cache of always-allowed calls sees no argument on the
// way to the others; then the list of names.
func assemble(goarch string, p plan) ([]bpf.Instruction, error) {
	info, err := archInfo(goarch)
	if err != nil {
		return nil, err
	}
	prog := prologue(info)
	for _, l := range p.checks {
		for _, c := range l {
			part, err := c.assemble(info)
			if err != nil {
				return nil, err
			}
			prog = append(prog, part...)
		}
	}
	for _, r := range refusals {
		for _, call := range r.calls {
			part, err := onCall(info, call, []bpf.Instruction{errnoReturn(r.errno)})
			if err != nil {
				return nil, err
			}
			prog = append(prog, part...)
		}
	}
	list, err := allowList(info, names(goarch, p.allow))
	return append(prog, list...), err
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

// allowList allows the numbers of names and ends the process for the rest.
// Numbers and actions are the library's, the program is not: its own groups
// assemble for the running machine alone, and after an argument condition that
// does not hold they compare the following numbers with that argument.
func allowList(info *arch.Info, names []string) ([]bpf.Instruction, error) {
	var prog []bpf.Instruction
	for _, name := range names {
		part, err := onCall(info, name, []bpf.Instruction{actionReturn(seccomp.ActionAllow)})
		if err != nil {
			return nil, err
		}
		prog = append(prog, part...)
	}
	return append(prog, actionReturn(seccomp.ActionKillProcess)), nil
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

// onCall guards a part, which must end in a return, by a call's number.
func onCall(info *arch.Info, call string, part []bpf.Instruction) ([]bpf.Instruction, error) {
	nr, ok := info.SyscallNames[call]
	if !ok && call == "newfstatat" {
		nr, ok = info.SyscallNames["fstatat"] // its name in the table of arm64
	}
	if !ok {
		return nil, fmt.Errorf("seccomp filter: %s has no system call %s", info.Name, call)
	}
	if len(part) > 255 {
		return nil, fmt.Errorf("seccomp filter: the part for %s is too long", call)
	}
	head := bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(nr), SkipFalse: uint8(len(part))}
	return append([]bpf.Instruction{head}, part...), nil
}

// assemble allows the call if one set of checks holds and ends the process
// otherwise.
func (c conditional) assemble(info *arch.Info) ([]bpf.Instruction, error) {
	var part []bpf.Instruction
	for _, set := range c.any {
		part = append(part, allHold(set, actionReturn(seccomp.ActionAllow))...)
	}
	return onCall(info, c.call, append(part, actionReturn(seccomp.ActionKillProcess)))
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
	info, err := archInfo(goarch)
	if err != nil {
		return nil, err
	}
	prog := prologue(info)
	exec := []check{{2, unix.PROT_EXEC, unix.PROT_EXEC}}
	for _, call := range []string{"mmap", "mprotect", "pkey_mprotect"} {
		part := append(allHold(exec, errnoReturn(unix.EPERM)), actionReturn(seccomp.ActionAllow))
		if part, err = onCall(info, call, part); err != nil {
			return nil, err
		}
		prog = append(prog, part...)
	}
	last, err := onCall(info, "seccomp", []bpf.Instruction{errnoReturn(unix.EPERM)})
	if err != nil {
		return nil, err
	}
	prog = append(prog, last...)
	return append(prog, actionReturn(seccomp.ActionAllow)), nil
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
