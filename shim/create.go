package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/cgroup"
	"github.com/limpet-cri/limpet/shim/spec"
)

// hostEnv is the whole environment of a host. One P is all that one guest can
// use, and each more costs memory in every pod; the runtime need not look for
// CPU limits that it would not act on.
var hostEnv = []string{"LIMPET_HOST=1", "GOMAXPROCS=1", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"}

// hostNamespaces are those that each host gets for itself at its birth. The
// mount namespace is made from an empty one by the constructor, and the
// network is the pod's.
const hostNamespaces = unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// Create makes the host of a container and waits until it is ready to run the
// guest. root is a detached mount that becomes the guest's root file system,
// nil for a memory-backed one; it stays the caller's. When Create fails,
// nothing of it is left, and the error says what the host had to say.
func (s *Supervisor) Create(ctx context.Context, c *spec.Container, root *os.File) (*Host, error) {
	if err := check(c); err != nil {
		return nil, err
	}
	h, err := s.create(ctx, c, root)
	if err != nil {
		return nil, fmt.Errorf("create host of container %s: %w", c.ID, err)
	}
	return h, nil
}

func (s *Supervisor) create(ctx context.Context, c *spec.Container, root *os.File) (*Host, error) {
	var back undo
	defer back.run()
	l := &launch{}
	defer l.close()

	lock, err := claim(l, c, &back)
	if err != nil {
		return nil, err
	}
	s.checkpoint("host.claimed")
	group := s.makeGroup(ctx, c, &back)
	if err := s.openFiles(l, c, lock, &back); err != nil {
		return nil, err
	}
	s.checkpoint("host.files")
	if err := s.orderOf(l, c, root); err != nil {
		return nil, err
	}
	s.checkpoint("host.ordered")
	born, err := join(l, group)
	if err != nil {
		return nil, err
	}
	s.checkpoint("host.grouped")
	h := s.newHost(c)
	if err := s.start(h, l, c, born); err != nil {
		return nil, err
	}
	s.checkpoint("host.born")
	l.close() // only the host may hold its socket and lock, or its end is not seen
	if err := s.awaitReady(ctx, h); err != nil {
		return nil, s.failed(h, err)
	}
	s.checkpoint("host.ready")
	if err := s.watch(h); err != nil {
		return nil, s.failed(h, err)
	}
	back.succeed()
	return h, nil
}

// claim makes the container's folder and takes its lock: from here on no other
// host of the container can be made.
func claim(l *launch, c *spec.Container, back *undo) (*os.File, error) {
	if err := makeDir(c.Dir, back); err != nil {
		return nil, err
	}
	lock, err := takeLock(c.Dir, back)
	if err != nil {
		return nil, err
	}
	return l.own(lock), nil
}

// openFiles opens what the host starts with, descriptors 0 to 7 except the
// order, whose place it keeps.
func (s *Supervisor) openFiles(l *launch, c *spec.Container, lock *os.File, back *undo) error {
	config, err := json.Marshal(c.OCI)
	if err != nil {
		return fmt.Errorf("runtime spec: %w", err)
	}
	// For people and for other runtimes; nothing of ours reads it.
	if err := os.WriteFile(filepath.Join(c.Dir, spec.FileConfig), config, 0o600); err != nil {
		return err
	}
	back.add(func() { os.Remove(filepath.Join(c.Dir, spec.FileConfig)) })
	exit, err := s.openOwn(l, c.Dir, spec.FileExit, back)
	if err != nil {
		return err
	}
	// So that a disk that is full in the end does not cost the exit code. A
	// file system that cannot promise room does without.
	err = unix.Fallocate(int(exit.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, spec.ExitRoom)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return &os.PathError{Op: "fallocate", Path: exit.Name(), Err: err}
	}
	diag, err := s.openOwn(l, c.Dir, spec.FileDiagnostics, back)
	if err != nil {
		return err
	}
	s.checkpoint("host.opened")
	sock, err := listen(c.Socket)
	if err != nil {
		return err
	}
	l.own(sock)
	back.add(func() { os.Remove(c.Socket) })
	s.checkpoint("host.listens")
	log, err := s.openLog(l, c.Limpet.LogPath)
	if err != nil {
		return err
	}
	for _, f := range []*os.File{s.null, s.null, diag, s.null /* the order's place */, sock, exit, lock, log} {
		l.files.add(f)
	}
	return nil
}

func makeDir(dir string, back *undo) error {
	switch err := os.Mkdir(dir, 0o700); {
	case err == nil:
		back.add(func() { os.Remove(dir) })
	case errors.Is(err, os.ErrNotExist):
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("container's folder: %w", err)
		}
		back.add(func() { os.Remove(dir) })
	case !errors.Is(err, os.ErrExist):
		return fmt.Errorf("container's folder: %w", err)
	}
	return nil
}

