package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/limpet-cri/limpet/image/reference"
)

var manifest = []byte(`{"schemaVersion":2}`)

// fake serves one manifest under any name, unless handler answers.
func fake(t *testing.T, secure bool, handler func(http.ResponseWriter, *http.Request) bool) (*httptest.Server, string) {
	t.Helper()
	h := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if handler != nil && handler(w, q) {
			return
		}
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(manifest).String())
		w.Header().Set("Content-Length", fmt.Sprint(len(manifest)))
		if q.Method != http.MethodHead {
			w.Write(manifest)
		}
	})
	var s *httptest.Server
	if secure {
		s = httptest.NewUnstartedServer(h)
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
		s.StartTLS()
	} else {
		s = httptest.NewServer(h)
	}
	t.Cleanup(s.Close)
	return s, strings.TrimPrefix(strings.TrimPrefix(s.URL, "https://"), "http://")
}

func newRegistry(c Config) *Registry {
	c.FirstWait = time.Millisecond
	if c.StallWindow == 0 {
		c.StallWindow, c.StallBytes = time.Second, 1
	}
	return New(c, slog.New(slog.DiscardHandler))
}

func resolve(t *testing.T, r *Registry, ref string, a *Auth) error {
	t.Helper()
	p, err := reference.Parse(ref)
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.Session(p, a)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	d, err := s.Resolve(ctx)
	if err == nil && d.Digest != digest.FromBytes(manifest) {
		return fmt.Errorf("resolved to %s", d.Digest)
	}
	return err
}

