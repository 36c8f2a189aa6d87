package host

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// listenBacklog is the number of connections that wait for the guest to accept
// them; the kernel lowers it to net.core.somaxconn.
const listenBacklog = 4096

// lowPort is the first port that needs no privilege, unless the node says
// otherwise (net.ipv4.ip_unprivileged_port_start).
const lowPort = 1024

var errAddress error = &failure{"want :PORT, a.b.c.d:PORT or [IPv6 in full]:PORT"}

// listen makes a TCP socket that listens on address: ":port" (all addresses of
// both families), "a.b.c.d:port", or "[x:x:x:x:x:x:x:x]:port" with all eight
// groups, as the supervisor writes it.
func listen(address string) (int, error) {
	sa, port, err := parseAddress(address)
	if err != nil {
		return -1, err
	}
	var fd int
	switch a := sa.(type) {
	case nil:
		fd, err = bound(unix.AF_INET6, &unix.SockaddrInet6{Port: port}, 0)
		if err == unix.EAFNOSUPPORT || err == unix.EADDRNOTAVAIL { // a node without IPv6
			fd, err = bound(unix.AF_INET, &unix.SockaddrInet4{Port: port}, 0)
		}
	case *unix.SockaddrInet4:
		fd, err = bound(unix.AF_INET, a, 0)
	case *unix.SockaddrInet6:
		fd, err = bound(unix.AF_INET6, a, 1)
	}
	if err == unix.EACCES && port < lowPort {
		return -1, failed("ports below "+strconv.Itoa(lowPort)+" are privileged in this network", err)
	}
	return fd, err
}

func bound(family int, sa unix.Sockaddr, only6 int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	// A restarted container must not wait for the old connections to fade.
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil && family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only6)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil {
		err = unix.Listen(fd, listenBacklog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// parseAddress returns a nil address for "all".
func parseAddress(s string) (unix.Sockaddr, int, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return nil, 0, errAddress
	}
	n, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil || n == 0 {
		return nil, 0, errAddress
	}
	port, host := int(n), s[:i]
	if host == "" {
		return nil, port, nil
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		sa := &unix.SockaddrInet6{Port: port}
		if !ok || !fields(inner, ":", 16, sa.Addr[:]) {
			return nil, 0, errAddress
		}
		return sa, port, nil
	}
	sa := &unix.SockaddrInet4{Port: port}
	if !fields(host, ".", 10, sa.Addr[:]) {
		return nil, 0, errAddress
	}
	return sa, port, nil
}

// fields reads numbers of a base, 8 bits each in base 10 and 16 bits in base
// 16, and reports whether they fill b exactly.
func fields(s, sep string, base int, b []byte) bool {
	wide := base == 16
	for part := range strings.SplitSeq(s, sep) {
		bits := 8
		if wide {
			bits = 16
		}
		n, err := strconv.ParseUint(part, base, bits)
		if err != nil || len(b) < bits/8 {
			return false
		}
		if wide {
			b[0], b[1] = byte(n>>8), byte(n)
			b = b[2:]
		} else {
			b[0] = byte(n)
			b = b[1:]
		}
	}
	return len(b) == 0
}