// takeLock opens the lock and holds it. The host inherits it, so that there is
// no moment at which a second host could be made.
func takeLock(dir string, back *undo) (*os.File, error) {
	path := filepath.Join(dir, spec.FileLock)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrExists
		}
		return nil, &os.PathError{Op: "flock", Path: path, Err: err}
	}
	back.add(func() { os.Remove(path) })
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (s *Supervisor) openOwn(l *launch, dir, name string, back *undo) (*os.File, error) {
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	back.add(func() { os.Remove(path) })
	return l.own(f), nil
}

// openLog opens the container's log as the host will write it. It stays when
// Create fails: an earlier attempt's lines may be in it.
func (s *Supervisor) openLog(l *launch, path string) (*os.File, error) {
	if path == "" {
		return s.null, nil
	}
	f, err := openLog(path)
	if err != nil {
		return nil, fmt.Errorf("container's log: %w", err)
	}
	return l.own(f), nil
}

// madeGroup is a cgroup that is being made; done is closed when it is.
type madeGroup struct {
	done  chan struct{}
	group *cgroup.Group
	err   error
}

// makeGroup begins to make the container's group, or returns nil. It is half a
// millisecond of the kernel's time, during which the files are made.
func (s *Supervisor) makeGroup(ctx context.Context, c *spec.Container, back *undo) *madeGroup {
	if s.cfg.Cgroups == nil || c.OCI.Linux == nil || c.OCI.Linux.CgroupsPath == "" {
		return nil
	}
	r := c.OCI.Linux.Resources
	if r == nil {
		r = &specs.LinuxResources{}
	}
	m := &madeGroup{done: make(chan struct{})}
	go func() {
		defer close(m.done)
		m.group, m.err = s.cfg.Cgroups.Create(c.OCI.Linux.CgroupsPath, r)
	}()
	back.add(func() {
		<-m.done
		if m.err != nil {
			return // then nothing was made
		}
		ctx, cancel := undoContext(ctx)
		defer cancel()
		if err := m.group.Remove(ctx); err != nil {
			s.log.Error("cgroup of a host that failed stays behind", "container", c.ID, "error", err)
		}
	})
	return m
}

// join lets the host join its group: on version 1 by itself, on version 2 by
// being born in the folder returned.
func join(l *launch, m *madeGroup) (*os.File, error) {
	if m == nil {
		return nil, nil
	}
	<-m.done
	if m.err != nil {
		return nil, m.err
	}
	tasks, born, err := m.group.Join()
	if err != nil {
		return nil, err
	}
	for _, t := range tasks {
		l.order.Tasks = append(l.order.Tasks, l.files.add(l.own(t)))
	}
	if born != nil {
		l.own(born)
	}
	return born, nil
}

// start execs the host.
func (s *Supervisor) start(h *Host, l *launch, c *spec.Container, born *os.File) error {
	order, err := l.order.File(payloadOf(c, &l.order).Encode())
	if err != nil {
		return err
	}
	l.files.fds[spec.FDOrder] = l.own(order).Fd()
	attr := &syscall.SysProcAttr{Cloneflags: hostNamespaces, Setsid: true, PidFD: new(int)}
	if born != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(born.Fd())
	}
	h.pid, err = syscall.ForkExec(s.cfg.HostPath, []string{"limpet-host", "run", c.ID},
		&syscall.ProcAttr{Dir: "/", Env: hostEnv, Files: l.files.fds, Sys: attr})
	if err != nil {
		return &os.PathError{Op: "exec", Path: s.cfg.HostPath, Err: err}
	}
	h.pidfd, err = ownPidfd(h.pid, *attr.PidFD)
	return err
}

// awaitReady connects to the host and waits for its hello.
func (s *Supervisor) awaitReady(ctx context.Context, h *Host) error {
	k, err := dial(h.socket)
	if errors.Is(err, unix.ECONNREFUSED) {
		return io.EOF // it has ended already
	}
	if err != nil {
		return err
	}
	phase, err := k.hello(ctx, readyTimeout)
	if err == nil && phase != spec.PhaseReady {
		err = fmt.Errorf("%w: it says it is in phase %d", ErrHostFailed, phase)
	}
	if err != nil {
		k.close()
		return err
	}
	h.ready, h.phase = k, spec.PhaseReady
	return nil
}
