package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/semaphore"

	"github.com/limpet-cri/limpet/image/content"
	"github.com/limpet-cri/limpet/image/precompile"
	"github.com/limpet-cri/limpet/image/registry"
)

// userAgent is what registries are told.
const userAgent = "limpet"

// Service is the images of one node. Its methods may be called concurrently.
type Service struct {
	cfg      Config
	log      *slog.Logger
	store    *content.Store
	registry *registry.Registry
	code     *precompile.Cache
	pulls    *semaphore.Weighted

	// ctx is the life of work that requests share; end ends it.
	ctx context.Context
	end context.CancelFunc

	flights    flights
	blobs      keyed
	background sync.WaitGroup

	// slowAfter is how long a blob of a size may take, pullTime all of a pull.
	slowAfter func(size int64) time.Duration
	pullTime  time.Duration

	naming sync.Mutex

	mu    sync.RWMutex
	known catalog
}

// New opens the service: what a crash left is cleaned, what an unclean end of
// the machine damaged is thrown away, and the list of images is read.
func New(ctx context.Context, cfg Config, compiler precompile.Compiler, log *slog.Logger) (*Service, error) {
	s, err := unsettled(ctx, cfg, compiler, log)
	if err == nil {
		s.background.Go(func() { s.settle(s.ctx) })
	}
	return s, err
}

// unsettled opens the service without what follows a start.
func unsettled(ctx context.Context, cfg Config, compiler precompile.Compiler, log *slog.Logger) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	quiet()
	store, err := content.Open(content.Config{Root: cfg.Root, Snapshotter: cfg.Snapshotter}, log)
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, log: log, store: store, pulls: semaphore.NewWeighted(int64(cfg.PullLimit)), slowAfter: slowAfter, pullTime: pullTime}
	s.registry = registry.New(registry.Config{HostsDir: cfg.HostsDir, DockerConfig: cfg.DockerConfig,
		StallWindow: cfg.StallWindow, StallBytes: cfg.StallBytes, UserAgent: userAgent}, log)
	if s.code, err = precompile.New(store, compiler, cfg.CompileTimeout, log); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	s.ctx, s.end = context.WithCancel(context.WithoutCancel(ctx))
	return s, nil
}

func (s *Service) start(ctx context.Context) error {
	if err := s.registry.Check(); err != nil {
		s.log.Error("registries are misconfigured; pulls from them will fail", "error", err)
	}
	s.dropImportLease(ctx)
	damaged, err := s.store.Start(ctx)
	if err != nil {
		return fmt.Errorf("start image store: %w", err)
	}
	if len(damaged) > 0 {
		s.log.Warn("the machine stopped while images were written; damaged blobs were thrown away", "blobs", len(damaged))
	}
	s.known, err = s.load(ctx)
	return err
}

// quiet keeps the libraries' own logger from writing past ours (what matters
// of it comes back as an error), and from running programs of the PATH to
// decompress.
func quiet() {
	os.Setenv("CONTAINERD_DISABLE_IGZIP", "1")
	os.Setenv("CONTAINERD_DISABLE_PIGZ", "1")
	log.L.Logger.SetOutput(io.Discard)
	log.L.Logger.SetLevel(logrus.PanicLevel)
}

// Close ends what runs, waits for it, and closes the stores.
func (s *Service) Close() error {
	s.end()
	s.flights.wait()
	s.background.Wait()
	return s.store.Close()
}
