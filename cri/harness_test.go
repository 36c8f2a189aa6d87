package cri

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/cri/admin"
	"github.com/limpet-cri/limpet/cri/network"
	"github.com/limpet-cri/limpet/cri/pod"
	"github.com/limpet-cri/limpet/image"
	"github.com/limpet-cri/limpet/image/precompile"
	"github.com/limpet-cri/limpet/shim/spec"
	"github.com/limpet-cri/limpet/test/scratch"
)

// site is a server on a socket over real parts, a registry on loopback beside
// it, and clients.
type site struct {
	dir, socket, hub string
	log              *syncBuffer
	registry         *prometheus.Registry
	server           *Server
	served           chan error

	conn    *grpc.ClientConn
	runtime runtime.RuntimeServiceClient
	images  runtime.ImageServiceClient
	admin   *admin.Client
}

// newSite serves with the hosts and the compiler that are given; as an
// ordinary user those are noHosts and copier.
func newSite(t *testing.T, hosts pod.Hosts, compiler precompile.Compiler) *site {
	t.Helper()
	dir := scratch.Dir(t)
	s := &site{dir: dir, socket: filepath.Join(dir, "s.sock"), log: &syncBuffer{}, registry: prometheus.NewRegistry(), served: make(chan error, 1)}
	s.serveRegistry(t)
	logger := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))

	images, err := image.New(t.Context(), image.Config{Root: filepath.Join(dir, "images")}, compiler, logger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, images) })
	cfg := pod.DefaultConfig()
	cfg.Root, cfg.Run = dir, filepath.Join(dir, "r")
	pods, err := pod.New(cfg, images, hosts, network.New(filepath.Join(dir, "netns")), logger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, pods) })
	if err := pods.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.serve(t, pods, images, logger)
	return s
}

func closed(t *testing.T, c io.Closer) {
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func (s *site) serveRegistry(t *testing.T) {
	t.Helper()
	h := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(h.Close)
	s.hub = h.Listener.Addr().String()
}

func (s *site) serve(t *testing.T, pods *pod.Manager, images *image.Service, logger *slog.Logger) {
	t.Helper()
	metrics, err := NewMetrics(s.registry)
	if err != nil {
		t.Fatal(err)
	}
	s.registry.MustRegister(NewInventory(pods, images))
	cfg := DefaultConfig()
	cfg.Socket, cfg.MaxCalls = s.socket, 64
	about := About{Version: "1.2.3", Handlers: []string{"limpet", "wasm", "wasmtime"}, DefaultHandler: "limpet", Details: map[string]string{"engine": "none"}}
	if s.server, err = New(cfg, about, pods, images, metrics, logger); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { s.served <- s.server.Serve(l) }()
	if s.conn, err = grpc.NewClient("unix:"+s.socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(1<<30))); err != nil {
		t.Fatal(err)
	}
	s.runtime, s.images, s.admin = runtime.NewRuntimeServiceClient(s.conn), runtime.NewImageServiceClient(s.conn), admin.NewClient(s.conn)
	t.Cleanup(func() {
		_ = s.conn.Close()
		s.stop(t)
	})
}

// stop shuts the server down, once.
func (s *site) stop(t *testing.T) {
	t.Helper()
	if s.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s.server.Shutdown(ctx)
	if err := <-s.served; err != nil {
		t.Errorf("serve: %v", err)
	}
	s.server = nil
}

// command is a module whose _start returns at once.
const command = "\x00asm\x01\x00\x00\x00" +
	"\x01\x04\x01\x60\x00\x00" + // type: func()
	"\x03\x02\x01\x00" + // a function of it
	"\x07\x0a\x01\x06_start\x00\x00" + // exported
	"\x0a\x04\x01\x02\x00\x0b" // with an empty body

// push puts a module into the registry and returns its reference.
func (s *site) push(t *testing.T, name string, module []byte) string {
	t.Helper()
	file := filepath.Join(s.dir, "module.wasm")
	if err := os.WriteFile(file, module, 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := image.Push(t.Context(), file, s.hub+"/"+name, image.PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p.Ref
}

func (s *site) pull(t *testing.T, ref string) string {
	t.Helper()
	r, err := s.images.PullImage(t.Context(), &runtime.PullImageRequest{Image: &runtime.ImageSpec{Image: ref}})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetImageRef()
}

func (s *site) sandbox(name string) *runtime.PodSandboxConfig {
	return &runtime.PodSandboxConfig{
		Metadata:     &runtime.PodSandboxMetadata{Name: name, Namespace: "default", Uid: "uid-" + name},
		LogDirectory: filepath.Join(s.dir, "logs"),
		Labels:       map[string]string{"io.kubernetes.pod.uid": "uid-" + name},
		Linux: &runtime.LinuxPodSandboxConfig{
			CgroupParent: "/" + filepath.Base(s.dir),
			SecurityContext: &runtime.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtime.NamespaceOption{Network: runtime.NamespaceMode_NODE},
			},
		},
	}
}

// run makes a sandbox and returns its id.
func (s *site) run(t *testing.T, name string) string {
	t.Helper()
	r, err := s.runtime.RunPodSandbox(t.Context(), &runtime.RunPodSandboxRequest{Config: s.sandbox(name), RuntimeHandler: "wasm"})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetPodSandboxId()
}

// copier takes a module for its own code: what is tested with it runs nothing.
type copier struct{}

func (copier) Compile(_ context.Context, in, out *os.File, _ []string) error {
	_, err := io.Copy(out, in)
	return err
}

func (copier) EngineKey(context.Context, []string) (string, error) { return "copier", nil }

// noHosts makes none, for tests without root.
type noHosts struct{}

var errNoHosts = errors.New("no hosts here")

func (noHosts) Create(context.Context, *spec.Container, *os.File) (pod.Host, error) {
	return nil, errNoHosts
}

func (noHosts) Adopt(context.Context, *spec.Container) (pod.Host, error) { return nil, pod.ErrNotFound }

func (noHosts) End(context.Context, *spec.Container) error { return nil }

func (noHosts) Remove(context.Context, *spec.Container) error { return nil }

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
