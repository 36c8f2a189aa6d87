package cri

import (
	"fmt"
	"path/filepath"
	"time"
)

// Config of the server.
type Config struct {
	// Socket is the path of the unix socket.
	Socket string
	// MaxMessageBytes bounds one message in either direction.
	MaxMessageBytes int
	// MaxCalls bounds the calls in flight on one connection; more wait.
	MaxCalls uint32
	// SlowCall is the time after which a call is logged as slow.
	SlowCall time.Duration
}

const (
	// DefaultMaxMessageBytes is what the kubelet's own client accepts.
	DefaultMaxMessageBytes = 16 << 20
	// DefaultMaxCalls is far above what a kubelet does with a full node; it
	// keeps a broken client from filling the memory with requests.
	DefaultMaxCalls = 1024
	// DefaultSlowCall: nothing but a pull or a stop should take seconds.
	DefaultSlowCall = 5 * time.Second
	// minMessageBytes still holds any single pod the API server accepts.
	minMessageBytes = 4 << 20
	maxMessageBytes = 1 << 30
	// maxSocketPath is sun_path less its final zero.
	maxSocketPath = 107
)

// DefaultConfig returns the configuration of a node that says nothing.
func DefaultConfig() Config {
	return Config{
		Socket:          "/run/limpet/limpetd.sock",
		MaxMessageBytes: DefaultMaxMessageBytes,
		MaxCalls:        DefaultMaxCalls,
		SlowCall:        DefaultSlowCall,
	}
}

// Validate says what is wrong with the configuration, as "server: KEY ...".
func (c Config) Validate() error {
	switch {
	case !filepath.IsAbs(c.Socket):
		return fmt.Errorf("server: socket is %q; it must be an absolute path", c.Socket)
	case len(c.Socket) > maxSocketPath:
		return fmt.Errorf("server: socket has %d characters; a unix socket's path has at most %d", len(c.Socket), maxSocketPath)
	case c.MaxMessageBytes < minMessageBytes || c.MaxMessageBytes > maxMessageBytes:
		return fmt.Errorf("server: max_message_bytes is %d; it must be between %d and %d", c.MaxMessageBytes, minMessageBytes, maxMessageBytes)
	case c.MaxCalls == 0:
		return fmt.Errorf("server: max_calls is 0; it must be at least 1")
	case c.SlowCall <= 0:
		return fmt.Errorf("server: slow_call is %s; it must be positive", c.SlowCall)
	}
	return nil
}
