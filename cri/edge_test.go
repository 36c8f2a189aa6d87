package cri

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/cri/pod"
)

func newEdge(t *testing.T, slow time.Duration) (*edge, *bytes.Buffer, *prometheus.Registry) {
	t.Helper()
	var b bytes.Buffer
	r := prometheus.NewRegistry()
	m, err := NewMetrics(r)
	if err != nil {
		t.Fatal(err)
	}
	return &edge{log: slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})), metrics: m, slow: slow, life: t.Context(), podOf: func(id string) string { return "default/" + id }}, &b, r
}

// What is logged of a call, at which level, and that nothing secret is.
func TestCallsAreLogged(t *testing.T) {
	pull := &runtime.PullImageRequest{Image: &runtime.ImageSpec{Image: "r/a:1"}, Auth: &runtime.AuthConfig{Password: "hunter2"}, SandboxConfig: &runtime.PodSandboxConfig{Metadata: &runtime.PodSandboxMetadata{Name: "a", Namespace: "n"}}}
	create := &runtime.CreateContainerRequest{PodSandboxId: "p1", Config: &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: "web"}, Image: &runtime.ImageSpec{Image: "sha256:aa", UserSpecifiedImage: "r/a:1"},
		Envs: []*runtime.KeyValue{{Key: "TOKEN", Value: []byte("hunter2")}},
	}}
	run := &runtime.RunPodSandboxRequest{Config: &runtime.PodSandboxConfig{Metadata: &runtime.PodSandboxMetadata{Name: "a", Namespace: "n"}}}
	for _, c := range []struct {
		method    string
		req, resp any
		err       error
		slow      time.Duration
		want      []string
	}{
		{"ListContainers", &runtime.ListContainersRequest{}, nil, nil, time.Hour, []string{"level=DEBUG", "method=ListContainers"}},
		{"StartContainer", &runtime.StartContainerRequest{ContainerId: "c1"}, nil, nil, time.Hour, []string{"level=INFO", "pod=default/c1", "container=c1"}},
		{"RunPodSandbox", run, &runtime.RunPodSandboxResponse{PodSandboxId: "p1"}, nil, time.Hour, []string{"level=DEBUG", "pod=n/a", "sandbox=p1"}},
		{"CreateContainer", create, nil, pod.ErrBadPhase, time.Hour, []string{"level=WARN", "call failed", "pod=default/p1", "sandbox=p1", "name=web", "image=r/a:1", "code=FailedPrecondition", "wrong phase"}},
		{"PullImage", pull, nil, nil, -1, []string{"level=DEBUG", "pod=n/a", "image=r/a:1"}},
		{"StartContainer", &runtime.StartContainerRequest{ContainerId: "c1"}, nil, nil, -1, []string{"level=WARN", "slow call"}},
		{"StopContainer", &runtime.StopContainerRequest{ContainerId: "c1", Timeout: 30}, nil, nil, -1, []string{"level=INFO"}},
		{"StopContainer", &runtime.StopContainerRequest{ContainerId: "c1", Timeout: 1 << 62}, nil, nil, time.Second, []string{"level=INFO"}},
		{"StopContainer", &runtime.StopContainerRequest{ContainerId: "c1", Timeout: 9223372037}, nil, nil, time.Second, []string{"level=INFO"}},
		{"ContainerStatus", &runtime.ContainerStatusRequest{ContainerId: "c1"}, nil, pod.ErrNotFound, time.Hour, []string{"level=DEBUG", "gone"}},
		{"Exec", &runtime.ExecRequest{ContainerId: "c1"}, nil, status.Error(codes.Unimplemented, "no"), time.Hour, []string{"level=DEBUG", "code=Unimplemented"}},
	} {
		e, log, _ := newEdge(t, c.slow)
		info := &grpc.UnaryServerInfo{FullMethod: "/runtime.v1.RuntimeService/" + c.method}
		_, err := e.unary(t.Context(), c.req, info, func(context.Context, any) (any, error) { return c.resp, c.err })
		if (err == nil) != (c.err == nil) {
			t.Errorf("%s: %v", c.method, err)
		}
		inOrderOf(t, c.method, log.String(), c.want)
		if strings.Contains(log.String(), "hunter2") {
			t.Errorf("%s: a secret is in the log: %s", c.method, log)
		}
	}
}

