package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// tokens is a registry with a token server, which changes its mind.
type tokens struct {
	mu      sync.Mutex
	issued  int
	valid   string // the token that is taken now
	refuses int    // requests with a valid token, refused without saying why
}

func (k *tokens) issue(w http.ResponseWriter, q *http.Request) {
	if user, pass, _ := q.BasicAuth(); user != "me" || pass != "secret" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.issued++
	k.valid = fmt.Sprint("token-", k.issued)
	json.NewEncoder(w).Encode(map[string]any{"token": k.valid, "expires_in": 300})
}

// check refuses a request without a valid token.
func (k *tokens) check(realm string, blobs bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, q *http.Request) bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		got := strings.TrimPrefix(q.Header.Get("Authorization"), "Bearer ")
		if got == k.valid && got != "" {
			if blobs && k.refuses > 0 && strings.Contains(q.URL.Path, "/blobs/") {
				k.refuses--
				k.valid = "" // as if it had been withdrawn
			} else {
				return false
			}
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="registry"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}

// TestTokens: a token that stops being taken in the middle of a pull is asked
// for anew, once; a registry that takes none is told to have denied access.
func TestTokens(t *testing.T) {
	srv := newServer(t)
	module := wasmModule("tokens")
	artifactOf(srv, "a", module)
	for name, c := range map[string]struct {
		refuses int
		auth    *Auth
		fails   error
		issued  int // at most
	}{
		"taken":             {0, &Auth{Username: "me", Password: "secret"}, nil, 1},
		"withdrawn once":    {1, &Auth{Username: "me", Password: "secret"}, nil, 2},
		"withdrawn always":  {1000, &Auth{Username: "me", Password: "secret"}, ErrAccess, 4},
		"wrong credentials": {0, &Auth{Username: "me", Password: "wrong"}, ErrAccess, 0},
		"none":              {0, nil, ErrAccess, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t, Config{})
			k := &tokens{refuses: c.refuses}
			realm := httptest.NewServer(http.HandlerFunc(k.issue))
			defer realm.Close()
			srv.setHook(k.check(realm.URL, true))
			_, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{Auth: c.auth})
			if !errors.Is(err, c.fails) {
				t.Errorf("got %v, want %v", err, c.fails)
			}
			if k.issued > c.issued {
				t.Errorf("%d tokens were asked for, want at most %d", k.issued, c.issued)
			}
			if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "token-")) {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

// TestOthersCredentials: who joins a pull that fails for its first caller's
// credentials gets a pull with its own.
func TestOthersCredentials(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{})
	artifactOf(srv, "a", wasmModule("others"))
	asked, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	srv.setHook(func(w http.ResponseWriter, q *http.Request) bool {
		user, _, _ := q.BasicAuth()
		if user == "wrong" {
			once.Do(func() { close(asked) })
			<-gate
		}
		if user == "right" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	results := map[string]chan error{"wrong": make(chan error, 1), "right": make(chan error, 1)}
	pull := func(user string, tell func(Progress)) {
		_, err := s.Pull(context.Background(), srv.ref("a", "v1"), PullOptions{Auth: &Auth{Username: user, Password: "x"}, Progress: tell})
		results[user] <- err
	}
	go pull("wrong", nil)
	<-asked
	joined := make(chan struct{})
	var join sync.Once
	go pull("right", func(Progress) { join.Do(func() { close(joined) }) })
	<-joined
	close(gate)
	if err := <-results["wrong"]; !errors.Is(err, ErrAccess) {
		t.Errorf("with wrong credentials: %v", err)
	}
	if err := <-results["right"]; err != nil {
		t.Errorf("with right ones: %v", err)
	}
}

// TestPullLimit: more pulls than may run at once wait for their turn, and can
// be given up while they do.
func TestPullLimit(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{PullLimit: 1})
	artifactOf(srv, "first", wasmModule("first"))
	artifactOf(srv, "second", wasmModule("second"))
	fetching, early, gate := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var once sync.Once
	srv.setHook(func(_ http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, sha(wasmModule("first"))) {
			close(fetching)
			<-gate
		}
		if strings.Contains(q.URL.Path, "/second/") {
			select {
			case <-gate:
			default:
				once.Do(func() { close(early) })
			}
		}
		return false
	})
	first := make(chan error, 1)
	go func() {
		_, err := s.Pull(context.Background(), srv.ref("first", "v1"), PullOptions{})
		first <- err
	}()
	<-fetching
	ctx, cancel := context.WithCancel(context.Background())
	given := make(chan error, 1)
	go func() {
		_, err := s.Pull(ctx, srv.ref("second", "v1"), PullOptions{})
		given <- err
	}()
	select {
	case <-early:
		t.Error("the second pull began while the first was under way")
	case <-time.After(50 * time.Millisecond): // for a pull that does not wait to show itself
	}
	cancel()
	if err := <-given; !errors.Is(err, context.Canceled) {
		t.Errorf("given up while waiting: %v", err)
	}
	second := make(chan error, 1)
	go func() {
		_, err := s.Pull(context.Background(), srv.ref("second", "v1"), PullOptions{})
		second <- err
	}()
	close(gate)
	for _, r := range []chan error{first, second} {
		if err := <-r; err != nil {
			t.Error(err)
		}
	}
}
