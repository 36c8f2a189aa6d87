package registry

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDockerConfigPaths: an entry is for the repositories at and below its
// path, the longest path counts, and an entry for the host is for the rest.
func TestDockerConfigPaths(t *testing.T) {
	const text = `{"auths":{
		"r.example/team":{"username":"team","password":"x"},
		"https://r.example/team/inner/":{"username":"inner","password":"x"},
		"https://Mixed.example":{"username":"mixed","password":"x"},
		"r.example/empty":{},
		"HOST.example:5000/a":{"username":"a","password":"x"},
		"https://host.example:5000/v1/":{"username":"host","password":"x"},
		"host.example:5000/v2/b":{"username":"b","password":"x"},
		"https://index.docker.io/v1/":{"username":"hub","password":"x"},
		"twice.example":{"username":"one","password":"x"},"https://twice.example":{"username":"two","password":"x"}}}`
	own := func(host string) endpoint { return ownEndpoint(host) }
	for range 20 { // whatever the order of a map
		c := parseDockerConfig([]byte(text), "config.json")
		for _, x := range []struct {
			at               endpoint
			repository, want string
		}{
			{own("r.example"), "team", "team"},
			{own("r.example"), "team/app", "team"},
			{own("r.example"), "team/inner/app", "inner"},
			{own("r.example"), "teamwork/app", ""},
			{own("r.example"), "other", ""},
			{own("r.example"), "empty/a", ""},
			{own("R.example"), "team/app", "team"},
			{own("mixed.example"), "a", "mixed"},
			{own("mixed.example:1"), "a", ""},
			{own("host.example:5000"), "a/x", "a"},
			{own("host.example:5000"), "b/x", "b"},
			{own("host.example:5000"), "c", "host"},
			{own("docker.io"), "library/hello", "hub"},
			{own("twice.example"), "a", "two"},
			{endpoint{host: "r.example", path: "/v2/team"}, "library/hello", "team"},
			{endpoint{host: "r.example", path: "/team/v2"}, "library/hello", "team"},
			{endpoint{host: "r.example", path: "/other/v2"}, "team/hello", ""},
		} {
			got, err := credentials{host: "elsewhere.example", repository: x.repository, file: c}.of(x.at)
			if err != nil || got.user != x.want {
				t.Fatalf("%s%s %s: %q, %v; want %q", x.at.host, x.at.path, x.repository, got.user, err, x.want)
			}
		}
	}
}

// TestDockerConfigWrong: what is wrong in a docker config, or not for us, is
// an error of the pulls that it concerns and of no others.
func TestDockerConfigWrong(t *testing.T) {
	_, open := fake(t, false, nil)
	_, closed := fake(t, false, func(w http.ResponseWriter, q *http.Request) bool {
		if u, p, _ := q.BasicAuth(); u == "me" && p == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	me := &Auth{Username: "me", Password: "secret"}
	entry := `"` + closed + `":{"username":"me","password":"secret"}`
	for name, c := range map[string]struct {
		text, ref string
		auth      *Auth
		fails     error
		says      string
	}{
		"another host's entry":              {`{"auths":{"x.example":{"auth":"%"},` + entry + `}}`, closed + "/a:b", nil, nil, ""},
		"another host's entry is no entry":  {`{"auths":{"x.example":7,` + entry + `}}`, closed + "/a:b", nil, nil, ""},
		"another path's entry":              {`{"auths":{"` + open + `/x":{"auth":"%"}}}`, open + "/a:b", nil, nil, ""},
		"its entry":                         {`{"auths":{"` + open + `":{"auth":"%"}}}`, open + "/a:b", nil, ErrAuth, `auths of "` + open + `": `},
		"its entry is no entry":             {`{"auths":{"` + open + `":7}}`, open + "/a:b", nil, ErrAuth, `auths of "` + open + `"`},
		"its entry, and CRI credentials":    {`{"auths":{"` + closed + `":{"auth":"%"}}}`, closed + "/a:b", me, nil, ""},
		"no JSON":                           {`{`, open + "/a:b", nil, ErrAuth, "config.json"},
		"no JSON, and CRI credentials":      {`{`, closed + "/a:b", me, nil, ""},
		"credsStore, public":                {`{"credsStore":"pass"}`, open + "/a:b", nil, nil, ""},
		"credsStore, and CRI credentials":   {`{"credsStore":"pass"}`, closed + "/a:b", me, nil, ""},
		"credsStore, and wrong credentials": {`{"credsStore":"pass"}`, closed + "/a:b", &Auth{Username: "you", Password: "x"}, ErrAccess, ""},
		"credsStore, and an entry":          {`{"credsStore":"pass","auths":{` + entry + `}}`, closed + "/a:b", nil, nil, ""},
		"credsStore, private":               {`{"credsStore":"pass","auths":{"` + closed + `":{}}}`, closed + "/a:b", nil, ErrAccess, "docker-credential-pass, and helpers are not run"},
		"a helper of its own":               {`{"credHelpers":{"` + closed + `":"cloud"}}`, closed + "/a:b", nil, ErrAccess, "docker-credential-cloud, and helpers are not run"},
		"a helper of another host":          {`{"credHelpers":{"x.example":"cloud"}}`, closed + "/a:b", nil, ErrAccess, ""},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			err := resolve(t, newRegistry(Config{DockerConfig: file}), c.ref, c.auth)
			if !errors.Is(err, c.fails) || err != nil && (!strings.Contains(err.Error(), c.says) || c.says == "" && strings.Contains(err.Error(), "helpers")) {
				t.Errorf("got %v, want %v that says %q", err, c.fails, c.says)
			}
		})
	}
}

// TestDockerConfigCheck: all that is wrong is told at the start.
func TestDockerConfigCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.json")
	for text, says := range map[string][]string{
		`{"auths":{"a.example":{"auth":"%"},"b.example":7,"c.example":{"username":"me"}}}`: {"a.example", "b.example"},
		`[]`: {"config.json"},
		`{}`: nil,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := newRegistry(Config{DockerConfig: file}).Check()
		if (err != nil) != (says != nil) || err != nil && strings.Contains(err.Error(), "c.example") {
			t.Errorf("%s: %v", text, err)
		}
		for _, s := range says {
			if err != nil && !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %v; want it to name %s", text, err, s)
			}
		}
	}
}

// FuzzDockerConfig: whatever the file holds, every host gets credentials that
// stand in it, or an error that names the file, or nothing.
func FuzzDockerConfig(f *testing.F) {
	f.Add([]byte(`{"auths":{"r.example/team":{"auth":"dTpw"},"r.example":{"username":"u","password":"p"}},"credsStore":"x"}`), "r.example", "team/app")
	f.Add([]byte(`{"auths":{"r.example":{"auth":1},"https://index.docker.io/v1/":{"identitytoken":"t"}},"credHelpers":{"R.example":"y"}}`), "docker.io", "a")
	f.Add([]byte(`{"auths":[]}`), "", "")
	f.Fuzz(func(t *testing.T, b []byte, host, repository string) {
		c := parseDockerConfig(b, "config.json")
		s, err := c.of(serverHost(host), repository)
		if err != nil && (!strings.Contains(err.Error(), "config.json") || s != (secret{})) {
			t.Errorf("%+v, %v", s, err)
		}
		if s != (secret{}) && !slices.ContainsFunc(c.entries, func(e dockerEntry) bool {
			return e.host == serverHost(host) && e.secret == s && strings.HasPrefix(repository, e.path)
		}) {
			t.Errorf("%q %q gets the credentials of others", host, repository)
		}
		c.helped(host)
	})
}
