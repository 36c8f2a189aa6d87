package registry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A full disk is not the registry's fault, and no other try helps.
func TestFullDisk(t *testing.T) {
	for err, down := range map[error]bool{
		&os.PathError{Op: "write", Path: "/x", Err: syscall.ENOSPC}:     false,
		&os.PathError{Op: "write", Path: "/x", Err: syscall.EDQUOT}:     false,
		&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}: true,
	} {
		if got := Classify(t.Context(), err); errors.Is(got, ErrUnavailable) != down || !errors.Is(got, errors.Unwrap(err)) {
			t.Errorf("%v became %v", err, got)
		}
	}
}

// TestWords: what a person reads of a registry that does not serve, and what
// they do not read: whole addresses, which may hold what grants access.
func TestWords(t *testing.T) {
	_, secure := fake(t, true, nil)
	_, plain := fake(t, false, nil)
	answer := func(code int, header string) string {
		_, host := fake(t, false, func(w http.ResponseWriter, q *http.Request) bool {
			if header != "" {
				w.Header().Set("WWW-Authenticate", header)
			}
			w.WriteHeader(code)
			return true
		})
		return "http://" + host
	}
	signed, _ := fake(t, false, func(w http.ResponseWriter, q *http.Request) bool {
		if q.URL.Query().Get("signature") == "" {
			http.Redirect(w, q, q.URL.Path+"?signature=grants-access", http.StatusTemporaryRedirect)
			return true
		}
		w.WriteHeader(http.StatusTeapot)
		return true
	})
	dead := "http://" + deadAddress(t)
	for server, want := range map[string]string{
		dead:                 "registry unavailable: " + dead + ": dial tcp " + strings.TrimPrefix(dead, "http://") + ": connect: connection refused",
		"https://" + secure:  "registry unavailable: https://" + secure + ": tls: failed to verify certificate: x509: certificate signed by unknown authority; name the authority that signed its certificate as ca in the registry's hosts.toml",
		"https://" + plain:   "registry unavailable: https://" + plain + ": http: server gave HTTP response to HTTPS client; a registry that speaks plain HTTP needs server = \"http://...\" in its hosts.toml",
		answer(404, ""):      "not in the registry",
		answer(401, "Basic"): "registry denied access: it wants credentials, and those that it got (if any) are not enough, or it has no such repository",
		signed.URL:           "registry unavailable: " + signed.URL + " answered with 418 I'm a teapot",
	} {
		r := newRegistry(Config{HostsDir: hostsDir(t, "r.example", `server = "`+server+`"`, map[string][]byte{})})
		if err := resolve(t, r, "r.example/a:b", nil); err == nil || err.Error() != want {
			t.Errorf("%s:\ngot  %v\nwant %s", server, err, want)
		}
	}
}

// A pull that was given up tells no address either.
func TestGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Classify(ctx, &url.Error{Op: "Get", URL: "https://store.example/blob?signature=grants-access", Err: context.Canceled})
	if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "grants-access") {
		t.Error(err)
	}
}
