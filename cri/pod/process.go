package pod

import (
	"bytes"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/image"
)

// argv is the guest's arguments as far as request and image decide them: the
// request's command replaces the image's entry point and arguments, its args
// replace the image's arguments only. named is false when there is neither a
// command nor an entry point, and the first argument may be none of a program.
func argv(c *runtime.ContainerConfig, i image.RunConfig) (args []string, named bool) {
	command, rest := c.GetCommand(), c.GetArgs()
	if len(command) == 0 {
		command = i.Entrypoint
		if len(rest) == 0 {
			rest = i.Cmd
		}
	}
	return slices.Concat(command, rest), len(command) > 0
}

// program is what image.Service.Prepare is asked for: the path of the module
// in an image with files, nothing where the module is the image.
func program(args []string, named bool, i image.Image) string {
	if len(args) == 0 || !named && moduleIsLayer(i) {
		return ""
	}
	return args[0]
}

// withName puts a name of the program in front where no argument is one.
func withName(args []string, named bool, p *image.Prepared, ref string) []string {
	switch {
	case !named && p.Root == nil:
		return slices.Concat([]string{programName(ref, p)}, args)
	case len(args) == 0:
		return []string{path.Base(p.Module)}
	}
	return args
}

// programName is what an artifact's guest is called: the last part of its
// repository, by the name that the user knows.
func programName(ref string, p *image.Prepared) string {
	if strings.HasPrefix(ref, "sha256:") && len(p.Image.RepoTags) > 0 {
		ref = p.Image.RepoTags[0]
	}
	ref, _, _ = strings.Cut(ref, "@")
	last, _, _ := strings.Cut(path.Base(ref), ":")
	if last == "" || last == "." || last == "/" || strings.HasPrefix(ref, "sha256:") {
		return path.Base(p.Module)
	}
	return strings.TrimSuffix(last, ".wasm") + ".wasm"
}

func moduleIsLayer(i image.Image) bool {
	return len(i.Modules) > 0 && !slices.ContainsFunc(i.Modules, func(m image.Module) bool { return !m.Layer })
}

// environment is the image's variables, ours, then the request's; a later one
// of the same name wins in the place of the first.
func environment(c *runtime.ContainerConfig, i image.RunConfig, hostname, cwd string) ([]string, error) {
	var env []string
	place := map[string]int{}
	set := func(name, value string) {
		if at, ok := place[name]; ok {
			env[at] = name + "=" + value
			return
		}
		place[name] = len(env)
		env = append(env, name+"="+value)
	}
	// Preview 1 has no working directory; libraries that care read PWD.
	set("PWD", cwd)
	set("HOSTNAME", hostname)
	for _, e := range i.Env {
		name, value, ok := strings.Cut(e, "=")
		if strings.ContainsRune(e, 0) {
			return nil, invalid("the image's environment variable %q holds a zero byte, at which it would end", name)
		}
		if ok && name != "" {
			set(name, value)
		}
	}
	for _, e := range c.GetEnvs() {
		name := e.GetKey()
		if name == "" || strings.ContainsAny(name, "=\x00") || bytes.IndexByte(e.GetValue(), 0) >= 0 {
			return nil, invalid("environment variable %q: a name without = and no zero bytes are wanted", name)
		}
		set(name, string(e.GetValue()))
	}
	if len(env) > maxStrings {
		return nil, invalid("%d environment variables; at most %d", len(env), maxStrings)
	}
	return env, nil
}

// workingDir is where relative paths of the guest start.
func workingDir(c *runtime.ContainerConfig, i image.RunConfig) (string, error) {
	cwd := c.GetWorkingDir()
	if cwd == "" {
		cwd = i.WorkingDir
	}
	if cwd == "" {
		return "/", nil
	}
	if !path.IsAbs(cwd) || strings.ContainsRune(cwd, 0) {
		return "", invalid("working directory %q is not an absolute path", cwd)
	}
	cwd = path.Clean(cwd)
	return cwd, checkPath("the working directory", cwd)
}

