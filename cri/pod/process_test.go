package pod

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/image"
	"github.com/limpet-cri/limpet/shim/spec"
)

func TestArgv(t *testing.T) {
	list := func(s string) []string { return strings.Fields(s) }
	layer := image.Image{Modules: []image.Module{{Path: "app.wasm", Layer: true}}}
	rootfs := image.Image{Modules: []image.Module{{Path: "/app.wasm"}}}
	for _, c := range []struct {
		name                           string
		command, args, entrypoint, cmd string
		image                          image.Image
		wantProgram, wantArgv          string
	}{
		{"nothing, artifact", "", "", "", "", layer, "", "app.wasm"},
		{"args, artifact", "", "a b", "", "", layer, "", "app.wasm a b"},
		{"command, artifact", "x", "a", "", "", layer, "x", "x a"},
		{"entry point", "", "", "/app.wasm", "a", rootfs, "/app.wasm", "/app.wasm a"},
		{"args over cmd", "", "b", "/app.wasm", "a", rootfs, "/app.wasm", "/app.wasm b"},
		{"command drops cmd", "/other.wasm", "", "/app.wasm", "a", rootfs, "/other.wasm", "/other.wasm"},
		{"command and args", "/other.wasm", "b", "/app.wasm", "a", rootfs, "/other.wasm", "/other.wasm b"},
		{"cmd only", "", "", "", "/app.wasm a", rootfs, "/app.wasm", "/app.wasm a"},
		{"args as program", "", "/other.wasm b", "", "/app.wasm", rootfs, "/other.wasm", "/other.wasm b"},
		{"nothing, rootfs", "", "", "", "", rootfs, "", "app.wasm"},
	} {
		c.image.Config.Entrypoint, c.image.Config.Cmd = list(c.entrypoint), list(c.cmd)
		args, named := argv(&runtime.ContainerConfig{Command: list(c.command), Args: list(c.args)}, c.image.Config)
		if got := program(args, named, c.image); got != c.wantProgram {
			t.Errorf("%s: program %q, want %q", c.name, got, c.wantProgram)
		}
		p := &image.Prepared{Module: "/dir/app.wasm"}
		if !c.image.Modules[0].Layer {
			p.Root = &image.Root{}
		}
		if got := withName(args, named, p, "host:5000/team/app:1"); !slices.Equal(got, list(c.wantArgv)) {
			t.Errorf("%s: argv %q, want %q", c.name, got, c.wantArgv)
		}
	}
}

func TestProgramName(t *testing.T) {
	tagged := &image.Prepared{Module: "main.wasm", Image: image.Image{RepoTags: []string{"r.test/a/tagged:2"}}}
	for ref, want := range map[string]string{
		"r.test/a/app:1": "app.wasm", "r.test:5000/app@sha256:aa": "app.wasm", "app.wasm:1": "app.wasm", "sha256:aa": "tagged.wasm", "": "main.wasm",
	} {
		if got := programName(ref, tagged); got != want {
			t.Errorf("%q: %q, want %q", ref, got, want)
		}
	}
	if got := programName("sha256:aa", &image.Prepared{Module: "main.wasm"}); got != "main.wasm" {
		t.Error(got)
	}
}

func TestEnvironment(t *testing.T) {
	kv := func(k, v string) *runtime.KeyValue { return &runtime.KeyValue{Key: k, Value: []byte(v)} }
	i := image.RunConfig{Env: []string{"A=image", "B=image", "=bad", "bad"}}
	got, err := environment(&runtime.ContainerConfig{Envs: []*runtime.KeyValue{kv("B", "pod"), kv("C", "\xff"), kv("E", "")}}, i, "web", "/w")
	if want := []string{"PWD=/w", "HOSTNAME=web", "A=image", "B=pod", "C=\xff", "E="}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	got, err = environment(&runtime.ContainerConfig{Envs: []*runtime.KeyValue{kv("HOSTNAME", "mine")}}, i, "web", "/")
	if err != nil || !slices.Contains(got, "HOSTNAME=mine") || slices.Contains(got, "HOSTNAME=web") {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []*runtime.KeyValue{kv("", "x"), kv("A=B", "x"), kv("A\x00", "x"), kv("A", "x\x00")} {
		if _, err := environment(&runtime.ContainerConfig{Envs: []*runtime.KeyValue{bad}}, i, "", "/"); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", bad.GetKey(), err)
		}
	}
}