func inOrderOf(t *testing.T, what, text string, parts []string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s: %q lacks %q", what, text, p)
		}
	}
}

// A panic is an error of that call, logged with its stack and counted.
func TestPanics(t *testing.T) {
	e, log, reg := newEdge(t, time.Hour)
	_, err := e.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/s/Boom"}, func(context.Context, any) (any, error) { panic("ouch") })
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "ouch") {
		t.Errorf("unary: %v", err)
	}
	err = e.stream(nil, &fakeStream{ctx: t.Context()}, &grpc.StreamServerInfo{FullMethod: "/s/Boom"}, func(any, grpc.ServerStream) error { panic("ouch") })
	if status.Code(err) != codes.Internal {
		t.Errorf("stream: %v", err)
	}
	inOrderOf(t, "log", log.String(), []string{"level=ERROR", "panic=ouch", "edge_test.go"})
	got := gathered(t, reg)
	for key, want := range map[string]float64{"limpet_cri_panics_total": 2, `limpet_cri_calls_total{code=Internal,method=Boom}`: 2, "limpet_cri_calls_in_flight": 0} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
}

type fakeStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (f *fakeStream) Context() context.Context { return f.ctx }

// gathered reads counters and gauges as "name{label=value,...}".
func gathered(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			key := f.GetName()
			if len(labels) > 0 {
				key += "{" + strings.Join(labels, ",") + "}"
			}
			found[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return found
}

func TestMetrics(t *testing.T) {
	s := newSite(t, noHosts{}, copier{})
	s.run(t, "a")
	s.pull(t, s.push(t, "demo/a:v1", []byte(command)))
	got := gathered(t, s.registry)
	for key, want := range map[string]float64{
		"limpet_pod_sandboxes{state=ready}":                    1,
		"limpet_pod_sandboxes{state=notready}":                 0,
		"limpet_containers{state=running}":                     0,
		"limpet_images":                                        1,
		"limpet_image_pulls_total{result=ok}":                  1,
		"limpet_cri_calls_total{code=OK,method=RunPodSandbox}": 1,
		"limpet_cri_calls_total{code=OK,method=PullImage}":     1,
	} {
		if v, ok := got[key]; !ok || v != want {
			t.Errorf("%s is %v (there: %v), want %v", key, v, ok, want)
		}
	}
}

// A message above the bound is refused before it is read.
func TestMessageBound(t *testing.T) {
	s := newSite(t, noHosts{}, copier{})
	config := s.sandbox("large")
	config.Annotations = map[string]string{"a": strings.Repeat("x", DefaultMaxMessageBytes)}
	_, err := s.runtime.RunPodSandbox(t.Context(), &runtime.RunPodSandboxRequest{Config: config})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v", err)
	}
}

// Events end with the server, and Shutdown does not wait for their clients.
func TestShutdownEndsEvents(t *testing.T) {
	s := newSite(t, noHosts{}, copier{})
	events, err := s.runtime.GetContainerEvents(t.Context(), &runtime.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.Header(); err != nil {
		t.Fatal(err)
	}
	id := s.run(t, "a")
	e, err := events.Recv()
	if err != nil || e.GetContainerId() != id || e.GetPodSandboxStatus().GetId() != id {
		t.Fatalf("the sandbox's event: %v, %v", e, err)
	}
	got := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			_, err = events.Recv()
		}
		got <- err
	}()
	s.stop(t)
	if err := <-got; err == nil {
		t.Error("the stream goes on")
	}
}

