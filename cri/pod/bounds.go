package pod

import (
	"strings"

	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Bounds of a request. What is beyond them would fail later and say less, or
// would be paid for by every list from then on.
const (
	// maxConfig bounds the configuration of a sandbox or a container, in bytes:
	// as much as a program can be given as arguments and environment by the
	// kernel, and what a record of it still holds however it is escaped.
	maxConfig = 2 << 20
	// maxMarks bounds the labels and annotations of one object, in bytes. Each
	// list of the node carries them; the API server takes annotations up to
	// half of it.
	maxMarks = 512 << 10
	// maxStrings bounds the arguments and the variables, each by number; it is
	// what a host takes.
	maxStrings = 1 << 16
	// maxGroups bounds the groups of a host, by number.
	maxGroups = 1000
	// maxPath and maxName are the kernel's, without the final zero.
	maxPath = 4095
	maxName = 255
)

// checkSize refuses a configuration that is larger than one can be.
func checkSize(config proto.Message, labels, annotations map[string]string) error {
	n := 0
	for _, m := range []map[string]string{labels, annotations} {
		for k, v := range m {
			n += len(k) + len(v)
		}
	}
	if n > maxMarks {
		return invalid("labels and annotations have %d bytes together; at most %d, since every list carries them", n, maxMarks)
	}
	if n := proto.Size(config); n > maxConfig {
		return invalid("the configuration has %d bytes; at most %d: put large values into a volume", n, maxConfig)
	}
	return nil
}

// checkArgs refuses arguments that no program can be given. Their text is not
// repeated: it may be a secret.
func checkArgs(args []string) error {
	if len(args) > maxStrings {
		return invalid("%d arguments; at most %d", len(args), maxStrings)
	}
	for i, a := range args {
		if strings.ContainsRune(a, 0) {
			return invalid("argument %d of command and args holds a zero byte, at which it would end", i)
		}
	}
	return nil
}

// checkPath refuses a path in the guest's root that the kernel would refuse.
func checkPath(what, p string) error {
	if len(p) > maxPath {
		return invalid("%s has %d bytes; a path has at most %d", what, len(p), maxPath)
	}
	for name := range strings.SplitSeq(p, "/") {
		if len(name) > maxName {
			return invalid("%s has a name of %d bytes in it; a file's name has at most %d", what, len(name), maxName)
		}
	}
	return nil
}

// checkHostname refuses what would be more than a name in /etc/hostname and
// /etc/hosts.
func checkHostname(c *runtime.PodSandboxConfig) error {
	h := c.GetHostname()
	switch {
	case len(h) > maxHostname:
		return invalid("hostname is %d bytes long; the kernel takes %d", len(h), maxHostname)
	case h == "" && !hostNetwork(c):
		return invalid("the sandbox has no hostname; only one with the node's network may")
	case strings.ContainsFunc(h, func(r rune) bool { return r <= ' ' || r > '~' || r == '#' || r == '/' }):
		return invalid("hostname %q is no host's name; letters, digits, dashes and dots are wanted", h)
	}
	return nil
}
