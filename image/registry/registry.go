// Package registry owns the way to registries: which endpoints stand for a
// registry, with which credentials and certificates they are asked, and how
// patiently. It resolves names, and hands out fetchers and pushers.
//
// The protocol is spoken by containerd's resolver. Ours are the reading of
// hosts.toml (strict: what is mistyped is an error of that registry's pulls),
// the transport (transport.go) and the cache of endpoints, without which
// every request of a pull would bring its own connections and tokens.
//
// Lock order: Registry.mu alone; it is not held while anything is read or
// asked.
package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/limpet-cri/limpet/image/reference"
)

// Bounds of the cache of endpoints.
const (
	maxCached   = 256
	dialTimeout = 15 * time.Second
	// headerTimeout is how long a registry may think; a slower one is asked
	// again.
	headerTimeout = 30 * time.Second
)

// Config of a Registry.
type Config struct {
	HostsDir, DockerConfig string
	// A body that brings fewer than StallBytes in StallWindow is asked for
	// again.
	StallWindow time.Duration
	StallBytes  int64
	// UserAgent is sent with each request.
	UserAgent string
	// FirstWait overrides the first wait before a request is repeated.
	FirstWait time.Duration
}

// Registry is the way to all registries.
type Registry struct {
	cfg Config
	log *slog.Logger

	mu    sync.Mutex
	hosts map[string]cached
}

type cached struct {
	stamp string
	hosts []docker.RegistryHost
}

// New makes a Registry. It asks nobody.
func New(cfg Config, log *slog.Logger) *Registry {
	if cfg.FirstWait == 0 {
		cfg.FirstWait = firstWait
	}
	return &Registry{cfg: cfg, log: log, hosts: map[string]cached{}}
}

// Check reads every folder of registries and the docker config, and says what
// is wrong, so that an operator hears of it at the start and not with the
// first pull.
func (r *Registry) Check() error {
	return errors.Join(r.checkHosts(), readDockerConfig(r.cfg.DockerConfig).problems())
}

func (r *Registry) checkHosts() error {
	if r.cfg.HostsDir == "" {
		return nil
	}
	es, err := os.ReadDir(r.cfg.HostsDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrHosts, err)
	}
	var bad []error
	for _, e := range es {
		if !e.IsDir() {
			continue
		}
		list, err := loadEndpoints(filepath.Join(r.cfg.HostsDir, e.Name()), e.Name())
		for _, ep := range list {
			if _, terr := ep.tlsConfig(); terr != nil {
				bad = append(bad, terr)
			}
		}
		if err != nil {
			bad = append(bad, err)
		}
	}
	return errors.Join(bad...)
}

// Session is one reference, asked for with one set of credentials.
type Session struct {
	ref      reference.Reference
	resolver remotes.Resolver
	missed   string // credentials that are not used, where the host has no others
}

// Session prepares to ask for ref.
func (r *Registry) Session(ref reference.Reference, auth *Auth) (*Session, error) {
	creds := credentials{host: ref.Host(), repository: strings.TrimPrefix(ref.Name, ref.Host()+"/"),
		auth: auth, file: readDockerConfig(r.cfg.DockerConfig)}
	hosts, err := r.endpoints(ref.Host(), creds)
	if err != nil {
		return nil, err
	}
	h := http.Header{}
	h.Set("User-Agent", r.cfg.UserAgent)
	return &Session{ref: ref, missed: creds.missed(), resolver: docker.NewResolver(docker.ResolverOptions{
		Headers: h,
		Hosts:   func(string) ([]docker.RegistryHost, error) { return hosts, nil },
	})}, nil
}

// Forget drops the cached endpoints of a registry: a token that was refused
// without saying why is in there.
func (r *Registry) Forget(host string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.hosts {
		if h, _, _ := strings.Cut(k, " "); h == host {
			delete(r.hosts, k)
		}
	}
}

