package confine_test

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/confine"
	"github.com/limpet-cri/limpet/shim/spec"
)

// allowAll is the program "return ALLOW".
var allowAll = []byte{0x06, 0, 0, 0, 0, 0, 0xff, 0x7f}

// stepCheck shows a step. verify returns what is wrong, "" if nothing is.
type stepCheck struct {
	name    string
	prepare func(t testing.TB) setup
	verify  func(t *testing.T, p *pod) string
}

func plain(payload string) func(testing.TB) setup {
	return func(testing.TB) setup { return setup{payload: payload} }
}

// answers demands answers of the probe.
func answers(want map[string]string) func(*testing.T, *pod) string {
	return func(_ *testing.T, p *pod) string {
		for k, v := range want {
			if p.answers[k] != v {
				return fmt.Sprintf("%s = %q, want %q", k, p.answers[k], v)
			}
		}
		return ""
	}
}

// inStatus demands values of /proc/PID/status, of all threads.
func inStatus(want map[string]string) func(*testing.T, *pod) string {
	return func(t *testing.T, p *pod) string {
		tasks := must(filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid)))(t)
		if len(tasks) == 0 {
			return "it is gone"
		}
		for _, task := range tasks {
			have := status(t, task)
			for k, v := range want {
				if have[k] != v {
					return fmt.Sprintf("%s: %s is %q, want %q", task, k, have[k], v)
				}
			}
		}
		return ""
	}
}

func proc(t *testing.T, p *pod, file string) string {
	t.Helper()
	return string(must(os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, file)))(t))
}

func namespace(t *testing.T, pid, name string) string {
	t.Helper()
	return must(os.Readlink("/proc/" + pid + "/ns/" + name))(t)
}

func (p *pod) pid() string { return fmt.Sprint(p.cmd.Process.Pid) }

const none = "0000000000000000"