// TestAuth: which credentials reach which host.
func TestAuth(t *testing.T) {
	basic := func(user, pass string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, q *http.Request) bool {
			if u, p, _ := q.BasicAuth(); u == user && p == pass {
				return false
			}
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
			return true
		}
	}
	_, host := fake(t, false, basic("me", "secret"))
	_, bearer := fake(t, false, func(w http.ResponseWriter, q *http.Request) bool {
		if q.Header.Get("Authorization") == "Bearer tok" {
			return false
		}
		w.WriteHeader(401)
		return true
	})
	enc := base64.StdEncoding.EncodeToString([]byte("me:secret"))
	docker := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(docker, []byte(`{"auths":{"http://`+host+`/v1/":{"auth":"`+enc+`"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ref   string
		cfg   Config
		auth  *Auth
		fails error
	}{
		"none":                     {host + "/a:b", Config{}, nil, ErrAccess},
		"user and password":        {host + "/a:b", Config{}, &Auth{Username: "me", Password: "secret"}, nil},
		"wrong password":           {host + "/a:b", Config{}, &Auth{Username: "me", Password: "x"}, ErrAccess},
		"auth":                     {host + "/a:b", Config{}, &Auth{Auth: enc}, nil},
		"auth is no base64":        {host + "/a:b", Config{}, &Auth{Auth: "%"}, ErrAuth},
		"for this server":          {host + "/a:b", Config{}, &Auth{Auth: enc, ServerAddress: "https://" + host + "/v1/"}, nil},
		"for another server":       {host + "/a:b", Config{}, &Auth{Auth: enc, ServerAddress: "other.example"}, ErrAccess},
		"registry token":           {bearer + "/a:b", Config{}, &Auth{RegistryToken: "tok"}, nil},
		"docker config":            {host + "/a:b", Config{DockerConfig: docker}, nil, nil},
		"docker config is missing": {host + "/a:b", Config{DockerConfig: docker + ".no"}, nil, ErrAccess},
		"mirror does not see them": {"r.example/a:b", Config{HostsDir: hostsDir(t, "_default", `server = "http://`+host+`"`, map[string][]byte{})},
			&Auth{Username: "me", Password: "secret"}, ErrAccess},
	} {
		t.Run(name, func(t *testing.T) {
			if err := resolve(t, newRegistry(c.cfg), c.ref, c.auth); !errors.Is(err, c.fails) {
				t.Errorf("got %v, want %v", err, c.fails)
			}
		})
	}
}

// TestPatience: busy registries are asked again, with the wait they ask for.
func TestPatience(t *testing.T) {
	for name, c := range map[string]struct {
		codes   []int
		header  string
		atLeast time.Duration
		fails   error
	}{
		"busy twice":         {[]int{429, 429}, "", 0, nil},
		"busy, wait 1":       {[]int{429}, "1", 900 * time.Millisecond, nil},
		"gateway":            {[]int{502, 503, 504, 500}, "", 0, nil},
		"busy without end":   {[]int{503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503}, "", 0, ErrUnavailable},
		"forbidden":          {[]int{403, 403, 403}, "", 0, ErrAccess},
		"not found":          {[]int{404, 404}, "", 0, ErrNotFound},
		"connection dropped": {[]int{0, 0}, "", 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int64
			_, host := fake(t, false, func(w http.ResponseWriter, q *http.Request) bool {
				i := int(n.Add(1)) - 1
				if i >= len(c.codes) {
					return false
				}
				if c.codes[i] == 0 {
					panic(http.ErrAbortHandler)
				}
				if c.header != "" {
					w.Header().Set("Retry-After", c.header)
				}
				w.WriteHeader(c.codes[i])
				return true
			})
			// Told to be plain, so that no attempt goes into finding that out.
			dir := hostsDir(t, "_default", `server = "http://`+host+`"`, map[string][]byte{})
			started := time.Now()
			err := resolve(t, newRegistry(Config{HostsDir: dir}), "r.example/a:b", nil)
			if !errors.Is(err, c.fails) {
				t.Errorf("got %v, want %v", err, c.fails)
			}
			if took := time.Since(started); took < c.atLeast {
				t.Errorf("took %s", took)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Duration{"3": 3 * time.Second, "": -1, "-1": -1, "x": -1,
		now.Add(time.Minute).Format(http.TimeFormat): time.Minute, now.Add(-time.Minute).Format(http.TimeFormat): 0} {
		got, ok := retryAfter(in, now)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %v, %v", in, got, ok)
		}
	}
}

// TestRedirects: where a registry may send us.
func TestRedirects(t *testing.T) {
	local := endpoint{scheme: "https", host: "127.0.0.1:5000"}
	far := endpoint{scheme: "https", host: "r.example"}
	plain := endpoint{scheme: "http", host: "r.example"}
	for _, c := range []struct {
		origin  endpoint
		to      string
		hops    int
		refused bool
	}{
		{far, "https://r.example/x", 1, false},
		{far, "https://cdn.example/x", 1, false},
		{far, "http://cdn.example/x", 1, true},
		{far, "https://cdn.example/x", 6, true},
		{far, "https://r.example/x", 6, true},
		{far, "ftp://cdn.example/x", 1, true},
		{far, "https://127.0.0.1/x", 1, true},
		{far, "https://localhost:1/x", 1, true},
		{far, "https://169.254.169.254/latest/meta-data", 1, true},
		{far, "https://[fe80::1]/x", 1, true},
		{far, "https://[::1]/x", 1, true},
		{far, "https://0.0.0.0/x", 1, true},
		{plain, "http://cdn.example/x", 1, false},
		{plain, "http://127.0.0.1:1/x", 1, true},
		{local, "https://127.0.0.1:5001/x", 1, false},
	} {
		q, err := http.NewRequest(http.MethodGet, c.to, nil)
		if err != nil {
			t.Fatal(err)
		}
		for r, n := q, 0; n < c.hops; n++ {
			prev, _ := http.NewRequest(http.MethodGet, "https://r.example/", nil)
			r.Response = &http.Response{Request: prev}
			r = prev
		}
		out := &http.Transport{DialContext: (&net.Dialer{Control: outsideControl, Timeout: time.Second}).DialContext}
		p := &patient{next: http.DefaultTransport, outside: out, origin: c.origin, firstWait: 1}
		rt, err := p.route(q)
		if err == nil && rt == out && c.refused {
			_, err = rt.RoundTrip(q)
		}
		if refused := errors.Is(err, errRedirect); refused != c.refused {
			t.Errorf("%s → %s after %d hops: %v; want refused %v", c.origin.host, c.to, c.hops, err, c.refused)
		}
	}
}

// TestStall: a body that stalls is gone on with from where it stopped.
func TestStall(t *testing.T) {
	blob := []byte(strings.Repeat("0123456789", 1000))
	var requests atomic.Int64
	release := make(chan struct{})
	_, host := fake(t, false, func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, "/blobs/") {
			return false
		}
		n := requests.Add(1)
		from := 0
		fmt.Sscanf(q.Header.Get("Range"), "bytes=%d-", &from)
		w.Header().Set("Content-Length", fmt.Sprint(len(blob)-from))
		if from > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(blob)-1, len(blob)))
			w.WriteHeader(206)
		}
		if n < 4 {
			w.Write(blob[from : from+1000])
			w.(http.Flusher).Flush()
			select {
			case <-release:
			case <-q.Context().Done():
			}
			return true
		}
		w.Write(blob[from:])
		return true
	})
	defer close(release)
	r := newRegistry(Config{StallWindow: 50 * time.Millisecond, StallBytes: 10})
	p, err := reference.Parse(host + "/a:b")
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.Session(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Fetcher(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	rc, err := f.Fetch(context.Background(), ocispec.Descriptor{MediaType: "x", Digest: digest.FromBytes(blob), Size: int64(len(blob))})
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	got, err := io.ReadAll(rc)
	if err != nil || string(got) != string(blob) || requests.Load() != 4 {
		t.Errorf("%d bytes in %d requests, %v; want %d in 4", len(got), requests.Load(), err, len(blob))
	}
}

// TestCache: endpoints are made once, and again when their configuration or
// the credentials change.
func TestCache(t *testing.T) {
	dir := hostsDir(t, "r.example", "server = \"http://127.0.0.1:1\"\nskip_verify = true", map[string][]byte{})
	r := newRegistry(Config{HostsDir: dir})
	get := func(a *Auth) *http.Client {
		h, err := r.endpoints("r.example", credentials{host: "r.example", auth: a})
		if err != nil {
			t.Fatal(err)
		}
		return h[0].Client
	}
	first := get(nil)
	if get(nil) != first {
		t.Error("not cached")
	}
	if err := os.WriteFile(filepath.Join(dir, "r.example", "hosts.toml"), []byte(`server = "http://127.0.0.1:2"`), 0o600); err != nil {
		t.Fatal(err)
	}
	second := get(nil)
	if second == first {
		t.Error("not read again after a change")
	}
	r.Forget("r.example")
	if get(nil) == second {
		t.Error("not forgotten")
	}
}
