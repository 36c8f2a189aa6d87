package main

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/limpet-cri/limpet/cri"
	"github.com/limpet-cri/limpet/cri/pod"
	"github.com/limpet-cri/limpet/image"
	"github.com/limpet-cri/limpet/shim"
)

// file is the configuration file: the packages' own configurations under the
// names that people write. Meaning, defaults and checks are the packages'.
type file struct {
	Root    string      `toml:"root"`
	Run     string      `toml:"run"`
	Server  serverFile  `toml:"server"`
	Log     logFile     `toml:"log"`
	Metrics metricsFile `toml:"metrics"`
	Images  imagesFile  `toml:"images"`
	Hosts   hostsFile   `toml:"hosts"`
	Pods    podsFile    `toml:"pods"`
}

type serverFile struct {
	Socket          string   `toml:"socket"`
	MaxMessageBytes size     `toml:"max_message_bytes"`
	MaxCalls        uint32   `toml:"max_calls"`
	SlowCall        duration `toml:"slow_call"`
	ShutdownTimeout duration `toml:"shutdown_timeout"`
}

type logFile struct {
	Level  string `toml:"level"`
	Format string `toml:"format"`
}

type metricsFile struct {
	Address string `toml:"address"`
}

type imagesFile struct {
	HostsDir         string   `toml:"hosts_dir"`
	DockerConfig     string   `toml:"docker_config"`
	Snapshotter      string   `toml:"snapshotter"`
	DefaultUID       int64    `toml:"default_uid"`
	Parallel         int      `toml:"parallel"`
	PullLimit        int      `toml:"pull_limit"`
	MaxImageBytes    size     `toml:"max_image_bytes"`
	MaxUnpackedBytes size     `toml:"max_unpacked_bytes"`
	MaxLayerBytes    size     `toml:"max_layer_bytes"`
	MaxEntries       int64    `toml:"max_entries"`
	MaxLayerEntries  int64    `toml:"max_layer_entries"`
	StallWindow      duration `toml:"stall_window"`
	StallBytes       size     `toml:"stall_bytes"`
	CompileTimeout   duration `toml:"compile_timeout"`
}

type hostsFile struct {
	Path          string `toml:"path"`
	Compilers     int    `toml:"compilers"`
	CompileCgroup string `toml:"compile_cgroup"`
	CompileMemory size   `toml:"compile_memory"`
}

type podsFile struct {
	DefaultHandler string                 `toml:"default_handler"`
	ResolvConf     string                 `toml:"resolv_conf"`
	Handlers       map[string]handlerFile `toml:"handlers"`
}

// handlerFile is a profile; what it does not say is as in the default one.
type handlerFile struct {
	MemoryDefault   *size     `toml:"memory_default"`
	MemoryMax       *size     `toml:"memory_max"`
	PidsLimit       *int64    `toml:"pids_limit"`
	RootSize        *size     `toml:"root_size"`
	Proposals       *[]string `toml:"proposals"`
	AllowRoot       *bool     `toml:"allow_root"`
	AllowHostListen *bool     `toml:"allow_host_listen"`
}

const (
	defaultFile = "/etc/limpet/limpetd.toml"
	// defaultShutdown is how long calls in flight may take to end after
	// SIGTERM; what is left then is cancelled, and the pods go on either way.
	defaultShutdown = 10 * time.Second
	minShutdown     = time.Second
	maxShutdown     = 5 * time.Minute
	hostBinary      = "limpet-host"
)

// defaults returns the file of a node that says nothing.
func defaults() file {
	server, pods := cri.DefaultConfig(), pod.DefaultConfig()
	return file{
		Root: pods.Root, Run: pods.Run,
		Server: serverFile{
			Socket: server.Socket, MaxMessageBytes: sizeOf(server.MaxMessageBytes), MaxCalls: server.MaxCalls,
			SlowCall: duration{server.SlowCall}, ShutdownTimeout: duration{defaultShutdown},
		},
		Log: logFile{Level: "info", Format: "text"},
		Images: imagesFile{
			HostsDir: "/etc/limpet/hosts", DefaultUID: image.DefaultUID,
			Parallel: image.DefaultParallel, PullLimit: image.DefaultPullLimit,
			MaxImageBytes: sizeOf(image.DefaultMaxImageBytes), MaxUnpackedBytes: sizeOf(image.DefaultMaxUnpackedBytes), MaxLayerBytes: sizeOf(image.DefaultMaxLayerBytes),
			MaxEntries: image.DefaultMaxEntries, MaxLayerEntries: image.DefaultMaxLayerEntries,
			StallWindow: duration{image.DefaultStallWindow}, StallBytes: sizeOf(image.DefaultStallBytes),
			CompileTimeout: duration{image.DefaultCompileTimeout},
		},
		Hosts: hostsFile{CompileMemory: sizeOf(shim.DefaultCompileMemory)},
		Pods:  podsFile{DefaultHandler: pods.DefaultHandler, ResolvConf: pods.ResolvConf},
	}
}

