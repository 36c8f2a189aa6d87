package registry

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
)

// ErrAuth: credentials cannot be read.
var ErrAuth = errors.New("registry credentials")

// Auth are credentials in the words of CRI's AuthConfig.
type Auth struct {
	Username, Password string
	// Auth is base64 of "user:password".
	Auth          string
	ServerAddress string
	IdentityToken string
	RegistryToken string
}

// secret is what a host's authorizer is given. An empty user with a password
// means an identity token.
type secret struct{ user, password, bearer string }

func (s secret) key() string {
	h := sha256.Sum256([]byte(s.user + "\x00" + s.password + "\x00" + s.bearer))
	return hex.EncodeToString(h[:16])
}

func (a *Auth) secret() (secret, error) {
	switch {
	case a.RegistryToken != "":
		return secret{bearer: a.RegistryToken}, nil
	case a.IdentityToken != "":
		return secret{password: a.IdentityToken}, nil
	case a.Username != "" || a.Password != "":
		return secret{user: a.Username, password: a.Password}, nil
	case a.Auth != "":
		return decodeAuth(a.Auth)
	}
	return secret{}, nil
}

func decodeAuth(s string) (secret, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		b, err = base64.RawStdEncoding.DecodeString(s)
	}
	if err != nil {
		return secret{}, fmt.Errorf("%w: auth is not base64", ErrAuth)
	}
	user, password, ok := strings.Cut(string(b), ":")
	if !ok {
		return secret{}, fmt.Errorf("%w: auth is not base64 of user:password", ErrAuth)
	}
	return secret{user: user, password: strings.Trim(password, "\x00")}, nil
}

// serverHost is the host in a server address, which people write with and
// without scheme and path, and in any case.
func serverHost(s string) string {
	if strings.Contains(s, "://") {
		if u, err := url.Parse(s); err == nil {
			s = u.Host
		}
	}
	s, _, _ = strings.Cut(s, "/")
	switch s = strings.ToLower(s); s {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return s
}

// credentials chooses what the registry of a pull is shown. Credentials that
// came with the pull are for the server they name, or else for the registry
// in the reference; a mirror never sees them. The docker config file answers
// for every host by its own name, and is asked only where the pull brought
// nothing.
type credentials struct {
	host, repository string // of the reference
	auth             *Auth
	file             *dockerConfig
}

func (c credentials) of(e endpoint) (secret, error) {
	name := serverHost(e.host)
	if s, err := c.brought(name); err != nil || s != (secret{}) {
		return s, err
	}
	return c.file.of(name, e.repository(c.repository))
}

// brought are the credentials that came with the pull for a host.
func (c credentials) brought(host string) (secret, error) {
	if c.auth == nil || serverHost(cmp.Or(c.auth.ServerAddress, c.host)) != host {
		return secret{}, nil
	}
	return c.auth.secret()
}

// missed says what may be missing when the registry of the reference refuses.
func (c credentials) missed() string {
	host := serverHost(c.host)
	if s, err := c.brought(host); err != nil || s != (secret{}) {
		return ""
	}
	if s, err := c.file.of(host, c.repository); err != nil || s != (secret{}) {
		return ""
	}
	return c.file.helped(host)
}

// repository is what a repository is called at the endpoint, whose path may
// lead to a part of a registry.
func (e endpoint) repository(name string) string {
	p := strings.Trim(e.path, "/")
	if p == "v2" {
		return name
	}
	return path.Join(strings.TrimSuffix(strings.TrimPrefix(p, "v2/"), "/v2"), name)
}
