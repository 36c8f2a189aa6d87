package registry

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
)

// maxPEM bounds a certificate, key or bundle of authorities.
const maxPEM = 4 << 20

// tlsConfig builds what an endpoint asks for.
func (e endpoint) tlsConfig() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.skipVerify != nil {
		c.InsecureSkipVerify = *e.skipVerify
	}
	if len(e.ca) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("%w: system's certificates: %w", ErrHosts, err)
		}
		for _, f := range e.ca {
			b, err := readBounded(f, maxPEM)
			if err != nil {
				return nil, fmt.Errorf("%w: ca: %w", ErrHosts, err)
			}
			if !pool.AppendCertsFromPEM(b) {
				return nil, fmt.Errorf("%w: ca: %s holds no certificate in PEM form", ErrHosts, f)
			}
		}
		c.RootCAs = pool
	}
	for _, p := range e.client {
		cert, err := readBounded(p[0], maxPEM)
		if err != nil {
			return nil, fmt.Errorf("%w: client: %w", ErrHosts, err)
		}
		key, err := readBounded(p[1], maxPEM)
		if err != nil {
			return nil, fmt.Errorf("%w: client: %w", ErrHosts, err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%w: client %s: %w", ErrHosts, p[0], err)
		}
		c.Certificates = append(c.Certificates, pair)
	}
	return c, nil
}

// readBounded reads a whole file of at most limit bytes.
func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return b, nil
}
