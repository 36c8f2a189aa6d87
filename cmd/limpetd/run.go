package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/limpet-cri/limpet/cri"
	"github.com/limpet-cri/limpet/cri/network"
	"github.com/limpet-cri/limpet/cri/pod"
	"github.com/limpet-cri/limpet/image"
	"github.com/limpet-cri/limpet/shim"
	"github.com/limpet-cri/limpet/shim/cgroup"
)

// run is the wiring: every part is made here, from the bottom up, and closed
// in reverse. It returns after a signal, or when something fails for good.
func run(s settings, log *slog.Logger) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	for _, f := range []struct{ key, dir string }{{"root", s.pods.Root}, {"run", s.pods.Run}} {
		lock, e := lockFolder(f.key, f.dir)
		if e != nil {
			return e
		}
		defer closing(&err, lock.Close)
	}

	warnIfOnDisk(s.pods.Run, log)
	groups, err := cgroup.Detect(cgroup.Root)
	if err != nil {
		return err
	}
	s.hosts.Cgroups = groups

	hosts, err := shim.New(s.hosts, log)
	if err != nil {
		return err
	}
	defer closing(&err, hosts.Close)

	engine, err := askEngine(ctx, hosts, s.hosts.HostPath)
	if err != nil {
		return fmt.Errorf("hosts: %s does not answer as a limpet-host: %w; install the one that was built with this limpetd, or set hosts.path", s.hosts.HostPath, err)
	}
	log.Info("hosts answer", "engine", engine.version, "path", s.hosts.HostPath)

	images, err := image.New(ctx, s.images, hosts, log)
	if err != nil {
		return err
	}
	defer closing(&err, images.Close)

	pods, err := pod.New(s.pods, images, pod.Supervised(hosts), network.New(filepath.Join(s.pods.Run, "netns")), log)
	if err != nil {
		return err
	}
	defer closing(&err, pods.Close)
	if err := pods.Recover(ctx); err != nil {
		return err
	}

	registry := prometheus.NewRegistry()
	metrics, err := cri.NewMetrics(registry)
	if err != nil {
		return err
	}
	if err := errors.Join(registry.Register(cri.NewInventory(pods, images)),
		registry.Register(collectors.NewGoCollector()), registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))); err != nil {
		return err
	}
	server, err := cri.New(s.server, about(s, engine, groups), pods, images, metrics, log)
	if err != nil {
		return err
	}
	return serve(ctx, s, server, registry, log)
}

// serve answers until ctx ends or one of its parts fails, which ends the
// others. What is in flight then has a bounded time to end; pods run on.
func serve(ctx context.Context, s settings, server *cri.Server, registry *prometheus.Registry, log *slog.Logger) error {
	listener, err := cri.Listen(s.server.Socket)
	if err != nil {
		return err
	}
	probe, err := cri.NewProbe(s.server.Socket)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer probe.Close() //nolint:errcheck // a client connection to ourselves
	var web net.Listener
	if s.metrics != "" {
		if web, err = listenHTTP(s.metrics); err != nil {
			return errors.Join(err, listener.Close())
		}
	}

	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return server.Serve(listener) })
	if web != nil {
		parts.Go(func() error { return serveHTTP(ctx, web, registry, probe, log) })
	}
	parts.Go(func() error { return watchdog(ctx, probe, log) })
	parts.Go(func() error {
		<-ctx.Done()
		log.Info("stopping; pods run on", "timeout", s.shutdown)
		notify(log, daemon.SdNotifyStopping)
		bound, cancel := context.WithTimeout(context.Background(), s.shutdown)
		defer cancel()
		server.Shutdown(bound)
		return nil
	})
	log.Info("limpetd is ready", "version", version(), "socket", s.server.Socket, "root", s.pods.Root)
	notify(log, daemon.SdNotifyReady)
	return parts.Wait()
}

// engine is what the host binary says of the engine that is linked into it.
type engine struct{ version, key string }

// versionTimeout bounds the question for the version, which is answered at once.
const versionTimeout = 10 * time.Second

func askEngine(ctx context.Context, hosts *shim.Supervisor, path string) (e engine, err error) {
	if e.key, err = hosts.EngineKey(ctx, nil); err != nil {
		return e, err
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "version").Output()
	e.version = strings.TrimSpace(string(out))
	return e, err
}

// about gathers what the server tells of this node.
func about(s settings, e engine, groups *cgroup.Hierarchy) cri.About {
	return cri.About{
		Version:        version(),
		Handlers:       slices.Sorted(maps.Keys(s.pods.Handlers)),
		DefaultHandler: s.pods.DefaultHandler,
		Details: map[string]string{
			"root": s.pods.Root, "run": s.pods.Run, "host": s.hosts.HostPath,
			"handlers": strings.Join(slices.Sorted(maps.Keys(s.pods.Handlers)), " "),
			"cgroups":  fmt.Sprintf("version %d", groups.Version()),
			"engine":   e.version, "engine_key": e.key,
		},
	}
}

// closing closes a part and keeps the first error.
func closing(err *error, f func() error) {
	if e := f(); e != nil {
		*err = errors.Join(*err, e)
	}
}
