package registry

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// maxDockerConfig bounds a docker config file.
const maxDockerConfig = 1 << 20

// dockerConfig is a docker config file. What is wrong in it is an error of
// the pulls that would use it, and of no others.
type dockerConfig struct {
	name    string
	entries []dockerEntry // the one for the longest path first
	store   string
	helpers map[string]string
	broken  error // the file cannot be read at all
}

// dockerEntry is for the repositories at and below a path of a host, as the
// kubelet reads these files; docker itself knows hosts only.
type dockerEntry struct {
	host, path string
	secret     secret
	err        error
}

// readDockerConfig reads a docker config file; one that is not there is empty.
func readDockerConfig(name string) *dockerConfig {
	if name == "" {
		return nil
	}
	b, err := readBounded(name, maxDockerConfig)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &dockerConfig{broken: fmt.Errorf("%w: %w", ErrAuth, err)}
	}
	return parseDockerConfig(b, name)
}

func parseDockerConfig(b []byte, name string) *dockerConfig {
	var f struct {
		Auths       map[string]json.RawMessage `json:"auths"`
		CredsStore  string                     `json:"credsStore"`
		CredHelpers map[string]string          `json:"credHelpers"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return &dockerConfig{broken: fmt.Errorf("%w: %s: %w", ErrAuth, name, err)}
	}
	c := &dockerConfig{name: name, store: f.CredsStore, helpers: map[string]string{}}
	for host, program := range f.CredHelpers {
		c.helpers[serverHost(host)] = program
	}
	for _, key := range slices.Sorted(maps.Keys(f.Auths)) {
		e := dockerEntry{host: serverHost(key), path: serverPath(key)}
		if e.secret, e.err = entrySecret(f.Auths[key]); e.err != nil {
			e.err = fmt.Errorf("%s: auths of %q: %w", name, key, e.err)
		} else if e.secret == (secret{}) {
			continue // what a login with a helper leaves
		}
		c.entries = append(c.entries, e)
	}
	slices.SortStableFunc(c.entries, func(a, b dockerEntry) int { return cmp.Compare(len(b.path), len(a.path)) })
	return c
}

func entrySecret(b json.RawMessage) (secret, error) {
	var a struct {
		Auth          string `json:"auth"`
		Username      string `json:"username"`
		Password      string `json:"password"`
		IdentityToken string `json:"identitytoken"`
		RegistryToken string `json:"registrytoken"`
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return secret{}, fmt.Errorf("%w: %w", ErrAuth, err)
	}
	return (&Auth{Username: a.Username, Password: a.Password, Auth: a.Auth,
		IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}).secret()
}

// serverPath is the path in a server address: repositories, without the
// version of the interface that docker writes before them.
func serverPath(s string) string {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	_, p, _ := strings.Cut(s, "/")
	p = strings.Trim(p, "/")
	if first, rest, _ := strings.Cut(p, "/"); first == "v1" || first == "v2" {
		p = rest
	}
	return p
}

// of returns the credentials for a repository of a host.
func (c *dockerConfig) of(host, repository string) (secret, error) {
	if c == nil {
		return secret{}, nil
	}
	if c.broken != nil {
		return secret{}, c.broken
	}
	for _, e := range c.entries {
		if e.host == host && (e.path == "" || strings.HasPrefix(repository+"/", e.path+"/")) {
			return e.secret, e.err
		}
	}
	return secret{}, nil
}

// helped says so where a host's credentials are left to a helper. Those are
// programs, which a daemon that is root does not run; whether anything is
// missed turns out only when the registry refuses.
func (c *dockerConfig) helped(host string) string {
	if c == nil {
		return ""
	}
	program := cmp.Or(c.helpers[host], c.store)
	if program == "" {
		return ""
	}
	return fmt.Sprintf("%s leaves its credentials to docker-credential-%s, and helpers are not run; write them into auths, or use imagePullSecrets", c.name, program)
}

// problems are all that is wrong in the file.
func (c *dockerConfig) problems() error {
	if c == nil {
		return nil
	}
	bad := []error{c.broken}
	for _, e := range c.entries {
		bad = append(bad, e.err)
	}
	return errors.Join(bad...)
}
