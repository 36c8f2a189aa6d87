package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"syscall"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
)

// How a registry can fail.
var (
	// ErrNotFound: the registry answered, and has no such image.
	ErrNotFound = errors.New("not in the registry")
	// ErrAccess: the registry refused the credentials, or wants some.
	ErrAccess = errors.New("registry denied access")
	// ErrUnavailable: nobody answered, or nothing useful.
	ErrUnavailable = errors.New("registry unavailable")
	// ErrTooLarge: an answer that is held in memory exceeds its bound.
	ErrTooLarge = errors.New("image exceeds a bound")
)

// RangeRefused says whether a registry refused to go on where a download
// stopped: it must begin again.
func RangeRefused(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	return errors.As(err, &status) && status.StatusCode == http.StatusRequestedRangeNotSatisfiable
}

// told is an error in words of ours, with what it means and what it came from.
// The words of the libraries name their own functions, and whole addresses,
// which behind a redirect hold what grants access.
type told struct {
	as    error
	words string
	cause error
}

func (t told) Error() string {
	if t.words == "" {
		return t.as.Error()
	}
	return t.as.Error() + ": " + t.words
}

// Unwrap implements what errors.Is asks for.
func (t told) Unwrap() []error { return []error{t.as, t.cause} }

// Classify wraps an error of a fetcher or pusher with what it means.
func Classify(ctx context.Context, err error) error {
	var status remoteerrors.ErrUnexpectedStatus
	var request *url.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return told{context.Cause(ctx), "", err}
	case errors.Is(err, ErrTooLarge):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return err // our disk's fault, and no other try helps
	case errors.As(err, &status):
		return classifyStatus(status, err)
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return told{ErrAccess, "it wants credentials, and those that it got (if any) are not enough, or it has no such repository", err}
	case errdefs.IsNotFound(err):
		return told{ErrNotFound, "", err}
	case errors.As(err, &request):
		return told{ErrUnavailable, place(request.URL) + ": " + request.Err.Error() + remedy(request.Err), err}
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

func classifyStatus(status remoteerrors.ErrUnexpectedStatus, err error) error {
	words := place(status.RequestURL) + " answered with " + status.Status
	switch status.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return told{ErrAccess, words, err}
	case http.StatusNotFound:
		return told{ErrNotFound, "", err}
	}
	return told{ErrUnavailable, words, err}
}

// place is as much of an address as says who was asked.
func place(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "the registry"
	}
	return u.Scheme + "://" + u.Host
}

// remedy says what can be done about an error of a connection.
func remedy(err error) string {
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &cert):
		return "; name the authority that signed its certificate as ca in the registry's hosts.toml"
	case errors.Is(err, http.ErrSchemeMismatch):
		return "; a registry that speaks plain HTTP needs server = \"http://...\" in its hosts.toml"
	}
	return ""
}
