package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Bounds of the patience with a registry.
const (
	// tries of one request, the first included.
	maxTries = 5
	// firstWait doubles with each try, give or take a quarter.
	firstWait = 250 * time.Millisecond
	// maxWait bounds one wait, whatever Retry-After says: the kubelet asks
	// again by itself.
	maxWait = 30 * time.Second
	// maxHops bounds redirects of one request; content networks need two.
	maxHops = 5
	// maxManifestBody bounds the answer to a request for a manifest: what
	// registries accept themselves.
	maxManifestBody = 4 << 20
	// maxTokenBody bounds the answer of a token server.
	maxTokenBody = 1 << 20
)

// errRedirect: a registry sent us where it must not.
var errRedirect = errors.New("redirect refused")

// patient is the transport of one endpoint: it waits and asks again where the
// registry is busy, ends bodies that stall, and follows redirects only where
// they may go.
type patient struct {
	next, outside http.RoundTripper
	origin        endpoint
	window        time.Duration
	minBytes      int64
	firstWait     time.Duration
	// token: the requests are those of a token server, which the registry
	// named; the rule for redirects holds for them too.
	token bool
}

// RoundTrip implements http.RoundTripper.
func (p *patient) RoundTrip(q *http.Request) (*http.Response, error) {
	next, err := p.route(q)
	if err != nil {
		return nil, err
	}
	// A compressed answer would be unpacked before anything counted it.
	q = q.Clone(q.Context())
	if q.Header.Get("Accept-Encoding") != "" {
		q.Header.Set("Accept-Encoding", "identity")
	}
	if first := firstRequest(q); !sameHost(first.URL.Host, q.URL.Host) || first.URL.Scheme != q.URL.Scheme {
		p.undress(q.Header)
	}
	repeatable := (q.Body == nil || q.Body == http.NoBody) && (q.Method == http.MethodGet || q.Method == http.MethodHead)
	for try := 1; ; try++ {
		resp, err := p.once(next, q)
		wait, again := p.again(q.Context(), resp, err, try)
		if !again || !repeatable {
			return resp, err
		}
		if resp != nil {
			resp.Body.Close()
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-q.Context().Done():
			t.Stop()
			return nil, q.Context().Err()
		}
	}
}

// again says whether a request is worth repeating, and when.
func (p *patient) again(ctx context.Context, resp *http.Response, err error, try int) (time.Duration, bool) {
	if try >= maxTries || ctx.Err() != nil {
		return 0, false
	}
	wait := p.firstWait << (try - 1)
	wait += time.Duration(rand.Int64N(int64(wait)/2+1)) - wait/4
	if err != nil {
		return wait, transient(err)
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		return 0, false
	}
	if after, ok := retryAfter(resp.Header.Get("Retry-After"), time.Now()); ok {
		wait = max(after, p.firstWait)
	}
	return min(wait, maxWait), true
}

// retryAfter reads the header's two forms, seconds and a date.
func retryAfter(v string, now time.Time) (time.Duration, bool) {
	s, err := strconv.ParseUint(v, 10, 31)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(s) * time.Second, true // out of range: the most that fits
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(t.Sub(now), 0), true
	}
	return 0, false
}