// settings are the packages' configurations, made of a file and checked.
type settings struct {
	server   cri.Config
	shutdown time.Duration
	log      logFile
	metrics  string
	images   image.Config
	hosts    shim.Config
	pods     pod.Config
}

// compose turns the file into what the packages want, and lets each of them
// check its part. An error begins with "SECTION: KEY", by which the line is
// found.
func (f file) compose() (settings, []error) {
	s := settings{
		server: cri.Config{
			Socket: f.Server.Socket, MaxMessageBytes: int(f.Server.MaxMessageBytes.bytes),
			MaxCalls: f.Server.MaxCalls, SlowCall: f.Server.SlowCall.Duration,
		},
		shutdown: f.Server.ShutdownTimeout.Duration,
		log:      f.Log,
		metrics:  f.Metrics.Address,
		images:   f.Images.config(filepath.Join(f.Root, "images")),
		hosts: shim.Config{
			HostPath: f.Hosts.hostPath(), RunDir: filepath.Join(f.Run, "c"), Compilers: f.Hosts.Compilers,
			CompileCgroup: f.Hosts.CompileCgroup, CompileMemory: f.Hosts.CompileMemory.bytes,
		},
		pods: f.Pods.config(f.Root, f.Run),
	}
	s.images.Proposals = proposals(s.pods.Handlers)
	var errs []error
	for _, err := range []error{
		checkTexts("", reflect.ValueOf(f)), f.checkFolders(), s.server.Validate(), f.Server.check(), f.Log.check(), f.Metrics.check(),
		s.images.Validate(), f.Images.check(), f.Hosts.check(), s.pods.Validate(),
	} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return s, errs
}

func (f imagesFile) config(root string) image.Config {
	return image.Config{
		Root: root, HostsDir: f.HostsDir, DockerConfig: f.DockerConfig, Snapshotter: f.Snapshotter,
		DefaultUID: f.DefaultUID, Parallel: f.Parallel, PullLimit: f.PullLimit,
		MaxImageBytes: f.MaxImageBytes.bytes, MaxUnpackedBytes: f.MaxUnpackedBytes.bytes, MaxLayerBytes: f.MaxLayerBytes.bytes,
		MaxEntries: f.MaxEntries, MaxLayerEntries: f.MaxLayerEntries,
		StallWindow: f.StallWindow.Duration, StallBytes: f.StallBytes.bytes, CompileTimeout: f.CompileTimeout.Duration,
	}
}

// check refuses zeros, which the image service takes for its defaults and a
// reader of the file would not, and bounds of a part above those of the whole.
func (f imagesFile) check() error {
	for _, n := range []struct {
		key string
		v   int64
	}{
		{"default_uid", f.DefaultUID}, {"parallel", int64(f.Parallel)}, {"pull_limit", int64(f.PullLimit)}, {"max_image_bytes", f.MaxImageBytes.bytes},
		{"max_unpacked_bytes", f.MaxUnpackedBytes.bytes}, {"max_layer_bytes", f.MaxLayerBytes.bytes}, {"max_entries", f.MaxEntries},
		{"max_layer_entries", f.MaxLayerEntries}, {"stall_window", int64(f.StallWindow.Duration)}, {"stall_bytes", f.StallBytes.bytes},
		{"compile_timeout", int64(f.CompileTimeout.Duration)},
	} {
		if n.v == 0 {
			return fmt.Errorf("images: %s is 0; it must be more: leave it out for the default", n.key)
		}
	}
	if f.MaxLayerBytes.bytes > f.MaxUnpackedBytes.bytes {
		return fmt.Errorf("images: max_layer_bytes is %s, above max_unpacked_bytes, %s; one layer cannot have more than all", f.MaxLayerBytes, f.MaxUnpackedBytes)
	}
	if f.MaxLayerEntries > f.MaxEntries {
		return fmt.Errorf("images: max_layer_entries is %d, above max_entries, %d; one layer cannot have more than all", f.MaxLayerEntries, f.MaxEntries)
	}
	return nil
}

// config keeps the handlers that exist by default and adds or changes those
// that the file names.
func (f podsFile) config(root, run string) pod.Config {
	c := pod.DefaultConfig()
	c.Root, c.Run, c.DefaultHandler, c.ResolvConf = root, run, f.DefaultHandler, f.ResolvConf
	for name, h := range f.Handlers {
		c.Handlers[name] = h.profile()
	}
	return c
}

