package reference

import (
	"errors"
	"strings"
	"testing"
)

const hex64 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParse(t *testing.T) {
	for _, c := range []struct{ in, want, host string }{
		{"hello", "docker.io/library/hello:latest", "docker.io"},
		{"me/hello:v1", "docker.io/me/hello:v1", "docker.io"},
		{"localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000"},
		{"r.example/a@sha256:" + hex64, "r.example/a@sha256:" + hex64, "r.example"},
		{"r.example/a:v1@sha256:" + hex64, "r.example/a@sha256:" + hex64, "r.example"},
		{"127.0.0.1:1/x:y", "127.0.0.1:1/x:y", "127.0.0.1:1"},
	} {
		r, err := Parse(c.in)
		if err != nil || r.String() != c.want || r.Host() != c.host {
			t.Errorf("%s: got %s, host %s, %v; want %s, host %s", c.in, r, r.Host(), err, c.want, c.host)
		}
	}
	for _, in := range []string{"", "a/UPPER", "a b", hex64, "x@sha256:12", "http://x/y", "x:" + strings.Repeat("a", 129), strings.Repeat("a/", 800) + "a"} {
		if r, err := Parse(in); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.40q: got %v, %v; want ErrInvalid", in, r, err)
		}
	}
}

func TestID(t *testing.T) {
	for in, ok := range map[string]bool{hex64: true, "sha256:" + hex64: true, "hello": false, hex64[1:]: false, "sha256:" + hex64[1:]: false, strings.ToUpper(hex64): false} {
		if d, got := ID(in); got != ok || ok && d.Encoded() != hex64 {
			t.Errorf("%s: got %s, %v", in, d, got)
		}
	}
}

// FuzzParse: what is accepted is a fixed point, and within bounds.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"hello", "a/b:c", "r:5000/a@sha256:" + hex64, "r/a:t@sha256:" + hex64, "[::1]:5/x", "sha256:" + hex64} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(r.String())
		if err != nil || again != r {
			t.Fatalf("%q parses to %q, which parses to %q, %v", s, r, again, err)
		}
		if r.Host() == "" || strings.ContainsAny(r.String(), " \n\x00\\") || strings.Contains(r.Name, "..") {
			t.Fatalf("%q parses to %q", s, r)
		}
	})
}