var stepChecks = []stepCheck{
	{"cgroup", prepareCgroup, func(t *testing.T, p *pod) string {
		if c := proc(t, p, "cgroup"); !strings.Contains(c, scratchGroup) {
			return "it is in " + c
		}
		return noStrangers(t, p) // the file that it joined by is closed
	}},
	{"signals", func(t testing.TB) setup {
		signal.Ignore(syscall.SIGHUP)
		t.Cleanup(func() { signal.Reset(syscall.SIGHUP) })
		return setup{thread: blockSignals}
	}, signalsAreReset},
	{"descriptors", func(t testing.TB) setup {
		return setup{extra: create(t, filepath.Join(t.TempDir(), "stranger"))}
	}, noStrangers},
	{"lock", func(testing.TB) setup {
		return setup{payload: "pid\n", lockHolds: strings.Repeat("an earlier host ", 9)}
	}, lockTells},
	{"oom_score_adj", func(testing.TB) setup {
		score := 321
		return setup{order: func(o *confine.Order) { o.OOMScoreAdj = &score }}
	}, func(t *testing.T, p *pod) string {
		return differs("oom_score_adj", strings.TrimSpace(proc(t, p, "oom_score_adj")), "321")
	}},
	{"network", plain(""), func(t *testing.T, p *pod) string {
		var st unix.Stat_t
		if err := unix.Fstat(int(p.netns.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return differs("network namespace", namespace(t, p.pid(), "net"), fmt.Sprintf("net:[%d]", st.Ino))
	}},
	{"mount namespace", func(testing.TB) setup { return setup{thread: ownMounts, payload: "list /guest\n"} }, ownMountNS},
	{"root", plain("list /\nlist /guest\nmode /guest\nmode /guest/tmp\ncreate /guest/tmp/x\nmode /guest/tmp/x\ncreate /guest/x\n"),
		answers(map[string]string{
			"list /": "EACCES", "list /guest": "tmp", "mode /guest": "40755", "mode /guest/tmp": "41777",
			"create /guest/tmp/x": "ok", "mode /guest/tmp/x": "100644", "create /guest/x": "EACCES",
		})},
	{"mounts", func(t testing.TB) setup {
		s := prepareVolumes(t)
		mask := unix.Umask(0o077) // the daemon's is nothing to the guest
		t.Cleanup(func() { unix.Umask(mask) })
		return s
	}, answers(volumeAnswers)},
	{"code", plain("map /code\nread /guest/code\nwrite /code\n"),
		answers(map[string]string{"map /code": "ok", "read /guest/code": "ENOENT", "write /code": "EROFS"})},
	{"read-only", func(testing.TB) setup {
		return setup{payload: "create /guest/x\nlist /guest\n", order: func(o *confine.Order) { o.Root.ReadOnly = true }}
	}, func(t *testing.T, p *pod) string {
		if s := mountOptions(t, p); s != "" {
			return s
		}
		return answers(map[string]string{"create /guest/x": "EROFS", "list /guest": ""})(t, p)
	}},
	{"chroot", plain("list /guest\nlist /etc\nlist /proc\nlist /..\n"), answers(map[string]string{
		"list /guest": "tmp", "list /etc": "ENOENT", "list /proc": "ENOENT", "list /..": "EACCES",
	})},
	{"rlimits", func(testing.TB) setup {
		return setup{order: func(o *confine.Order) {
			o.Rlimits = []confine.Rlimit{
				{Resource: unix.RLIMIT_NOFILE, Soft: 200, Hard: 200},
				{Resource: unix.RLIMIT_CORE, Soft: unix.RLIM_INFINITY, Hard: unix.RLIM_INFINITY}, // not heard
			}
		}}
	}, limitsHold},
	{"bounding set", plain(""), inStatus(map[string]string{"CapBnd": none})},
	{"groups", plain(""), inStatus(map[string]string{"Groups": "1234 5678"})},
	{"gid", plain(""), inStatus(map[string]string{"Gid": "65533 65533 65533 65533"})},
	{"uid", plain(""), inStatus(map[string]string{"Uid": "65534 65534 65534 65534"})},
	{"capabilities", func(testing.TB) setup {
		return setup{
			order: func(o *confine.Order) { o.UID, o.GID, o.Groups, o.AllowRoot = 0, 0, nil, true },
			attr:  func(a *syscall.SysProcAttr) { a.AmbientCaps = []uintptr{unix.CAP_CHOWN} },
		}
	}, inStatus(map[string]string{"CapEff": none, "CapPrm": none, "CapInh": none, "CapAmb": none, "CapBnd": none, "Uid": "0 0 0 0"})},
	{"no_new_privs", plain(""), inStatus(map[string]string{"NoNewPrivs": "1"})},
	{"dumpable", func(testing.TB) setup {
		return setup{payload: "dumpable\n", order: func(o *confine.Order) {
			o.UID, o.GID, o.AllowRoot, o.Filter = 0, 0, true, allowAll
		}}
	}, answers(map[string]string{"dumpable": "0"})},
	{"landlock", func(t testing.TB) setup {
		if confine.LandlockABI() < confine.MinLandlock {
			t.Skip("needs Landlock, version 2")
		}
		return setup{payload: "open /\nbind 8080\nbind 8081\n", order: func(o *confine.Order) { o.Ports = []uint16{8080} }}
	}, func(t *testing.T, p *pod) string {
		want := map[string]string{"open /": "EACCES", "bind 8080": "ok", "bind 8081": "ok"}
		if confine.LandlockABI() >= 4 {
			want["bind 8081"] = "EACCES"
		}
		return answers(want)(t, p)
	}},
	{"close mounts", prepareVolumes, noStrangers},
	{"seccomp", plain(""), inStatus(map[string]string{"Seccomp": "2", "Seccomp_filters": "1"})},
}

func differs(what, have, want string) string {
	if have != want {
		return fmt.Sprintf("%s is %q, want %q", what, have, want)
	}
	return ""
}

// scratchGroup is a cgroup of the tests' own.
const scratchGroup = "limpet-confine-test"

func prepareCgroup(t testing.TB) setup {
	needRoot(t)
	dir := filepath.Join("/sys/fs/cgroup/memory", scratchGroup)
	if _, err := os.Stat("/sys/fs/cgroup/memory/tasks"); err != nil {
		t.Skip("needs cgroup version 1")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // runs after the probe's end, which was prepared later
		if err := unix.Rmdir(dir); err != nil {
			t.Error(err)
		}
	})
	return setup{tasks: []*os.File{must(os.OpenFile(filepath.Join(dir, "tasks"), os.O_WRONLY, 0))(t)}}
}

// prepareVolumes has a writable folder, a read-only one, a ConfigMap with its
// links, a single file and a mount inside another.
func prepareVolumes(t testing.TB) setup {
	dir := t.TempDir()
	for name, content := range map[string]string{"rw/f": "f", "ro/x": "x", "cm/..1/key": "k", "hosts": "h", "inner/i": "i"} {
		writeFile(t, filepath.Join(dir, name), content)
	}
	for link, target := range map[string]string{"cm/..data": "..1", "cm/key": "..data/key"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"rw", "ro"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	var payload strings.Builder
	for q := range volumeAnswers {
		payload.WriteString(q + "\n")
	}
	return setup{payload: payload.String(), mounts: []volume{
		{filepath.Join(dir, "rw"), "/data", confine.Volume, false},
		{filepath.Join(dir, "ro"), "/srv/ro", confine.ReadOnlyVolume, false},
		{filepath.Join(dir, "cm"), "/etc/cfg", confine.ReadOnlyVolume, false},
		{filepath.Join(dir, "hosts"), "/etc/hosts", confine.ReadOnlyVolume, true},
		{filepath.Join(dir, "inner"), "/data/inner/deep", confine.ReadOnlyVolume, false},
	}}
}

var volumeAnswers = map[string]string{
	"read /guest/data/f":                `"f"`,
	"create /guest/data/new":            "ok",
	"map /guest/data/f":                 "EACCES", // noexec
	"read /guest/srv/ro/x":              `"x"`,
	"create /guest/srv/ro/new":          "EROFS",
	"read /guest/etc/cfg/key":           `"k"`,
	"read /guest/etc/hosts":             `"h"`,
	"write /guest/etc/hosts":            "EROFS",
	"read /guest/data/inner/deep/i":     `"i"`,
	"create /guest/data/inner/deep/new": "EROFS",
	"list /guest":                       "data etc srv tmp",
}

// noStrangers demands that only the descriptors of package spec are open, and
// those that the Go runtime makes.
func noStrangers(t *testing.T, p *pod) string {
	dir := fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)
	var strangers []string
	for _, e := range must(os.ReadDir(dir))(t) {
		link := must(os.Readlink(filepath.Join(dir, e.Name())))(t)
		own := len(e.Name()) == 1 && e.Name() < fmt.Sprint(spec.FDFirstFree)
		if !own && link != "anon_inode:[eventpoll]" && link != "anon_inode:[eventfd]" {
			strangers = append(strangers, "descriptor "+e.Name()+" is "+link)
		}
	}
	return strings.Join(strangers, ", ")
}

// lockTells demands that the lock is held and tells the outer pid.
func lockTells(t *testing.T, p *pod) string {
	stat := proc(t, p, "stat")
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	want := p.pid() + " " + fields[22-3] + "\n"
	if s := differs("lock", string(must(os.ReadFile(p.lock))(t)), want); s != "" {
		return s
	}
	f := must(os.OpenFile(p.lock, os.O_RDWR, 0))(t)
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		return "the lock is free"
	}
	return differs("pid inside", p.answers["pid"], "1")
}