func (h handlerFile) profile() pod.Profile {
	p := pod.DefaultProfile()
	set(&p.MemoryDefault, h.MemoryDefault)
	set(&p.MemoryMax, h.MemoryMax)
	set(&p.RootSize, h.RootSize)
	if h.PidsLimit != nil {
		p.PidsLimit = *h.PidsLimit
	}
	if h.Proposals != nil && len(*h.Proposals) > 0 {
		p.Proposals = *h.Proposals
	}
	if h.AllowRoot != nil {
		p.AllowRoot = *h.AllowRoot
	}
	if h.AllowHostListen != nil {
		p.AllowHostListen = *h.AllowHostListen
	}
	return p
}

// proposals are the sets that any handler names, so that modules are compiled
// for them at the pull too.
func proposals(handlers map[string]pod.Profile) [][]string {
	var sets [][]string
	for _, name := range slices.Sorted(maps.Keys(handlers)) {
		p := handlers[name].Proposals
		if len(p) > 0 && !slices.ContainsFunc(sets, func(s []string) bool { return slices.Equal(s, p) }) {
			sets = append(sets, p)
		}
	}
	return sets
}

func set(to *uint64, from *size) {
	if from != nil {
		*to = uint64(from.bytes)
	}
}

// hostPath is the file's, or limpet-host beside this binary: they are built
// and installed together.
func (f hostsFile) hostPath() string {
	if f.Path != "" {
		return f.Path
	}
	self, err := os.Executable()
	if err != nil {
		return filepath.Join("/usr/local/bin", hostBinary)
	}
	return filepath.Join(filepath.Dir(self), hostBinary)
}

// checkTexts refuses what no path and no name can hold, in any key.
func checkTexts(section string, v reflect.Value) error {
	for f, field := range v.Fields() {
		key := f.Tag.Get("toml")
		switch {
		case field.Kind() == reflect.String && strings.ContainsFunc(field.String(), unicode.IsControl):
			return fmt.Errorf("%s%s is %q; it must be text without control characters", section, key, field.String())
		case field.Kind() == reflect.Struct && section == "":
			if err := checkTexts(key+": ", field); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f file) checkFolders() error {
	for _, d := range []struct{ key, path string }{{"root", f.Root}, {"run", f.Run}} {
		if !filepath.IsAbs(d.path) {
			return fmt.Errorf("%s is %q; it must be an absolute path", d.key, d.path)
		}
	}
	if f.Root == f.Run {
		return fmt.Errorf("run is %q, the same as root; what is in run does not outlive a reboot, so they must differ", f.Run)
	}
	return nil
}

func (f serverFile) check() error {
	if d := f.ShutdownTimeout.Duration; d < minShutdown || d > maxShutdown {
		return fmt.Errorf("server: shutdown_timeout is %s; it must be between %s and %s", d, minShutdown, maxShutdown)
	}
	return nil
}

func (f logFile) check() error {
	if _, ok := levels()[f.Level]; !ok {
		return fmt.Errorf("log: level is %q; it must be debug, info, warn or error", f.Level)
	}
	if !slices.Contains([]string{"text", "json"}, f.Format) {
		return fmt.Errorf("log: format is %q; it must be text or json", f.Format)
	}
	return nil
}

// check lets metrics and health be served on loopback only: they have no
// authentication.
func (f metricsFile) check() error {
	if f.Address == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(f.Address)
	if err != nil {
		return fmt.Errorf("metrics: address is %q; it must be ADDRESS:PORT, such as 127.0.0.1:9465", f.Address)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("metrics: address is %q; it must be a loopback address, such as 127.0.0.1 or [::1], since nothing there asks who calls", f.Address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("metrics: address is %q; its port must be between 1 and 65535", f.Address)
	}
	return nil
}

func (f hostsFile) check() error {
	switch {
	case f.Path != "" && !filepath.IsAbs(f.Path):
		return fmt.Errorf("hosts: path is %q; it must be an absolute path, or empty for %s beside limpetd", f.Path, hostBinary)
	case f.Compilers < 0:
		return fmt.Errorf("hosts: compilers is %d; it must not be negative (0: one per processor)", f.Compilers)
	case f.CompileCgroup != "" && !strings.HasPrefix(f.CompileCgroup, "/"):
		return fmt.Errorf("hosts: compile_cgroup is %q; it must begin with /", f.CompileCgroup)
	case f.CompileMemory.bytes < minCompileMemory:
		return fmt.Errorf("hosts: compile_memory is %s; it must be at least %s", f.CompileMemory, sizeOf(minCompileMemory))
	}
	return nil
}

// minCompileMemory: less does not even compile an empty module.
const minCompileMemory = 64 << 20