// transient errors are worth another try at the same place; a refused
// connection is not: the next mirror is asked at once.
func transient(err error) bool {
	if errors.Is(err, errRedirect) || errors.Is(err, context.Canceled) {
		return false
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return false
	}
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout() || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

func (p *patient) once(next http.RoundTripper, q *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(q.Context())
	resp, err := next.RoundTrip(q.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	b := &watched{rc: resp.Body, cancel: cancel, window: p.window, min: p.minBytes}
	switch {
	case p.token:
		b.most, b.what = maxTokenBody, "the answer of the token server"
	case strings.Contains(q.URL.Path, "/manifests/"):
		b.most, b.what = maxManifestBody, "the manifest"
	}
	if b.most > 0 && resp.ContentLength > b.most && resp.StatusCode < 300 {
		resp.Body.Close()
		cancel()
		return nil, b.tooLarge(resp.ContentLength)
	}
	b.timer = time.AfterFunc(p.window, b.tick)
	resp.Body = b
	return resp, nil
}

// route chooses the transport: requests to the endpoint itself go straight;
// those that it sent elsewhere must not lose their encryption, must not hop
// for ever, and must not end at this machine or its link.
func (p *patient) route(q *http.Request) (http.RoundTripper, error) {
	hops := 0
	for r := q.Response; r != nil && r.Request != nil; r = r.Request.Response {
		hops++
	}
	if hops == 0 && !p.token || sameHost(q.URL.Host, p.origin.host) && q.URL.Scheme == p.origin.scheme {
		if hops > maxHops {
			return nil, fmt.Errorf("%w: more than %d in a row", errRedirect, maxHops)
		}
		return p.next, nil
	}
	switch {
	case hops > maxHops:
		return nil, fmt.Errorf("%w: more than %d in a row", errRedirect, maxHops)
	case q.URL.Scheme != "https" && q.URL.Scheme != "http":
		return nil, fmt.Errorf("%w: to scheme %q", errRedirect, q.URL.Scheme)
	case q.URL.Scheme == "http" && p.origin.scheme == "https" && !p.origin.fallback:
		return nil, fmt.Errorf("%w: from https to http, %s", errRedirect, q.URL.Host)
	case isLoopbackName(p.origin.host):
		return p.next, nil
	}
	if proxy, err := http.ProxyFromEnvironment(q); err == nil && proxy != nil {
		if name, _, _ := cutPort(q.URL.Host); forbiddenName(name) {
			return nil, fmt.Errorf("%w: to %s, an address of this machine or its link", errRedirect, q.URL.Host)
		}
		return p.next, nil
	}
	return p.outside, nil
}

// firstRequest is the one that redirects led on from.
func firstRequest(q *http.Request) *http.Request {
	for q.Response != nil && q.Response.Request != nil {
		q = q.Response.Request
	}
	return q
}

// undress takes off a request what only the endpoint may see. The standard
// client does so too, but takes ports of one machine, and all names below the
// registry's, for the same place, and knows nothing of configured headers.
func (p *patient) undress(h http.Header) {
	for _, name := range []string{"Authorization", "Proxy-Authorization", "Cookie"} {
		h.Del(name)
	}
	for name := range p.origin.header {
		h.Del(name)
	}
}

func sameHost(a, b string) bool { return strings.EqualFold(a, b) }

func forbiddenName(name string) bool {
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip := net.ParseIP(strings.Trim(name, "[]"))
	return ip != nil && forbiddenIP(ip)
}

// forbiddenIP are addresses that a redirect must not reach: services of the
// node itself, and those of the link, where clouds serve credentials.
func forbiddenIP(ip net.IP) bool {
	return ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast() ||
		ip.IsInterfaceLocalMulticast() || ip.IsUnspecified() || ip.IsMulticast()
}

// outsideControl is called with the address that a name resolved to, before
// the connection is made.
func outsideControl(_, address string, _ syscall.RawConn) error {
	h, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	ip := net.ParseIP(strings.Split(h, "%")[0])
	if ip == nil || forbiddenIP(ip) {
		return fmt.Errorf("%w: to %s, an address of this machine or its link", errRedirect, address)
	}
	return nil
}

// watched is a body under a watchdog: one that brings too little in a window
// ends with io.ErrUnexpectedEOF, on which the fetcher goes on by a range
// request. It also bounds bodies that are held in memory.
type watched struct {
	rc     io.ReadCloser
	cancel context.CancelFunc
	timer  *time.Timer
	window time.Duration
	min    int64
	most   int64 // bytes that may come; 0: any number
	what   string

	mu      sync.Mutex
	n, last int64
	reading bool
	stalled bool
	closed  bool
}

// tick runs once per window. Only windows in which somebody waited for bytes
// count: a reader that is busy is not the registry's fault.
func (b *watched) tick() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	if b.reading && b.n-b.last < b.min {
		b.stalled = true
		b.cancel()
		return
	}
	b.last = b.n
	b.timer.Reset(b.window)
}

// Read implements io.Reader.
func (b *watched) Read(p []byte) (int, error) {
	b.mu.Lock()
	b.reading = true
	b.mu.Unlock()
	n, err := b.rc.Read(p)
	b.mu.Lock()
	b.reading = false
	b.n += int64(n)
	stalled, all := b.stalled, b.n
	b.mu.Unlock()
	if b.most > 0 && all > b.most {
		return 0, b.tooLarge(all)
	}
	if err != nil && err != io.EOF && (stalled || errors.Is(err, syscall.ECONNRESET)) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (b *watched) tooLarge(n int64) error {
	return fmt.Errorf("%w: %s has %d bytes or more, at most %d are accepted", ErrTooLarge, b.what, n, b.most)
}

// Close implements io.Closer.
func (b *watched) Close() error {
	b.mu.Lock()
	b.closed = true
	b.timer.Stop()
	b.mu.Unlock()
	err := b.rc.Close()
	b.cancel()
	return err
}
