package cri

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/cri/admin"
	"github.com/limpet-cri/limpet/cri/pod"
	"github.com/limpet-cri/limpet/image"
)

// About is what the server says of the runtime as a whole.
type About struct {
	// Version of Limpet, in the form of semantic versioning without a v.
	Version string
	// Handlers are the runtime handlers that pods may name, DefaultHandler
	// the one that the empty name means.
	Handlers       []string
	DefaultHandler string
	// Details are told in a verbose Status, for people.
	Details map[string]string
}

// Server is the gRPC server of one node.
type Server struct {
	grpc *grpc.Server
	// closing is closed when the server is asked to end, for the streams
	// that would otherwise last as long as their client.
	closing chan struct{}
	// life is what every call's context ends with; end ends it.
	life context.Context
	end  context.CancelCauseFunc
}

// errStopping is what a call ends with that outlasts the bound of Shutdown.
var errStopping = errors.New("limpetd is stopping; the call can be made again once it is back")

// endBound is how long calls that have been cancelled may take to say so.
const endBound = time.Second

// New returns a server that answers with pods and images.
func New(cfg Config, about About, pods *pod.Manager, images *image.Service, metrics *Metrics, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	life, end := context.WithCancelCause(context.Background())
	e := &edge{log: log, metrics: metrics, slow: cfg.SlowCall, life: life, podOf: pods.PodOf}
	s := &Server{
		closing: make(chan struct{}), life: life, end: end,
		grpc: grpc.NewServer(
			grpc.MaxRecvMsgSize(cfg.MaxMessageBytes),
			grpc.MaxSendMsgSize(cfg.MaxMessageBytes),
			grpc.MaxConcurrentStreams(cfg.MaxCalls),
			grpc.UnaryInterceptor(e.unary),
			grpc.StreamInterceptor(e.stream),
		),
	}
	runtime.RegisterRuntimeServiceServer(s.grpc, &runtimeServer{about: about, pods: pods, closing: s.closing})
	runtime.RegisterImageServiceServer(s.grpc, &imageServer{about: about, images: images, pods: pods, metrics: metrics})
	admin.Register(s.grpc, &adminServer{images: images})
	return s, nil
}

// Serve answers on l until Shutdown.
func (s *Server) Serve(l net.Listener) error { return s.grpc.Serve(l) }

// Shutdown accepts nothing new, lets the calls in flight end, and cancels
// those that have not when ctx ends: their clients are told that the daemon
// stops, not that a connection broke. It returns when none is left. It is called
// once.
func (s *Server) Shutdown(ctx context.Context) {
	close(s.closing)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.grpc.GracefulStop()
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	s.end(errStopping)
	bound := time.NewTimer(endBound)
	defer bound.Stop()
	select {
	case <-done:
	case <-bound.C:
		s.grpc.Stop()
		<-done
	}
}
