package registry

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxHostsFile bounds a hosts.toml; real ones have less than 4 KiB.
const maxHostsFile = 1 << 20

// ErrHosts: the folder of a registry is wrong. Only pulls of that registry
// fail.
var ErrHosts = errors.New("registry configuration")

const allCapabilities = docker.HostCapabilityPull | docker.HostCapabilityResolve |
	docker.HostCapabilityPush | docker.HostCapabilityReferrers

// endpoint is one place to ask, as configured.
type endpoint struct {
	scheme, host, path string
	capabilities       docker.HostCapabilities
	ca                 []string
	client             [][2]string
	skipVerify         *bool
	header             http.Header
	dialTimeout        time.Duration
	// fallback: the endpoint is on this machine and has a port of its own;
	// whether it speaks TLS is found out by asking.
	fallback bool
}

// hostFile is hosts.toml. Every key is known or the file is wrong: a mistyped
// "capabilities" would give all of them.
type hostFile struct {
	Server string `toml:"server"`
	hostEntry
	Host map[string]hostEntry `toml:"host"`
}

type hostEntry struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   *bool          `toml:"skip_verify"`
	Header       map[string]any `toml:"header"`
	OverridePath bool           `toml:"override_path"`
	DialTimeout  string         `toml:"dial_timeout"`
}

// hostFolder finds the folder of a registry: its name, its name with the port
// between underscores, or _default. "" means none.
func hostFolder(root, host string) (string, error) {
	if root == "" {
		return "", nil
	}
	names := []string{host}
	if h, p, ok := cutPort(host); ok {
		names = []string{h + "_" + p + "_", host, h}
	}
	for _, n := range append(names, "_default") {
		dir := filepath.Join(root, n)
		_, err := os.Stat(dir)
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("%w: %w", ErrHosts, err)
		}
	}
	return "", nil
}

func cutPort(host string) (name, port string, ok bool) {
	i := strings.LastIndexByte(host, ':')
	if i <= 0 || strings.HasSuffix(host, "]") {
		return host, "", false
	}
	return host[:i], host[i+1:], true
}

// loadEndpoints reads a registry's folder. The endpoints are in the order in
// which they are asked; the last is the registry itself.
func loadEndpoints(dir, host string) ([]endpoint, error) {
	if dir == "" {
		return []endpoint{ownEndpoint(host)}, nil
	}
	file := filepath.Join(dir, "hosts.toml")
	b, err := readBounded(file, maxHostsFile)
	if errors.Is(err, os.ErrNotExist) {
		return certFiles(dir, host)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHosts, err)
	}
	es, err := parseHosts(b, dir, host)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrHosts, file, err)
	}
	return es, nil
}

// parseHosts reads a hosts.toml that stands in dir, for a registry.
func parseHosts(b []byte, dir, host string) ([]endpoint, error) {
	var f hostFile
	d := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return nil, fmt.Errorf("unknown key; known are server, host, capabilities, ca, client, skip_verify, header, override_path, dial_timeout:\n%s", strict.String())
		}
		var de *toml.DecodeError
		if errors.As(err, &de) {
			return nil, fmt.Errorf("not valid TOML:\n%s", de.String())
		}
		return nil, err
	}
	order, err := hostOrder(b)
	if err != nil {
		return nil, err
	}
	var es []endpoint
	for _, name := range order {
		if name == "" {
			return nil, errors.New(`a host has an empty address; write [host."https://…"]`)
		}
		e, err := f.Host[name].endpoint(name, dir)
		if err != nil {
			return nil, fmt.Errorf("host %q: %w", name, err)
		}
		es = append(es, e)
	}
	last, err := f.hostEntry.endpoint(f.Server, dir)
	if err != nil {
		return nil, fmt.Errorf("server %q: %w", f.Server, err)
	}
	if f.Server == "" {
		own := ownEndpoint(host)
		last.scheme, last.host, last.path = own.scheme, own.host, own.path
		last.fallback = own.fallback && last.ca == nil && last.client == nil
		if last.skipVerify == nil && last.fallback {
			last.skipVerify = own.skipVerify
		}
	}
	return append(es, last), nil
}

// hostOrder lists the keys of [host."…"] as they stand in the file: mirrors
// are asked in this order, and a map has none.
func hostOrder(b []byte) (order []string, err error) {
	p := unstable.Parser{}
	p.Reset(b)
	seen := map[string]bool{}
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table && e.Kind != unstable.KeyValue {
			continue
		}
		var parts []string
		for it := e.Key(); it.Next(); {
			parts = append(parts, string(it.Node().Data))
		}
		if len(parts) >= 2 && parts[0] == "host" && !seen[parts[1]] && e.Kind == unstable.Table {
			seen[parts[1]] = true
			order = append(order, parts[1])
		} else if len(parts) >= 1 && parts[0] == "host" && e.Kind == unstable.KeyValue {
			return nil, errors.New(`hosts must be written as tables, [host."https://…"]`)
		}
	}
	return order, p.Error()
}