func TestUser(t *testing.T) {
	type sc = runtime.LinuxContainerSecurityContext
	n := func(v int64) *runtime.Int64Value { return &runtime.Int64Value{Value: v} }
	plain := image.RunConfig{UID: image.DefaultUID, GID: image.DefaultUID}
	named := image.RunConfig{UID: 100, GID: 101, User: "app:staff"}
	for _, c := range []struct {
		name  string
		sc    *sc
		image image.RunConfig
		p     Profile
		want  string // "uid:gid" or a part of the error
	}{
		{"default", nil, plain, Profile{}, "65532:65532"},
		{"image's", nil, named, Profile{}, "100:101"},
		{"user", &sc{RunAsUser: n(1000)}, plain, Profile{}, "1000:65532"},
		{"the image's by number", &sc{RunAsUser: n(100)}, named, Profile{}, "100:101"},
		{"user and group", &sc{RunAsUser: n(1000), RunAsGroup: n(3000)}, plain, Profile{}, "1000:3000"},
		{"root", &sc{RunAsUser: n(0)}, plain, Profile{AllowRoot: true}, "0:0"},
		{"root forbidden", &sc{RunAsUser: n(0)}, plain, Profile{}, "allow_root"},
		{"root group forbidden", &sc{RunAsUser: n(1), RunAsGroup: n(0)}, plain, Profile{}, "allow_root"},
		{"root among groups", &sc{SupplementalGroups: []int64{0}}, plain, Profile{}, "allow_root"},
		{"root of the image", nil, image.RunConfig{}, Profile{}, "allow_root"},
		{"image's name", &sc{RunAsUsername: "app"}, named, Profile{}, "100:101"},
		{"another name", &sc{RunAsUsername: "bob"}, named, Profile{}, "run_as_username"},
		{"unresolved name", nil, image.RunConfig{UID: -1, Username: "ghost"}, Profile{}, "ghost"},
		{"group alone", &sc{RunAsGroup: n(5)}, plain, Profile{}, "run_as_group"},
		{"negative", &sc{RunAsUser: n(-5)}, plain, Profile{}, "-5"},
		{"too large", &sc{RunAsUser: n(1 << 32)}, plain, Profile{}, "4294967296"},
	} {
		u, err := userOf(c.sc, c.image, c.p)
		got := uitoa(uint64(u.UID)) + ":" + uitoa(uint64(u.GID))
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestSignals(t *testing.T) {
	for name, want := range map[string]syscall.Signal{
		"15": 15, "TERM": 15, "SIGTERM": 15, "sigint": 2, "SIGRTMIN+3": 37, "SIGRTMINPLUS15": 49, "SIGRTMAX": 64, "SIGRTMAX-1": 63, "SIGRTMAXMINUS14": 50,
		"": 0, "0": 0, "65": 65, "SIGNONE": 0, "SIGRTMIN+99": 133, "SIGRTMIN3": 0,
	} {
		n, ok := signalNumber(name)
		if good := want > 0 && want <= sigRTMax; ok != good || ok && n != want {
			t.Errorf("%q: %d, %v", name, n, ok)
		}
	}
	// All of CRI's have a number, and come back as themselves or as what they
	// are another name of.
	for v, name := range runtime.Signal_name {
		s := runtime.Signal(v)
		if s == runtime.Signal_SIGNAL_RUNTIME_DEFAULT {
			continue
		}
		n, err := stopSignal(&runtime.ContainerConfig{StopSignal: s}, image.RunConfig{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		back, ok := criNumber(criSignal(n))
		if !ok || back != n {
			t.Errorf("%s is %d, comes back as %s", name, n, criSignal(n))
		}
	}
	if n, err := stopSignal(&runtime.ContainerConfig{}, image.RunConfig{StopSignal: "SIGQUIT"}); err != nil || n != syscall.SIGQUIT {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := stopSignal(&runtime.ContainerConfig{}, image.RunConfig{StopSignal: "BREAK"}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

func TestMounts(t *testing.T) {
	m := newNode(t).start()
	pod, err := m.RunPodSandbox(t.Context(), podConfig("x"), "")
	must(t, "run", err)
	s, err := m.index.sandbox(pod)
	must(t, "find", err)
	dir := t.TempDir()
	file := filepath.Join(dir, "hosts")
	must(t, "write", os.WriteFile(file, nil, 0o644))
	got, err := m.mounts(s, &runtime.ContainerConfig{Mounts: []*runtime.Mount{
		{ContainerPath: "/data/", HostPath: dir}, {ContainerPath: "/etc/hosts", HostPath: file, Readonly: true},
	}})
	must(t, "mounts", err)
	var places []string
	for _, g := range got {
		places = append(places, g.Destination+" "+strings.Join(g.Options[2:], ","))
	}
	want := []string{"/data nosuid,nodev,noexec,rw", "/etc/hosts nosuid,nodev,noexec,ro,rro", "/etc/hostname nosuid,nodev,noexec,ro,rro", "/etc/resolv.conf nosuid,nodev,noexec,ro,rro"}
	if !slices.Equal(places, want) {
		t.Errorf("%q", places)
	}
	for what, l := range map[string][]*runtime.Mount{
		"does not exist":      {{ContainerPath: "/x", HostPath: filepath.Join(dir, "none")}},
		"not absolute":        {{ContainerPath: "/x", HostPath: "none"}},
		"absolute path below": {{ContainerPath: "/x/..", HostPath: dir}},
		"two mounts":          {{ContainerPath: "/x", HostPath: dir}, {ContainerPath: "/x/", HostPath: dir}},
		"propagation":         {{ContainerPath: "/x", HostPath: dir, Propagation: runtime.MountPropagation_PROPAGATION_BIDIRECTIONAL}},
	} {
		if _, err := m.mounts(s, &runtime.ContainerConfig{Mounts: l}); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := m.mounts(s, &runtime.ContainerConfig{Mounts: make([]*runtime.Mount, maxMounts+1)}); !errors.Is(err, ErrInvalid) {
		t.Errorf("too many: %v", err)
	}
}

func TestLogPath(t *testing.T) {
	for _, c := range []struct{ dir, name, want string }{
		{"/var/log/pods/x", "c/0.log", "/var/log/pods/x/c/0.log"}, {"", "c/0.log", ""}, {"/var/log", "", ""},
		{"/var/log", "../../etc/passwd", "!"}, {"var", "c.log", "!"}, {"/var/log", "/etc/passwd", "!"},
	} {
		got, err := logPath(&runtime.PodSandboxConfig{LogDirectory: c.dir}, &runtime.ContainerConfig{LogPath: c.name})
		if err != nil {
			got = "!"
		}
		if got != c.want {
			t.Errorf("%q %q: %q, %v", c.dir, c.name, got, err)
		}
	}
}

func TestLimits(t *testing.T) {
	type lr = runtime.LinuxContainerResources
	for _, c := range []struct {
		name         string
		r            *lr
		p            Profile
		limit, guest uint64
	}{
		{"none", nil, Profile{}, 0, 0},
		{"asked", &lr{MemoryLimitInBytes: 64 << 20}, Profile{MemoryDefault: 16 << 20}, 64 << 20, 60<<20 - 64<<11},
		{"default", nil, Profile{MemoryDefault: 16 << 20}, 16 << 20, 12<<20 - 16<<11},
		{"maximum as default", nil, Profile{MemoryMax: 32 << 20}, 32 << 20, 28<<20 - 32<<11},
		{"smallest", &lr{MemoryLimitInBytes: int64(MinMemory)}, Profile{}, MinMemory, MinMemory - memoryMargin - MinMemory/pageTables},
	} {
		l, guest, err := limits(c.r, c.p)
		must(t, c.name, err)
		var limit uint64
		if l.Memory != nil {
			limit = uint64(*l.Memory.Limit)
		}
		if limit != c.limit || guest != c.guest {
			t.Errorf("%s: %d, guest %d", c.name, limit, guest)
		}
	}
	l, _, err := limits(&lr{CpuQuota: -1, CpuPeriod: 100000, CpuShares: 2}, Profile{PidsLimit: 50})
	if err != nil || *l.CPU.Quota != -1 || *l.CPU.Period != 100000 || *l.CPU.Shares != 2 || *l.Pids.Limit != 50 {
		t.Errorf("%+v, %v", l, err)
	}
}

// The limit of memory and swap together is never below that of memory, and
// follows it where it forbade swap.
func TestSwapFollows(t *testing.T) {
	type lr = runtime.LinuxContainerResources
	const mib = 1 << 20
	for _, c := range []struct {
		name        string
		old, update *lr
		swap        int64
	}{
		{"no swap, more", &lr{MemoryLimitInBytes: 64 * mib, MemorySwapLimitInBytes: 64 * mib}, &lr{MemoryLimitInBytes: 96 * mib}, 96 * mib},
		{"no swap, less", &lr{MemoryLimitInBytes: 64 * mib, MemorySwapLimitInBytes: 64 * mib}, &lr{MemoryLimitInBytes: 32 * mib}, 32 * mib},
		{"some swap, more than both", &lr{MemoryLimitInBytes: 64 * mib, MemorySwapLimitInBytes: 80 * mib}, &lr{MemoryLimitInBytes: 96 * mib}, 96 * mib},
		{"some swap, less", &lr{MemoryLimitInBytes: 64 * mib, MemorySwapLimitInBytes: 80 * mib}, &lr{MemoryLimitInBytes: 32 * mib}, 80 * mib},
		{"unlimited swap", &lr{MemoryLimitInBytes: 64 * mib, MemorySwapLimitInBytes: -1}, &lr{MemoryLimitInBytes: 96 * mib}, -1},
		{"swap said", &lr{MemoryLimitInBytes: 64 * mib, MemorySwapLimitInBytes: 64 * mib}, &lr{MemoryLimitInBytes: 96 * mib, MemorySwapLimitInBytes: 128 * mib}, 128 * mib},
		{"another limit", &lr{MemoryLimitInBytes: 64 * mib, MemorySwapLimitInBytes: 80 * mib}, &lr{CpuShares: 5}, 80 * mib},
	} {
		got := merge(c.old, c.update)
		if _, _, err := limits(got, Profile{}); err != nil || got.GetMemorySwapLimitInBytes() != c.swap {
			t.Errorf("%s: %d, %v", c.name, got.GetMemorySwapLimitInBytes(), err)
		}
	}
	for _, r := range []*lr{{MemorySwapLimitInBytes: mib}, {MemoryLimitInBytes: 64 * mib, MemorySwapLimitInBytes: 32 * mib}} {
		if _, _, err := limits(r, Profile{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %v", r, err)
		}
	}
}

func TestListens(t *testing.T) {
	for v, want := range map[string]string{
		"8080": ":8080", "8080, 127.0.0.1:9090": ":8080 127.0.0.1:9090", "[::1]:80": "[::1]:80", "0.0.0.0:1": "0.0.0.0:1", ":80": ":80",
		"": "!", "0": "!", "65536": "!", "localhost:80": "!", "::1:80": "!", "[127.0.0.1]:80": "!", "80,": "!", "[fe80::1%eth0]:80": "!",
		strings.Repeat("80,", maxListen) + "80": "!",
	} {
		l, err := listens(v)
		var got []string
		for _, a := range l {
			got = append(got, a.Address)
		}
		if text := strings.Join(got, " "); (err != nil) != (want == "!") || err == nil && text != want {
			t.Errorf("%.40q: %q, %v", v, text, err)
		}
	}
}

func FuzzListens(f *testing.F) {
	f.Add("8080,127.0.0.1:80")
	f.Add("[::1]:80")
	f.Fuzz(func(t *testing.T, v string) {
		l, err := listens(v)
		if err != nil {
			return
		}
		var parts []string
		for _, a := range l {
			parts = append(parts, a.Address)
		}
		again, err := listens(strings.Join(parts, ","))
		if err != nil || !slices.Equal(l, again) {
			t.Fatalf("%q: %v, then %v, %v", v, l, again, err)
		}
	})
}

func TestSettings(t *testing.T) {
	a := map[string]string{"limpet.dev/listen.web": "80", "limpet.dev/on-stop": "wait", "limpet.dev/on-stop.web": "kill"}
	l, stop, err := settings(a, "web")
	if err != nil || len(l) != 1 || stop != spec.OnStopKill {
		t.Errorf("web: %v %v %v", l, stop, err)
	}
	if l, stop, err = settings(a, "side"); err != nil || l != nil || stop != spec.OnStopWait {
		t.Errorf("side: %v %v %v", l, stop, err)
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Config){
		"not an absolute path": func(c *Config) { c.Root = "x" },
		"fit before the name":  func(c *Config) { c.Run = "/" + strings.Repeat("x", maxSocketDir) },
		"no handler":           func(c *Config) { c.Handlers = nil },
		"not among":            func(c *Config) { c.DefaultHandler = "runc" },
		"resolv_conf":          func(c *Config) { c.ResolvConf = "resolv.conf" },
		"memory_default":       func(c *Config) { c.Handlers["x"] = Profile{MemoryDefault: 1} },
		"above memory_max":     func(c *Config) { c.Handlers["x"] = Profile{MemoryDefault: 64 << 20, MemoryMax: 32 << 20} },
		"pids_limit":           func(c *Config) { c.Handlers["x"] = Profile{PidsLimit: 1} },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