// endpoints returns those of a registry, from the cache while neither its
// folder nor the credentials changed.
func (r *Registry) endpoints(host string, creds credentials) ([]docker.RegistryHost, error) {
	dir, err := hostFolder(r.cfg.HostsDir, host)
	if err != nil {
		return nil, err
	}
	list, err := loadEndpoints(dir, host)
	if err != nil {
		return nil, err
	}
	key, secrets := host, make([]secret, len(list))
	for i, e := range list {
		if secrets[i], err = creds.of(e); err != nil {
			return nil, err
		}
		key += " " + secrets[i].key()
	}
	now := stamp(list)
	r.mu.Lock()
	c, ok := r.hosts[key]
	r.mu.Unlock()
	if ok && c.stamp == now {
		return c.hosts, nil
	}
	c = cached{stamp: now}
	for i, e := range list {
		h, err := r.connect(e, secrets[i])
		if err != nil {
			return nil, err
		}
		c.hosts = append(c.hosts, h)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.hosts) >= maxCached {
		clear(r.hosts)
	}
	r.hosts[key] = c
	return c.hosts, nil
}

// stamp changes when a configuration does, or a file that it names.
func stamp(list []endpoint) string {
	s := ""
	for _, e := range list {
		if e.skipVerify != nil {
			s += fmt.Sprint(*e.skipVerify)
			e.skipVerify = nil
		}
		s += fmt.Sprintf("%+v", e)
		files := append([]string(nil), e.ca...)
		for _, p := range e.client {
			files = append(files, p[0], p[1])
		}
		for _, f := range files {
			if fi, err := os.Stat(f); err == nil {
				s += fmt.Sprint(f, fi.ModTime().UnixNano(), fi.Size())
			}
		}
	}
	return s
}

// connect makes the client of one endpoint.
func (r *Registry) connect(e endpoint, s secret) (h docker.RegistryHost, err error) {
	tlsc, err := e.tlsConfig()
	if err != nil {
		return h, err
	}
	dial := net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	if e.dialTimeout > 0 {
		dial.Timeout = e.dialTimeout
	}
	tr := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dial.DialContext,
		TLSClientConfig:       tlsc,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true,
		MaxIdleConns:          8,
		MaxIdleConnsPerHost:   4,
		IdleConnTimeout:       30 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: 5 * time.Second,
		ResponseHeaderTimeout: headerTimeout,
	}
	// A redirected request leaves without the endpoint's certificates and
	// with the system's authorities.
	out := tr.Clone()
	far := dial
	far.Control = outsideControl
	out.DialContext = far.DialContext
	out.TLSClientConfig = nil
	var next http.RoundTripper = tr
	if e.fallback {
		next = docker.NewHTTPFallback(tr)
	}
	p := patient{next: next, outside: out, origin: e, window: r.cfg.StallWindow, minBytes: r.cfg.StallBytes, firstWait: r.cfg.FirstWait}
	tokens := p
	tokens.token = true
	h = docker.RegistryHost{
		Client: &http.Client{Transport: &p},
		Scheme: e.scheme, Host: e.host, Path: e.path,
		Capabilities: e.capabilities, Header: e.header.Clone(),
	}
	if s.bearer != "" {
		if h.Header == nil {
			h.Header = http.Header{}
		}
		h.Header.Set("Authorization", "Bearer "+s.bearer)
		return h, nil
	}
	h.Authorizer = docker.NewDockerAuthorizer(
		docker.WithAuthClient(&http.Client{Transport: &tokens}),
		docker.WithAuthHeader(e.header),
		docker.WithAuthCreds(func(string) (string, string, error) { return s.user, s.password, nil }))
	return h, nil
}

// Resolve asks what the reference stands for.
func (s *Session) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	_, d, err := s.resolver.Resolve(ctx, s.ref.String())
	if err != nil {
		return d, s.Classify(ctx, err)
	}
	return d, nil
}

// Classify wraps an error of the session's fetcher or pusher with what it
// means, and what may be missing.
func (s *Session) Classify(ctx context.Context, err error) error {
	err = Classify(ctx, err)
	if s.missed != "" && errors.Is(err, ErrAccess) {
		return fmt.Errorf("%w; %s", err, s.missed)
	}
	return err
}

// Fetcher of the reference's repository.
func (s *Session) Fetcher(ctx context.Context) (remotes.Fetcher, error) {
	f, err := s.resolver.Fetcher(ctx, s.ref.String())
	if err != nil {
		return nil, s.Classify(ctx, err)
	}
	return f, nil
}

// Pusher to the reference's repository; a manifest gets the reference's tag.
func (s *Session) Pusher(ctx context.Context) (remotes.Pusher, error) {
	p, err := s.resolver.Pusher(ctx, s.ref.String())
	if err != nil {
		return nil, s.Classify(ctx, err)
	}
	return p, nil
}
