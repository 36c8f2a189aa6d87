package registry

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func hostsDir(t *testing.T, folder, text string, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
		t.Fatal(err)
	}
	if text != "" {
		files["hosts.toml"] = []byte(text)
	}
	for n, b := range files {
		if err := os.WriteFile(filepath.Join(dir, folder, n), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestHosts: folders of registries, each with what it must lead to.
func TestHosts(t *testing.T) {
	_, plain := fake(t, false, nil)
	secureServer, secure := fake(t, true, nil)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secureServer.Certificate().Raw})
	_, missing := fake(t, false, func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(404); return true })
	dead := deadAddress(t)
	for name, c := range map[string]struct {
		folder, text string
		files        map[string][]byte
		ref          string
		fails        error
		says         string
	}{
		"loopback without a folder":     {"x", "", nil, plain + "/a:b", nil, ""},
		"loopback with TLS":             {"x", "", nil, secure + "/a:b", nil, ""},
		"default with plain HTTP":       {"_default", `[host."http://` + plain + `"]`, nil, "r.example/a:b", nil, ""},
		"server":                        {"_default", `server = "http://` + plain + `"`, nil, "r.example/a:b", nil, ""},
		"folder host:port":              {"r.example:5000", `server = "http://` + plain + `"`, nil, "r.example:5000/a:b", nil, ""},
		"folder host_port_":             {"r.example_5000_", `server = "http://` + plain + `"`, nil, "r.example:5000/a:b", nil, ""},
		"first mirror dead":             {"r.example", "[host.\"http://" + dead + "\"]\n[host.\"http://" + plain + "\"]", nil, "r.example/a:b", nil, ""},
		"first mirror has it not":       {"r.example", "[host.\"http://" + missing + "\"]\n[host.\"http://" + plain + "\"]", nil, "r.example/a:b", nil, ""},
		"mirror for blobs only":         {"r.example", "server = \"http://" + plain + "\"\n[host.\"http://" + dead + "\"]\ncapabilities=[\"pull\"]", nil, "r.example/a:b", nil, ""},
		"ca":                            {"r.example", "server = \"https://" + secure + "\"\nca = \"ca.pem\"", map[string][]byte{"ca.pem": ca}, "r.example/a:b", nil, ""},
		"no ca":                         {"r.example", `server = "https://` + secure + `"`, nil, "r.example/a:b", ErrUnavailable, "certificate"},
		"skip_verify":                   {"r.example", "server = \"https://" + secure + "\"\nskip_verify = true", nil, "r.example/a:b", nil, ""},
		"TOML is broken":                {"r.example", `server = `, nil, "r.example/a:b", ErrHosts, "TOML"},
		"unknown key":                   {"r.example", "server = \"http://" + plain + "\"\ncapabilitys = [\"pull\"]", nil, "r.example/a:b", ErrHosts, "capabilitys"},
		"unknown key in a host":         {"r.example", "[host.\"http://" + plain + "\"]\nskipverify = true", nil, "r.example/a:b", ErrHosts, "skipverify"},
		"unknown capability":            {"r.example", `capabilities = ["read"]`, nil, "r.example/a:b", ErrHosts, "read"},
		"ca is missing":                 {"r.example", `ca = "none.pem"`, nil, "r.example/a:b", ErrHosts, "none.pem"},
		"ca is no certificate":          {"r.example", `ca = "ca.pem"`, map[string][]byte{"ca.pem": []byte("x")}, "r.example/a:b", ErrHosts, "ca.pem"},
		"bad address":                   {"r.example", `server = "ftp://x"`, nil, "r.example/a:b", ErrHosts, "ftp"},
		"bad duration":                  {"r.example", `dial_timeout = "5"`, nil, "r.example/a:b", ErrHosts, "dial_timeout"},
		"another registry's is broken":  {"other.example", `server = `, nil, plain + "/a:b", nil, ""},
		"certificates as docker has it": {"r.example", "", map[string][]byte{"c.cert": []byte("x")}, "r.example/a:b", ErrHosts, "no key"},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string][]byte{}
			for n, b := range c.files {
				files[n] = b
			}
			r := newRegistry(Config{HostsDir: hostsDir(t, c.folder, c.text, files)})
			err := resolve(t, r, c.ref, nil)
			if !errors.Is(err, c.fails) || c.says != "" && !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v; want %v with %q", err, c.fails, c.says)
			}
			if errors.Is(c.fails, ErrHosts) && c.fails != nil && !errors.Is(r.Check(), ErrHosts) {
				t.Error("Check says nothing")
			}
		})
	}
}

func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestClientCertificate: a registry that wants one gets it.
func TestClientCertificate(t *testing.T) {
	asked := false
	h := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		asked = asked || len(q.TLS.PeerCertificates) == 1
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(manifest).String())
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Write(manifest)
	})
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.StartTLS()
	defer s.Close()
	cert, key := keyPair(t)
	dir := hostsDir(t, "r.example", "server = \""+s.URL+"\"\nskip_verify = true\nclient = [[\"c.pem\", \"k.pem\"]]", map[string][]byte{"c.pem": cert, "k.pem": key})
	if err := resolve(t, newRegistry(Config{HostsDir: dir}), "r.example/a:b", nil); err != nil || !asked {
		t.Errorf("%v, certificate seen: %v", err, asked)
	}
}

// FuzzHosts: no file makes the reader panic, and what it accepts has complete
// endpoints.
func FuzzHosts(f *testing.F) {
	for _, s := range []string{`server = "https://x"`, "[host.\"http://m:1\"]\ncapabilities=[\"pull\"]\n[host.\"http://m:1\".header]\na=[\"b\"]",
		"ca=[\"a\"]\nclient=[[\"a\",\"b\"],\"c\"]\nskip_verify=false\noverride_path=true\ndial_timeout=\"3s\"", "host = 1", "[host]\n[host.x.y]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		es, err := parseHosts(b, "/d", "r.example")
		if err != nil {
			return
		}
		for _, e := range es {
			if e.scheme != "http" && e.scheme != "https" || e.host == "" || e.capabilities == 0 {
				t.Fatalf("%q: endpoint %+v", b, e)
			}
		}
	})
}
