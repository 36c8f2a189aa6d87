// Package reference owns the names of images: repositories, tags and digests,
// their normal form, and the ids by which a client may mean an image instead.
//
// It asks nobody anything; it is text in, text out.
package reference

import (
	"errors"
	"fmt"
	"strings"

	dref "github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
)

// MaxLength bounds a reference: a name has at most 255 bytes, a tag 128, a
// digest 135.
const MaxLength = 1024

// ErrInvalid: the text is no reference.
var ErrInvalid = errors.New("invalid image reference")

// Reference is a normalised name: "docker.io/library/hello:latest". Of a name
// with a tag and a digest the digest stays: it says everything.
type Reference struct {
	// Name is the repository with its registry: "docker.io/library/hello".
	Name string
	// Tag or Digest is set, never both.
	Tag    string
	Digest digest.Digest
}

// Parse reads a reference as people write them.
func Parse(s string) (Reference, error) {
	if len(s) > MaxLength {
		return Reference{}, fmt.Errorf("%w: %d bytes long, at most %d are allowed", ErrInvalid, len(s), MaxLength)
	}
	named, err := dref.ParseDockerRef(s)
	if err != nil {
		return Reference{}, fmt.Errorf("%w: %q: %w%s", ErrInvalid, s, err, remedy(s, err))
	}
	r := Reference{Name: named.Name()}
	switch t := named.(type) {
	case dref.Digested:
		r.Digest = t.Digest()
	case dref.Tagged:
		r.Tag = t.Tag()
	}
	return r, nil
}

// remedy says what is wanted, where the error says only that this is not it.
func remedy(s string, err error) string {
	switch {
	case strings.Contains(s, "://"):
		return "; leave out what comes before the name of the registry, up to ://"
	case err.Error() == dref.ErrReferenceInvalidFormat.Error():
		return "; wanted a name such as registry.example/demo/hello:v1"
	}
	return ""
}

// String is the normal form, which Parse reads back unchanged.
func (r Reference) String() string {
	if r.Digest != "" {
		return r.Name + "@" + r.Digest.String()
	}
	return r.Name + ":" + r.Tag
}

// Host is the registry, "docker.io" or "localhost:5000".
func (r Reference) Host() string {
	h, _, _ := strings.Cut(r.Name, "/")
	return h
}

// At is the same repository at a digest.
func (r Reference) At(d digest.Digest) Reference {
	return Reference{Name: r.Name, Digest: d}
}

// ID reads s as an image's id: "sha256:…" or the 64 digits alone.
func ID(s string) (digest.Digest, bool) {
	if len(s) == 64 {
		s = "sha256:" + s
	}
	d, err := digest.Parse(s)
	if err != nil {
		return "", false
	}
	return d, true
}
