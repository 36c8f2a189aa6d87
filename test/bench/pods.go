package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/test/node"
)

// bench is one run over both sides.
type bench struct {
	plan
	sides  [2]*side // ours, theirs
	logs   string
	cgroup string

	mu     sync.Mutex
	serial int
}

// sample is one pod as measured.
type sample struct {
	start time.Duration // RunPodSandbox called until the first byte in the log
	stop  time.Duration // StopContainer called until RemovePodSandbox answered
	calls node.Times
}

const podLimit = time.Minute

// up starts a pod and waits for its first output. What was made before a
// failure comes back with it.
func (b *bench) up(ctx context.Context, s *side) (*node.Pod, sample, error) {
	b.mu.Lock()
	b.serial++
	name := fmt.Sprintf("bench-%d", b.serial)
	b.mu.Unlock()
	sandbox := node.Sandbox(name, filepath.Join(b.logs, name), b.cgroup, runtime.NamespaceMode_NODE)
	sandbox.Linux.CgroupParent = b.cgroup
	sandbox.Linux.SecurityContext.Seccomp.ProfileType = runtime.SecurityProfile_Unconfined
	container := node.Container("c", s.image, s.args...)
	container.Linux.SecurityContext = &runtime.LinuxContainerSecurityContext{
		NamespaceOptions: sandbox.Linux.SecurityContext.NamespaceOptions,
		Seccomp:          sandbox.Linux.SecurityContext.Seccomp,
	}
	if err := os.MkdirAll(sandbox.LogDirectory, 0o755); err != nil {
		return nil, sample{}, err
	}
	first, err := firstByte(sandbox.LogDirectory, container.LogPath, podLimit)
	if err != nil {
		return nil, sample{}, err
	}
	begin := time.Now()
	pod, err := s.RunPod(ctx, s.handler, sandbox, container)
	if err != nil {
		return pod, sample{}, fmt.Errorf("%s: %w", s.name, err)
	}
	at, ok := <-first
	if !ok {
		return pod, sample{}, fmt.Errorf("%s: no output in %s within %s", s.name, sandbox.LogDirectory, podLimit)
	}
	return pod, sample{start: at.Sub(begin), calls: pod.Times}, nil
}

// down takes a pod down as a kubelet does, call by call.
func (b *bench) down(ctx context.Context, s *side, p *node.Pod) (time.Duration, error) {
	begin := time.Now()
	if err := s.Stop(ctx, p.Container, 10*time.Second); err != nil {
		return 0, fmt.Errorf("%s: StopContainer: %w", s.name, err)
	}
	if _, err := s.Runtime.StopPodSandbox(ctx, &runtime.StopPodSandboxRequest{PodSandboxId: p.Sandbox}); err != nil {
		return 0, fmt.Errorf("%s: StopPodSandbox: %w", s.name, err)
	}
	if _, err := s.Runtime.RemoveContainer(ctx, &runtime.RemoveContainerRequest{ContainerId: p.Container}); err != nil {
		return 0, fmt.Errorf("%s: RemoveContainer: %w", s.name, err)
	}
	if _, err := s.Runtime.RemovePodSandbox(ctx, &runtime.RemovePodSandboxRequest{PodSandboxId: p.Sandbox}); err != nil {
		return 0, fmt.Errorf("%s: RemovePodSandbox: %w", s.name, err)
	}
	return time.Since(begin), nil
}

// one runs a single pod from start to removal.
func (b *bench) one(ctx context.Context, s *side) (sample, error) {
	pod, got, err := b.up(ctx, s)
	if err != nil {
		if pod != nil {
			err = errors.Join(err, s.RemovePod(ctx, pod.Sandbox))
		}
		return got, err
	}
	got.stop, err = b.down(ctx, s, pod)
	return got, err
}

// sequence measures pod_start and pod_stop, one pod at a time, in turns.
func (b *bench) sequence(ctx context.Context) ([]result, error) {
	var samples [2][]sample
	for i := range b.warm + b.pods {
		order := [2]int{0, 1}
		if i%2 == 1 {
			order = [2]int{1, 0}
		}
		for _, k := range order {
			got, err := b.one(ctx, b.sides[k])
			if err != nil {
				return nil, err
			}
			if i >= b.warm {
				samples[k] = append(samples[k], got)
			}
		}
	}
	start := func(s sample) time.Duration { return s.start }
	stop := func(s sample) time.Duration { return s.stop }
	return []result{
		compare("pod_start", "ms", pick(samples[0], start), pick(samples[1], start)),
		compare("pod_stop", "ms", pick(samples[0], stop), pick(samples[1], stop)),
	}, nil
}

func pick(samples []sample, f func(sample) time.Duration) []float64 {
	v := make([]float64, 0, len(samples))
	for _, s := range samples {
		v = append(v, f(s).Seconds()*1000)
	}
	return v
}

// many starts count pods at once and returns them with the time until the
// last one's first output.
func (b *bench) many(ctx context.Context, s *side, count, workers int) ([]*node.Pod, time.Duration, error) {
	var (
		wg   sync.WaitGroup
		pods = make([]*node.Pod, count)
		errs = make([]error, count)
		gate = make(chan struct{}, workers)
	)
	begin := time.Now()
	for i := range count {
		wg.Go(func() {
			gate <- struct{}{}
			pods[i], _, errs[i] = b.up(ctx, s)
			<-gate
		})
	}
	wg.Wait()
	return pods, time.Since(begin), errors.Join(errs...)
}

// remove takes many pods down, a few at a time.
func (b *bench) remove(ctx context.Context, s *side, pods []*node.Pod) error {
	var wg sync.WaitGroup
	errs := make([]error, len(pods))
	gate := make(chan struct{}, 4)
	for i, p := range pods {
		if p == nil {
			continue
		}
		wg.Go(func() {
			gate <- struct{}{}
			errs[i] = s.RemovePod(ctx, p.Sandbox)
			<-gate
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// bursts measures burst_50, side by side in turns.
func (b *bench) bursts(ctx context.Context) (result, error) {
	var times [2][]float64
	for range b.plan.bursts {
		for k, s := range b.sides {
			pods, took, err := b.many(ctx, s, b.burst, b.burst)
			if err = errors.Join(err, b.remove(ctx, s, pods)); err != nil {
				return result{}, err
			}
			times[k] = append(times[k], took.Seconds()*1000)
		}
	}
	return compare(fmt.Sprintf("burst_%d", b.burst), "ms", times[0], times[1]), nil
}

// firstByte tells when the file has its first byte, by inotify.
func firstByte(dir, file string, limit time.Duration) (<-chan time.Time, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	found := make(chan time.Time, 1)
	go func() {
		defer close(found)
		defer unix.Close(fd)
		path, end := filepath.Join(dir, file), time.Now().Add(limit)
		events := make([]byte, 4096)
		for time.Now().Before(end) {
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 50); err != nil && err != unix.EINTR {
				return
			}
			now := time.Now()
			if st, err := os.Stat(path); err == nil && st.Size() > 0 {
				found <- now
				return
			}
			unix.Read(fd, events) // drains; that it is empty is no error
		}
	}()
	return found, nil
}
