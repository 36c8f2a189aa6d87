package shim

import (
	"context"
	"errors"
	"os"
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/cgroup"
)

// compileGroupPrefix begins the name of a compiler's cgroup; the pid of the
// daemon and a number follow.
const compileGroupPrefix = "compile-"

// compileGroup makes a cgroup for one child, if that is configured.
func (s *Supervisor) compileGroup() (*cgroup.Group, error) {
	if s.cfg.Cgroups == nil || s.cfg.CompileCgroup == "" {
		return nil, nil
	}
	name := compileGroupPrefix + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatUint(s.compiled.Add(1), 10)
	return s.cfg.Cgroups.Create(path.Join(s.cfg.CompileCgroup, name),
		&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &s.cfg.CompileMemory}})
}

func (s *Supervisor) dropGroup(ctx context.Context, group *cgroup.Group) {
	if group == nil {
		return
	}
	ctx, cancel := undoContext(ctx)
	defer cancel()
	if err := group.Remove(ctx); err != nil {
		s.log.Error("cgroup of a compiler stays behind", "cgroup", group.Path(), "error", err)
	}
}

// sweepCompilers ends the compilers of a daemon that was killed, whose code
// nobody waits for, and removes their cgroups.
func (s *Supervisor) sweepCompilers() {
	if s.cfg.Cgroups == nil || s.cfg.CompileCgroup == "" {
		return
	}
	names, err := s.cfg.Cgroups.Open(s.cfg.CompileCgroup).Children()
	if err != nil && !errors.Is(err, cgroup.ErrNotFound) {
		s.log.Error("could not list the cgroups of compilers", "cgroup", s.cfg.CompileCgroup, "error", err)
		return
	}
	for _, name := range names {
		if !strayCompiler(name) {
			continue
		}
		group := s.cfg.Cgroups.Open(path.Join(s.cfg.CompileCgroup, name))
		s.log.Info("ending a compiler that an earlier daemon left", "cgroup", group.Path())
		if err := group.Kill(); err != nil {
			s.log.Error("a compiler of an earlier daemon does not end", "cgroup", group.Path(), "error", err)
			continue
		}
		s.dropGroup(context.Background(), group)
	}
}

// strayCompiler reports whether a cgroup was made for a compiler by a daemon
// that is no more. One that had this process's number is: nothing has been
// compiled yet.
func strayCompiler(name string) bool {
	rest, ok := strings.CutPrefix(name, compileGroupPrefix)
	if !ok {
		return false
	}
	number, _, ok := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(number)
	if !ok || err != nil || pid <= 0 {
		return false
	}
	return pid == os.Getpid() || errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}
