// Probe is what the tests of package confine run confined: it looks around
// from inside and tells what it finds. Each line of its payload is an action;
// it answers each with a line on the log's descriptor, then waits for the end
// of its standard input.
package main

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/confine"
	"github.com/limpet-cri/limpet/shim/spec"
)

func main() {
	payload, err := confine.Payload(spec.FDOrder)
	if err != nil {
		os.Stderr.WriteString("probe: " + err.Error() + "\n")
		os.Exit(3)
	}
	out := spec.FDLog
	if len(os.Args) > 1 && os.Args[1] == "compile" {
		out = spec.FDCompileOut
	}
	for line := range strings.Lines(string(payload)) {
		line = strings.TrimSuffix(line, "\n")
		verb, arg, _ := strings.Cut(line, " ")
		if _, err := unix.Write(out, []byte(line+" = "+act(verb, arg)+"\n")); err != nil {
			os.Exit(4)
		}
	}
	var b [1]byte
	for {
		if n, err := unix.Read(0, b[:]); err != unix.EINTR && n <= 0 {
			return
		}
	}
}

// act carries an action out and returns its result in words.
func act(verb, arg string) string {
	switch verb {
	case "confined":
		return strconv.FormatBool(confine.Confined())
	case "pid":
		return strconv.Itoa(unix.Getpid())
	case "list":
		return list(arg)
	case "read":
		b, err := os.ReadFile(arg)
		if err != nil {
			return text(err)
		}
		return strconv.Quote(string(b))
	case "write":
		return text(os.WriteFile(arg, []byte("probe"), 0o644))
	case "create": // as a guest that never truncates
		return create(arg)
	case "fill":
		return fill(arg)
	case "names":
		return names(arg)
	case "rename":
		from, to, _ := strings.Cut(arg, " ")
		return text(unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, 0))
	case "open":
		return open(arg)
	case "mode":
		var st unix.Stat_t
		if err := unix.Fstatat(unix.AT_FDCWD, arg, &st, 0); err != nil {
			return text(err)
		}
		return strconv.FormatUint(uint64(st.Mode), 8)
	case "map":
		return mapCode(arg)
	case "mapexec":
		return text(mapExec())
	case "seal":
		return text(confine.Seal())
	case "bind":
		return bind(arg)
	case "connect":
		return connect(arg)
	case "abstract":
		return connectAbstract(arg)
	case "exec":
		return text(unix.Exec(arg, []string{arg}, nil))
	case "truncate":
		return text(unix.Truncate(arg, 1))
	case "dumpable":
		r, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		if err != nil {
			return text(err)
		}
		return strconv.Itoa(r)
	case "syscall":
		nr, _ := strconv.Atoi(arg)
		_, _, e := unix.Syscall6(uintptr(nr), 0, 0, 0, 0, 0, 0)
		return text(e)
	}
	return "unknown action"
}

func list(dir string) string {
	l, err := os.ReadDir(dir)
	if err != nil {
		return text(err)
	}
	var names []string
	for _, e := range l {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func open(path string) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return text(err)
	}
	unix.Close(fd)
	return text(nil)
}

func create(path string) string {
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o666)
	if err != nil {
		return text(err)
	}
	unix.Close(fd)
	return text(nil)
}

// fill writes to a file until it is refused.
func fill(path string) string {
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return text(err)
	}
	defer unix.Close(fd)
	var page [4096]byte
	for total := 0; ; {
		n, err := unix.Write(fd, page[:])
		if err != nil {
			return strconv.Itoa(total) + " " + text(err)
		}
		total += n
	}
}

// names makes empty files until it is refused, or has made a great many.
func names(prefix string) string {
	for n := range 1 << 16 {
		if said := create(prefix + strconv.Itoa(n)); said != "ok" {
			return strconv.Itoa(n) + " " + said
		}
	}
	return "no end"
}

// mapCode maps a file as the engine maps code.
func mapCode(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return text(err)
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return text(err)
	}
	return text(unix.Mprotect(b, unix.PROT_READ|unix.PROT_EXEC))
}

func mapExec() error {
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	return unix.Munmap(b)
}

func bind(port string) string {
	n, _ := strconv.Atoi(port)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return text(err)
	}
	defer unix.Close(fd)
	return text(unix.Bind(fd, &unix.SockaddrInet4{Port: n, Addr: [4]byte{127, 0, 0, 1}}))
}

func connect(port string) string {
	n, _ := strconv.Atoi(port)
	return connectTo(unix.AF_INET, &unix.SockaddrInet4{Port: n, Addr: [4]byte{127, 0, 0, 1}})
}

func connectAbstract(name string) string {
	return connectTo(unix.AF_UNIX, &unix.SockaddrUnix{Name: "@" + name})
}

func connectTo(family int, to unix.Sockaddr) string {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return text(err)
	}
	defer unix.Close(fd)
	return text(unix.Connect(fd, to))
}

// text names an error by its constant.
func text(err error) string {
	var e syscall.Errno
	switch {
	case errors.As(err, &e) && e != 0:
		return unix.ErrnoName(e)
	case err == nil || errors.As(err, &e):
		return "ok"
	}
	return err.Error()
}
