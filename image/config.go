package image

import (
	"fmt"
	"math"
	"path/filepath"
	"time"
)

// Config of the service. The zero value of a bound means its default.
type Config struct {
	// Root is the service's folder; made if missing.
	Root string
	// HostsDir holds a folder per registry with a hosts.toml, as containerd
	// reads them; "" means none.
	HostsDir string
	// DockerConfig is a file in the format of docker's config.json, asked for
	// credentials where a pull brings none; "" means none.
	DockerConfig string
	// Snapshotter is "overlayfs" or "native"; "" means overlayfs for root
	// where the file system can, else native.
	Snapshotter string
	// DefaultUID is reported for images that name no user.
	DefaultUID int64
	// Parallel bounds the downloads of one pull, PullLimit the pulls that run
	// at once (others wait).
	Parallel, PullLimit int
	// MaxImageBytes bounds the sum of the sizes of an image's blobs, checked
	// before any of them is fetched; MaxUnpackedBytes what all layers unpack
	// to, MaxLayerBytes what one does.
	MaxImageBytes, MaxUnpackedBytes, MaxLayerBytes int64
	// MaxEntries bounds the files of an image, MaxLayerEntries of a layer.
	MaxEntries, MaxLayerEntries int64
	// StallWindow and StallBytes: a body that brings fewer bytes in such a
	// window counts as stalled and is asked for again from where it stopped.
	StallWindow time.Duration
	StallBytes  int64
	// Proposals are sets of Wasm proposals that profiles name beside the default
	// set. A module that the default set does not accept is tried with them.
	Proposals [][]string
	// CompileTimeout bounds the compilation of one module.
	CompileTimeout time.Duration
}

// Defaults of the bounds; each may be changed in the configuration.
const (
	// DefaultParallel downloads per pull saturate a gigabit link with a
	// single server, and stay polite.
	DefaultParallel = 4
	// DefaultPullLimit keeps a node that starts many pods from unpacking and
	// compiling all of them at once.
	DefaultPullLimit = 8
	// DefaultMaxImageBytes is far above any Wasm image seen, and far below a
	// node's disk.
	DefaultMaxImageBytes = 4 << 30
	// DefaultMaxUnpackedBytes and DefaultMaxLayerBytes stop decompression
	// bombs; the largest language run-times compiled to Wasm unpack to a
	// few hundred megabytes.
	DefaultMaxUnpackedBytes = 8 << 30
	DefaultMaxLayerBytes    = 4 << 30
	// DefaultMaxEntries and DefaultMaxLayerEntries bound inodes and the memory
	// and time that unpacking takes; a full distribution has about 100 000.
	DefaultMaxEntries      = 400_000
	DefaultMaxLayerEntries = 200_000
	// DefaultStallWindow and DefaultStallBytes: less than 4 KiB in 20 seconds
	// is no transfer.
	DefaultStallWindow = 20 * time.Second
	DefaultStallBytes  = 4 << 10
	// DefaultCompileTimeout is ample for the 256 MiB a module may have.
	DefaultCompileTimeout = 5 * time.Minute
)

// Bounds that are not configurable.
const (
	// MaxModules bounds the core modules compiled of one image.
	MaxModules = 64
	// MaxModuleBytes bounds one core module.
	MaxModuleBytes = 256 << 20
)

func or[T int | int64 | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

func (c Config) withDefaults() Config {
	c.DefaultUID = or(c.DefaultUID, DefaultUID)
	c.Parallel = or(c.Parallel, DefaultParallel)
	c.PullLimit = or(c.PullLimit, DefaultPullLimit)
	c.MaxImageBytes = or(c.MaxImageBytes, DefaultMaxImageBytes)
	c.MaxUnpackedBytes = or(c.MaxUnpackedBytes, DefaultMaxUnpackedBytes)
	c.MaxLayerBytes = or(c.MaxLayerBytes, DefaultMaxLayerBytes)
	c.MaxEntries = or(c.MaxEntries, DefaultMaxEntries)
	c.MaxLayerEntries = or(c.MaxLayerEntries, DefaultMaxLayerEntries)
	c.StallWindow = or(c.StallWindow, DefaultStallWindow)
	c.StallBytes = or(c.StallBytes, DefaultStallBytes)
	c.CompileTimeout = or(c.CompileTimeout, DefaultCompileTimeout)
	return c
}

// Validate says what is wrong with the configuration.
func (c Config) Validate() error {
	if !filepath.IsAbs(c.Root) {
		return fmt.Errorf("images: root %q is not an absolute path", c.Root)
	}
	for _, p := range []struct{ name, path string }{{"hosts_dir", c.HostsDir}, {"docker_config", c.DockerConfig}} {
		if p.path != "" && !filepath.IsAbs(p.path) {
			return fmt.Errorf("images: %s %q is not an absolute path", p.name, p.path)
		}
	}
	switch c.Snapshotter {
	case "", "overlayfs", "native":
	default:
		return fmt.Errorf("images: snapshotter %q is unknown; known are overlayfs and native", c.Snapshotter)
	}
	for _, n := range []struct {
		name string
		v    int64
	}{
		{"parallel", int64(c.Parallel)}, {"pull_limit", int64(c.PullLimit)}, {"max_image_bytes", c.MaxImageBytes},
		{"max_unpacked_bytes", c.MaxUnpackedBytes}, {"max_layer_bytes", c.MaxLayerBytes}, {"max_entries", c.MaxEntries},
		{"max_layer_entries", c.MaxLayerEntries}, {"stall_window", int64(c.StallWindow)}, {"stall_bytes", c.StallBytes},
		{"compile_timeout", int64(c.CompileTimeout)}, {"default_uid", c.DefaultUID},
	} {
		if n.v < 0 {
			return fmt.Errorf("images: %s is %d; it must not be negative", n.name, n.v)
		}
	}
	if c.DefaultUID >= math.MaxUint32 {
		return fmt.Errorf("images: default_uid is %d; the kernel's users end at %d", c.DefaultUID, uint32(math.MaxUint32)-1)
	}
	return nil
}
