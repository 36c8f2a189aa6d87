package registry

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
)

// maxDockerConfig bounds a docker config file.
const maxDockerConfig = 1 << 20

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
// without scheme and path.
func serverHost(s string) string {
	if strings.Contains(s, "://") {
		if u, err := url.Parse(s); err == nil {
			s = u.Host
		}
	}
	s, _, _ = strings.Cut(s, "/")
	switch s {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return s
}

// credentials chooses what the registry of a pull is shown. Credentials that
// came with the pull are for the server they name, or else for the registry
// in the reference; a mirror never sees them. The docker config file answers
// for every host by its own name.
type credentials struct {
	host string // registry of the reference
	auth *Auth
	file map[string]secret
}

func (c credentials) of(endpointHost string) (secret, error) {
	name := serverHost(endpointHost)
	if c.auth != nil {
		want := c.host
		if c.auth.ServerAddress != "" {
			want = serverHost(c.auth.ServerAddress)
		}
		if strings.EqualFold(name, serverHost(want)) {
			s, err := c.auth.secret()
			if err != nil || s != (secret{}) {
				return s, err
			}
		}
	}
	return c.file[name], nil
}

// readDockerConfig reads the credentials of a docker config file. Helpers
// would be programs run by a daemon that is root; they are refused by name.
func readDockerConfig(name string) (map[string]secret, error) {
	if name == "" {
		return nil, nil
	}
	b, err := readBounded(name, maxDockerConfig)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAuth, err)
	}
	return parseDockerConfig(b, name)
}

func parseDockerConfig(b []byte, name string) (map[string]secret, error) {
	var f struct {
		Auths map[string]struct {
			Auth          string `json:"auth"`
			Username      string `json:"username"`
			Password      string `json:"password"`
			IdentityToken string `json:"identitytoken"`
			RegistryToken string `json:"registrytoken"`
		} `json:"auths"`
		CredsStore  string            `json:"credsStore"`
		CredHelpers map[string]string `json:"credHelpers"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrAuth, name, err)
	}
	if f.CredsStore != "" || len(f.CredHelpers) > 0 {
		return nil, fmt.Errorf("%w: %s names credential helpers, which are not run; write the credentials into auths, or use imagePullSecrets", ErrAuth, name)
	}
	m := map[string]secret{}
	// Several may be for one host, with and without a path; the shortest, which
	// is for the host itself, holds.
	for _, host := range slices.SortedFunc(maps.Keys(f.Auths), func(a, b string) int {
		return cmp.Or(len(bare(a))-len(bare(b)), cmp.Compare(a, b))
	}) {
		a := f.Auths[host]
		s, err := (&Auth{Username: a.Username, Password: a.Password, Auth: a.Auth,
			IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}).secret()
		if err != nil {
			return nil, fmt.Errorf("%s: auths of %q: %w", name, host, err)
		}
		if _, ok := m[serverHost(host)]; !ok {
			m[serverHost(host)] = s
		}
	}
	return m, nil
}

// bare is a server address without its scheme.
func bare(s string) string {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		return rest
	}
	return s
}
