package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/cgroup"
	"github.com/limpet-cri/limpet/shim/confine"
	"github.com/limpet-cri/limpet/shim/spec"
)

// Errors of compiling.
var (
	// ErrNotValid is returned for a module that the engine refuses.
	ErrNotValid = errors.New("module does not validate")
	// ErrCompileTime is returned for a module whose compilation took too long.
	ErrCompileTime = errors.New("module cannot be compiled in time")
	// ErrCompileMemory is returned for one that needed too much memory.
	ErrCompileMemory = errors.New("module cannot be compiled in bounds of memory")
)

// Bounds of compiling. A real module takes half a second and less than a
// hundred bytes of memory per byte; modules made to hurt take minutes and
// gigabytes.
const (
	// DefaultCompileMemory is the address space of a compiler. 2 GiB are
	// enough for a Go program of 12 MB, 1 GiB are not for one of 3 MB; what
	// needs more than 4 GiB was made to.
	DefaultCompileMemory = 4 << 30
	// DefaultCompileTime is what every module has, on a busy node and a slow
	// processor too (emulated, a Go program needs 20 s); a large one has 2 s more
	// per MB, four times what real ones take on one slow processor.
	DefaultCompileTime = 30 * time.Second
	compilePerMB       = 2 * time.Second
	compileMost        = 5 * time.Minute
	// maxCode bounds the compiled code, in bytes: 4 times a module of the
	// greatest size that an image may hold.
	maxCode = 1 << 30
	// compileNice leaves the processors to the guests.
	compileNice = 10
	// compileUser is nobody: it owns no file and no process of the node.
	compileUser = 65534
	// compileFiles is what a compiler may have open.
	compileFiles = 64
	// maxCompileText bounds what is kept of a compiler's words.
	maxCompileText = 4 << 10
	maxKey         = 256
)

// Exit codes of a compile child (sysexits.h).
const (
	exitNotValid    = 65 // EX_DATAERR: what it said is about the module
	exitChildFailed = 70 // EX_SOFTWARE: it is about the compiler or its files
)

// Compile compiles the module in, which must be a regular file at its start,
// into the empty file out, in a confined child of its own: without network,
// files or user, bounded in time and memory.
func (s *Supervisor) Compile(ctx context.Context, in, out *os.File, proposals []string) error {
	fi, err := in.Stat()
	if err != nil {
		return fmt.Errorf("compile: %w", err)
	}
	limit := min(s.cfg.CompileTime+time.Duration(fi.Size()>>20)*compilePerMB, compileMost)
	_, err = s.child(ctx, childSpec{mode: confine.Compile, arg: "compile", in: in, out: out, limit: limit, proposals: proposals})
	return err
}

// EngineKey names what compiled code depends on beside the module: the
// engine's build, the processor, the settings and proposals.
func (s *Supervisor) EngineKey(ctx context.Context, proposals []string) (string, error) {
	key, err := s.child(ctx, childSpec{mode: confine.Key, arg: "key", in: s.null, limit: s.cfg.CompileTime, proposals: proposals})
	if err != nil {
		return "", fmt.Errorf("key of the engine: %w", err)
	}
	if key == "" || len(key) >= maxKey || strings.ContainsAny(key, "\n\x00/ ") {
		return "", fmt.Errorf("key of the engine: %w: it said %q", ErrHostFailed, key)
	}
	return key, nil
}

// childSpec is what a compile child is for.
type childSpec struct {
	mode      confine.Mode
	arg       string
	in, out   *os.File // no out: the answer is read from a pipe
	limit     time.Duration
	proposals []string
}

// child runs one, waits for its end, and returns its answer.
func (s *Supervisor) child(ctx context.Context, cs childSpec) (string, error) {
	select {
	case s.compilers <- struct{}{}:
		defer func() { <-s.compilers }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case <-s.closing:
		return "", ErrClosed
	}
	said, saidW, err := pipe(maxCompileText)
	if err != nil {
		return "", err
	}
	defer said.close()
	answer, answerW, err := pipe(maxKey)
	if err != nil {
		saidW.Close()
		return "", err
	}
	defer answer.close()
	out := cs.out
	if out == nil {
		out = answerW
	}
	group, err := s.compileGroup()
	if err != nil {
		saidW.Close()
		answerW.Close()
		return "", err
	}
	defer s.dropGroup(ctx, group)
	pid, pidfd, err := s.startChild(cs, group, []*os.File{s.null, s.null, saidW, s.null /* the order's place */, cs.in, out})
	saidW.Close()
	answerW.Close()
	if err != nil {
		return "", err
	}
	defer pidfd.Close()
	// A compiler is for later; nothing depends on its being nice.
	_ = unix.Setpriority(unix.PRIO_PROCESS, pid, compileNice)
	status, err := awaitChild(ctx, pidfd, cs.limit)
	text := said.text()
	if errors.Is(err, ErrCompileTime) && outOfMemory(text) {
		// It said so, and could not even end.
		err = s.tooMuchMemory()
	}
	if err == nil {
		err = s.judge(status, text, group, cs.limit)
	}
	return strings.TrimSpace(answer.text()), err
}