func (h hostEntry) endpoint(server, dir string) (e endpoint, err error) {
	if server != "" {
		if err := e.setServer(server, h.OverridePath); err != nil {
			return e, err
		}
	}
	e.skipVerify = h.SkipVerify
	if e.capabilities, err = capabilities(h.Capabilities); err != nil {
		return e, err
	}
	if e.ca, err = fileList(h.CA, dir); err != nil {
		return e, fmt.Errorf("ca: %w", err)
	}
	if e.client, err = filePairs(h.Client, dir); err != nil {
		return e, fmt.Errorf("client: %w", err)
	}
	if e.header, err = headers(h.Header); err != nil {
		return e, err
	}
	if h.DialTimeout != "" {
		if e.dialTimeout, err = time.ParseDuration(h.DialTimeout); err != nil || e.dialTimeout <= 0 {
			return e, fmt.Errorf("dial_timeout %q is no positive duration such as \"5s\"", h.DialTimeout)
		}
	}
	return e, nil
}

func (e *endpoint) setServer(server string, overridePath bool) error {
	if !strings.Contains(server, "://") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	if err != nil {
		return err
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q is no address such as https://registry.example:5000", server)
	}
	e.scheme, e.host = u.Scheme, u.Host
	switch {
	case u.Path == "" && !overridePath:
		e.path = "/v2"
	case u.Path != "":
		e.path = path.Clean(u.Path)
		if !strings.HasSuffix(e.path, "/v2") && !overridePath {
			e.path = path.Join(e.path, "v2")
		}
	}
	return nil
}

func capabilities(names []string) (c docker.HostCapabilities, err error) {
	if len(names) == 0 {
		return allCapabilities, nil
	}
	for _, n := range names {
		switch strings.ToLower(n) {
		case "pull":
			c |= docker.HostCapabilityPull
		case "resolve":
			c |= docker.HostCapabilityResolve
		case "push":
			c |= docker.HostCapabilityPush
		case "referrers":
			c |= docker.HostCapabilityReferrers
		default:
			return 0, fmt.Errorf("unknown capability %q; known are pull, resolve, push, referrers", n)
		}
	}
	return c, nil
}

func absolute(p, dir string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(dir, p)
}

// fileList reads a file name or a list of them.
func fileList(v any, dir string) ([]string, error) {
	switch t := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{absolute(t, dir)}, nil
	case []any:
		var l []string
		for _, x := range t {
			s, ok := x.(string)
			if !ok {
				return nil, fmt.Errorf("%v is no file name", x)
			}
			l = append(l, absolute(s, dir))
		}
		return l, nil
	}
	return nil, fmt.Errorf("%v is neither a file name nor a list of them", v)
}

// filePairs reads a certificate file that holds its key, a list of those, or a
// list of pairs of certificate and key.
func filePairs(v any, dir string) (pairs [][2]string, err error) {
	list, ok := v.([]any)
	if !ok {
		l, err := fileList(v, dir)
		for _, f := range l {
			pairs = append(pairs, [2]string{f, f})
		}
		return pairs, err
	}
	for _, x := range list {
		l, err := fileList(x, dir)
		if err != nil {
			return nil, err
		}
		switch _, isList := x.([]any); {
		case !isList && len(l) == 1:
			pairs = append(pairs, [2]string{l[0], l[0]})
		case len(l) == 2:
			pairs = append(pairs, [2]string{l[0], l[1]})
		default:
			return nil, fmt.Errorf("%v is no pair of certificate and key", x)
		}
	}
	return pairs, nil
}

func headers(m map[string]any) (http.Header, error) {
	if len(m) == 0 {
		return nil, nil
	}
	h := http.Header{}
	for k, v := range m {
		switch t := v.(type) {
		case string:
			h.Add(k, t)
		case []any:
			for _, x := range t {
				s, ok := x.(string)
				if !ok {
					return nil, fmt.Errorf("header %q: %v is no text", k, x)
				}
				h.Add(k, s)
			}
		default:
			return nil, fmt.Errorf("header %q: %v is neither a text nor a list of texts", k, v)
		}
	}
	return h, nil
}

// certFiles reads a folder without hosts.toml as docker does: *.crt are
// authorities, *.cert and *.key client certificates.
func certFiles(dir, host string) ([]endpoint, error) {
	e := ownEndpoint(host)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHosts, err)
	}
	for _, f := range entries {
		p := filepath.Join(dir, f.Name())
		switch filepath.Ext(p) {
		case ".crt":
			e.ca = append(e.ca, p)
			e.skipVerify, e.fallback = nil, false
			e.scheme = "https"
		case ".cert":
			key := strings.TrimSuffix(p, ".cert") + ".key"
			if _, err := os.Stat(key); err != nil {
				return nil, fmt.Errorf("%w: %s has no key beside it: %w", ErrHosts, p, err)
			}
			e.client = append(e.client, [2]string{p, key})
		}
	}
	return []endpoint{e}, nil
}

// ownEndpoint is a registry asked under its own name: TLS, except that one on
// this machine with a port of its own may speak plain HTTP, or TLS that nobody
// can verify.
func ownEndpoint(host string) endpoint {
	e := endpoint{scheme: "https", host: host, path: "/v2", capabilities: allCapabilities}
	if host == "docker.io" {
		e.host = "registry-1.docker.io"
		return e
	}
	if !isLoopbackName(host) {
		return e
	}
	_, port, _ := cutPort(host)
	switch port {
	case "80":
		e.scheme = "http"
	case "", "443":
	default:
		yes := true
		e.fallback, e.skipVerify = true, &yes
	}
	return e
}

func isLoopbackName(host string) bool {
	name, _, _ := cutPort(host)
	name = strings.Trim(name, "[]")
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip := net.ParseIP(name)
	return ip != nil && ip.IsLoopback()
}