// userOf decides who the guest runs as. The group is the image's when the user
// is, else the unprivileged one, never silently root's.
func userOf(sc *runtime.LinuxContainerSecurityContext, i image.RunConfig, p Profile) (user, error) {
	u := user{UID: i.UID, GID: i.GID}
	switch {
	case sc.GetRunAsUser() != nil:
		u.UID = sc.GetRunAsUser().GetValue()
		if u.UID != i.UID {
			u.GID = image.DefaultUID
		}
		if u.UID == 0 {
			u.GID = 0
		}
	case sc.GetRunAsUsername() != "":
		if n := sc.GetRunAsUsername(); n != i.User && n != i.Username && n != strings.SplitN(i.User, ":", 2)[0] {
			return user{}, &FieldError{Field: "ContainerConfig.linux.security_context.run_as_username", Sentence: strconv.Quote(n) + " is not the image's user; give a number (runAsUser)"}
		}
		fallthrough
	default:
		if u.UID < 0 {
			return user{}, invalid("the image's user %q is not in its /etc/passwd; give a number (runAsUser)", i.Username)
		}
	}
	if g := sc.GetRunAsGroup(); g != nil {
		if sc.GetRunAsUser() == nil && sc.GetRunAsUsername() == "" {
			return user{}, invalid("linux.security_context.run_as_group is set without run_as_user")
		}
		u.GID = g.GetValue()
	}
	u.Groups = slices.Clone(sc.GetSupplementalGroups())
	if len(u.Groups) > maxGroups {
		return user{}, invalid("%d supplemental groups; at most %d", len(u.Groups), maxGroups)
	}
	for _, id := range slices.Concat([]int64{u.UID, u.GID}, u.Groups) {
		if id < 0 || id >= math.MaxUint32 {
			return user{}, invalid("user or group %d is not from 0 to %d", id, uint32(math.MaxUint32)-1)
		}
		if id == 0 && !p.AllowRoot {
			return user{}, &FieldError{Field: "running as user or group 0", Sentence: "the handler's profile forbids it (allow_root); set runAsUser and runAsGroup"}
		}
	}
	return u, nil
}

// stopSignal is the request's, else the image's, else SIGTERM.
func stopSignal(c *runtime.ContainerConfig, i image.RunConfig) (syscall.Signal, error) {
	if s := c.GetStopSignal(); s != runtime.Signal_SIGNAL_RUNTIME_DEFAULT {
		n, ok := criNumber(s)
		if !ok {
			return 0, invalid("stop signal %s is unknown to this node", s)
		}
		return n, nil
	}
	if i.StopSignal == "" {
		return syscall.SIGTERM, nil
	}
	n, ok := signalNumber(i.StopSignal)
	if !ok {
		return 0, invalid("the image's stop signal %q is unknown", i.StopSignal)
	}
	return n, nil
}

// Real-time signals as C libraries number them: the first two are theirs.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// signalNumber reads "15", "TERM", "SIGTERM", "SIGRTMIN+3" or CRI's
// "SIGRTMINPLUS3".
func signalNumber(name string) (syscall.Signal, bool) {
	if n, err := strconv.Atoi(name); err == nil {
		return syscall.Signal(n), n > 0 && n <= sigRTMax
	}
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if rest, ok := strings.CutPrefix(name, "SIGRTMIN"); ok {
		return realTime(sigRTMin, +1, rest, "+", "PLUS")
	}
	if rest, ok := strings.CutPrefix(name, "SIGRTMAX"); ok {
		return realTime(sigRTMax, -1, rest, "-", "MINUS")
	}
	n := unix.SignalNum(name)
	return n, n != 0
}

func realTime(from, sign int, rest string, words ...string) (syscall.Signal, bool) {
	if rest == "" {
		return syscall.Signal(from), true
	}
	for _, w := range words {
		if d, ok := strings.CutPrefix(rest, w); ok {
			n, err := strconv.Atoi(d)
			s := from + sign*n
			return syscall.Signal(s), err == nil && n >= 0 && s >= sigRTMin && s <= sigRTMax
		}
	}
	return 0, false
}

// criNumber is the number of a signal of CRI, which has three under two names.
func criNumber(s runtime.Signal) (syscall.Signal, bool) {
	switch s {
	case runtime.Signal_SIGNAL_SIGCLD:
		return unix.SIGCHLD, true
	case runtime.Signal_SIGNAL_SIGIOT:
		return unix.SIGABRT, true
	case runtime.Signal_SIGNAL_SIGPOLL:
		return unix.SIGIO, true
	}
	return signalNumber(strings.TrimPrefix(s.String(), "SIGNAL_"))
}

// criSignal is a signal in the words of CRI: the lowest that has its number.
func criSignal(n syscall.Signal) runtime.Signal {
	for s := runtime.Signal_SIGNAL_SIGABRT; s <= runtime.Signal_SIGNAL_SIGRTMAX; s++ {
		if got, ok := criNumber(s); ok && got == n {
			return s
		}
	}
	return runtime.Signal_SIGNAL_RUNTIME_DEFAULT
}