// startChild execs a compile child.
func (s *Supervisor) startChild(cs childSpec, group *cgroup.Group, files []*os.File) (int, *os.File, error) {
	l := &launch{}
	defer l.close()
	for _, f := range files {
		l.files.add(f)
	}
	// One compiler may use all processors for as long as its time is.
	seconds := uint64(cs.limit/time.Second)*uint64(runtime.NumCPU()) + 1
	l.order = confine.Order{
		Mode: cs.mode, EmptyNS: l.files.add(s.emptyNS), UID: compileUser, GID: compileUser,
		Filter: s.compileFilters, SealFilter: s.seal,
		Rlimits: []confine.Rlimit{
			{Resource: unix.RLIMIT_AS, Soft: uint64(s.cfg.CompileMemory), Hard: uint64(s.cfg.CompileMemory)},
			{Resource: unix.RLIMIT_CPU, Soft: seconds, Hard: seconds + 1},
			{Resource: unix.RLIMIT_FSIZE, Soft: maxCode, Hard: maxCode},
			{Resource: unix.RLIMIT_NOFILE, Soft: compileFiles, Hard: compileFiles},
		},
	}
	attr := &syscall.SysProcAttr{Cloneflags: hostNamespaces | unix.CLONE_NEWNET, Setsid: true, PidFD: new(int)}
	if group != nil {
		tasks, born, err := group.Join()
		if err != nil {
			return 0, nil, err
		}
		for _, t := range tasks {
			l.order.Tasks = append(l.order.Tasks, l.files.add(l.own(t)))
		}
		if born != nil {
			attr.UseCgroupFD, attr.CgroupFD = true, int(l.own(born).Fd())
		}
	}
	order, err := l.order.File((&spec.Payload{Proposals: cs.proposals}).Encode())
	if err != nil {
		return 0, nil, err
	}
	l.files.fds[spec.FDOrder] = l.own(order).Fd()
	// One P per processor, unlike a run host: a compiler is the only tenant.
	env := []string{"LIMPET_HOST=1"}
	pid, err := syscall.ForkExec(s.cfg.HostPath, []string{"limpet-host", cs.arg},
		&syscall.ProcAttr{Dir: "/", Env: env, Files: l.files.fds, Sys: attr})
	if err != nil {
		return 0, nil, &os.PathError{Op: "exec", Path: s.cfg.HostPath, Err: err}
	}
	pidfd, err := ownPidfd(pid, *attr.PidFD)
	return pid, pidfd, err
}

// awaitChild waits for the child's end, and ends it when its time is over.
func awaitChild(ctx context.Context, pidfd *os.File, limit time.Duration) (unix.WaitStatus, error) {
	if err := pidfd.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = pidfd.SetReadDeadline(time.Unix(1, 0)) })
	err := awaitEnd(pidfd)
	stop()
	if err == nil {
		ws, _ := reap(pidfd)
		return ws, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w: it took longer than %v", ErrCompileTime, limit)
	}
	_ = signalPidfd(pidfd, unix.SIGKILL) // it may have ended just now
	_ = pidfd.SetReadDeadline(time.Now().Add(removeTimeout))
	if gone := awaitEnd(pidfd); gone != nil {
		return 0, errors.Join(err, gone)
	}
	reap(pidfd)
	return 0, err
}

// judge says what the end of a child means.
func (s *Supervisor) judge(ws unix.WaitStatus, text string, group *cgroup.Group, limit time.Duration) error {
	if ws.Exited() && ws.ExitStatus() == 0 {
		return nil
	}
	if ws.Exited() && ws.ExitStatus() == exitNotValid {
		return fmt.Errorf("%w: %s", ErrNotValid, strings.TrimPrefix(text, "validate: "))
	}
	oom := uint64(0)
	if group != nil {
		oom, _ = group.OOMKills() // unreadable means: not told by the cgroup
	}
	if oom > 0 || outOfMemory(text) {
		return s.tooMuchMemory()
	}
	if ws.Signaled() && (ws.Signal() == unix.SIGKILL || ws.Signal() == unix.SIGXCPU) {
		return fmt.Errorf("%w: it took longer than %v", ErrCompileTime, limit)
	}
	if rest, full := strings.CutSuffix(text, ": "+unix.ENOSPC.Error()); full && ws.Exited() {
		return fmt.Errorf("%w: compiler: %s: %w", ErrHostFailed, rest, unix.ENOSPC)
	}
	if ws.Exited() && ws.ExitStatus() == exitChildFailed {
		return fmt.Errorf("%w: compiler: %s", ErrHostFailed, text)
	}
	how := "status " + strconv.Itoa(ws.ExitStatus())
	if ws.Signaled() {
		how = "signal " + unix.SignalName(ws.Signal())
	}
	return fmt.Errorf("%w: compiler ended with %s: %s", ErrHostFailed, how, text)
}

func (s *Supervisor) tooMuchMemory() error {
	return fmt.Errorf("%w: it needed more memory than %d MiB", ErrCompileMemory, s.cfg.CompileMemory>>20)
}

// outOfMemory recognises the words of the three allocators in a compiler.
func outOfMemory(text string) bool {
	for _, w := range []string{"memory allocation of", "out of memory", "cannot allocate memory", "Cannot allocate memory"} {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// bounded collects the head of what a child writes.
type bounded struct {
	r    *os.File
	done chan struct{}
	b    []byte
}

// pipe returns the writing end for a child. What it writes beyond the limit
// breaks its pipe.
func pipe(limit int64) (*bounded, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	p := &bounded{r: r, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.b, _ = io.ReadAll(io.LimitReader(r, limit)) // the head is what matters
		r.Close()
	}()
	return p, w, nil
}

// text waits for the end of the writing.
//
// Preconditions: all writers are closed or dead.
func (p *bounded) text() string {
	<-p.done
	return strings.ToValidUTF8(strings.TrimSpace(string(p.b)), "?")
}

func (p *bounded) close() {
	p.r.Close()
	<-p.done
}