// A call that outlasts the bound is told why it ends, and by a code that says
// that it can be made again.
func TestShutdownTells(t *testing.T) {
	e, _, _ := newEdge(t, time.Hour)
	life, end := context.WithCancelCause(t.Context())
	e.life = life
	entered := make(chan struct{})
	g := grpc.NewServer(grpc.UnaryInterceptor(e.unary))
	g.RegisterService(&grpc.ServiceDesc{ServiceName: "s", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Pull",
		Handler: func(_ any, ctx context.Context, _ func(any) error, i grpc.UnaryServerInterceptor) (any, error) {
			return i(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/s/Pull"}, func(ctx context.Context, _ any) (any, error) {
				close(entered)
				<-ctx.Done()
				return nil, fmt.Errorf("pull x: %w", ctx.Err())
			})
		},
	}}}, struct{}{})
	s := &Server{grpc: g, closing: make(chan struct{}), life: life, end: end}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	p, err := NewProbe(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, p)
	ended := make(chan error, 1)
	go func() {
		ended <- p.conn.Invoke(t.Context(), "/s/Pull", &runtime.VersionRequest{}, &runtime.VersionResponse{})
	}()
	<-entered
	over, cancel := context.WithCancel(t.Context())
	cancel()
	s.Shutdown(over)
	if err := <-ended; status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "pull x: context canceled (limpetd is stopping") {
		t.Errorf("the call ended with %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}

// Shutdown cancels what does not end within its bound.
func TestShutdownIsBounded(t *testing.T) {
	entered, left := make(chan struct{}), make(chan error, 1)
	g := grpc.NewServer()
	g.RegisterService(&grpc.ServiceDesc{ServiceName: "s", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "Hang", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, ss grpc.ServerStream) error {
			close(entered)
			<-ss.Context().Done()
			left <- ss.Context().Err()
			return ss.Context().Err()
		},
	}}}, struct{}{})
	s := &Server{grpc: g, closing: make(chan struct{}), end: func(error) {}}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	p, err := NewProbe(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, p)
	if _, err := p.conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/s/Hang"); err != nil {
		t.Fatal(err)
	}
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	s.Shutdown(ctx)
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the call ended with %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestProbe(t *testing.T) {
	s := newSite(t, noHosts{}, copier{})
	p, err := NewProbe(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, p)
	if err := p.Check(t.Context()); err != nil {
		t.Errorf("a server that is well: %v", err)
	}
	s.stop(t)
	if err := p.Check(t.Context()); err == nil {
		t.Error("a server that is gone is well")
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "new", "s.sock")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := Listen(path); !errors.Is(err, ErrSocketInUse) {
		t.Errorf("a second server: %v", err)
	}
	// As after kill -9: the name stays, nobody answers.
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	closed(t, first)
	again, err := Listen(path)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	closed(t, again)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the end: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, what := range map[string]string{file: "a file in its place", dir: "a directory in its place"} {
		if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestChunks(t *testing.T) {
	item := func(n int) *runtime.Image { return &runtime.Image{Id: strings.Repeat("x", n)} }
	for name, c := range map[string]struct {
		sizes []int
		want  []int
	}{
		"none":      {nil, nil},
		"one":       {[]int{10}, []int{1}},
		"large one": {[]int{3 * chunkBytes}, []int{1}},
		"small":     {[]int{10, 10, 10}, []int{3}},
		"mixed":     {[]int{chunkBytes, 10, 10, chunkBytes, chunkBytes / 2, chunkBytes / 3}, []int{1, 2, 1, 2}},
	} {
		var items []*runtime.Image
		for _, n := range c.sizes {
			items = append(items, item(n))
		}
		var got []int
		sum := 0
		err := inChunks(items, func(l []*runtime.Image) error {
			got = append(got, len(l))
			for i, x := range l {
				if !proto.Equal(x, items[sum+i]) {
					t.Errorf("%s: another item", name)
				}
			}
			sum += len(l)
			return nil
		})
		if err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) || sum != len(items) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		}
	}
	gone := errors.New("gone")
	if err := inChunks([]*runtime.Image{item(1)}, func([]*runtime.Image) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("a client that goes: %v", err)
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Config){
		"server: socket is":         func(c *Config) { c.Socket = "s" },
		"server: socket has 200":    func(c *Config) { c.Socket = "/" + strings.Repeat("x", 199) },
		"server: max_message_bytes": func(c *Config) { c.MaxMessageBytes = 1 << 10 },
		"server: max_calls":         func(c *Config) { c.MaxCalls = 0 },
		"server: slow_call":         func(c *Config) { c.SlowCall = 0 },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