func ownMountNS(t *testing.T, p *pod) string {
	switch namespace(t, p.pid(), "mnt") {
	case p.startedIn:
		return "it is in the mount namespace that it was started in"
	case p.emptyNS:
		return "it shares the empty mount namespace with other hosts"
	}
	for line := range strings.Lines(proc(t, p, "mountinfo")) {
		if f := strings.Fields(line); !slices.Contains([]string{"/", "/guest", "/code"}, f[4]) {
			return "it sees the mount " + line
		}
	}
	return differs("list /guest", p.answers["list /guest"], "tmp")
}

// mountOptions demands of a read-only guest's mounts what the kernel is to hold
// for all of them; only the compiled code, which is no mount of the guest's, may
// be mapped executable.
func mountOptions(t *testing.T, p *pod) string {
	seen := 0
	for line := range strings.Lines(proc(t, p, "mountinfo")) {
		f := strings.Fields(line)
		want := []string{"ro", "nosuid", "nodev", "noexec"}
		if f[4] == "/code" {
			want = want[:3]
		}
		for _, o := range want {
			if !slices.Contains(strings.Split(f[5], ","), o) {
				return f[4] + " is mounted " + f[5]
			}
		}
		seen++
	}
	return differs("number of mounts", fmt.Sprint(seen), "3")
}

// signalsAreReset waits out that the Go runtime blocks all signals in the
// moment in which it makes a thread; what a daemon hands down stays.
func signalsAreReset(t *testing.T, p *pod) string {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); ; <-tick.C {
		wrong := inStatus(map[string]string{"SigIgn": none, "SigBlk": none})(t, p)
		if !strings.Contains(wrong, `SigBlk is "ffff`) || time.Now().After(end) {
			return wrong
		}
	}
}

func limitsHold(t *testing.T, p *pod) string {
	limits := map[string]string{}
	for line := range strings.Lines(proc(t, p, "limits")) {
		if len(line) > 26 {
			limits[strings.TrimSpace(line[:26])] = strings.Join(strings.Fields(line[26:])[:2], " ")
		}
	}
	if s := differs("core", limits["Max core file size"], "0 0"); s != "" {
		return s
	}
	return differs("open files", limits["Max open files"], "200 200")
}

// TestSteps shows each step of the constructor from inside and outside, and
// then that its absence is seen.
func TestSteps(t *testing.T) {
	needRoot(t)
	var names []string
	for _, c := range stepChecks {
		names = append(names, c.name)
		t.Run(c.name, func(t *testing.T) {
			p := run(t, c.prepare(t))
			if wrong := c.verify(t, p); wrong != "" {
				t.Error(wrong)
			}
			if state, said := p.end(); state.ExitCode() != 0 || said != "" {
				t.Errorf("%v: %s", state, said)
			}
		})
		t.Run("without "+c.name, func(t *testing.T) {
			s := c.prepare(t)
			s.skip = c.name
			p := run(t, s)
			if p.failed(s.payload) {
				_, said := p.end()
				t.Logf("seen: %s", strings.TrimSpace(said))
				return
			}
			wrong := c.verify(t, p)
			if wrong == "" {
				t.Error("nobody sees that the step is left out")
			}
			t.Logf("seen: %s", wrong)
		})
	}
	if have := confine.Steps(); have != nil && !slices.Equal(names, have) {
		t.Errorf("the table has %q, the constructor %q", names, have)
	}
}
