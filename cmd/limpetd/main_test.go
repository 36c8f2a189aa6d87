package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-cri/limpet/shim/cgroup"
	"github.com/limpet-cri/limpet/test/scratch"
)

// runEnv makes the test binary be limpetd.
const runEnv = "LIMPETD_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(runEnv) != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestCommands(t *testing.T) {
	good, bad := filepath.Join(t.TempDir(), "good.toml"), filepath.Join(t.TempDir(), "bad.toml")
	if err := errors.Join(os.WriteFile(good, []byte("[log]\nlevel = \"warn\"\n"), 0o600), os.WriteFile(bad, []byte("what = 1\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args      []string
		code      int
		out, errs string
	}{
		{[]string{"--version"}, 0, "limpetd ", ""},
		{[]string{"config", "default"}, 0, "[pods.handlers.limpet]", ""},
		{[]string{"config", "check", good}, 0, "is fine", ""},
		{[]string{"config", "check", bad}, 1, "", "bad.toml:1: what: there is no such key"},
		{[]string{"config", "check", "/nonexistent"}, 1, "", "no such file"},
		{[]string{"--config", bad}, 1, "", "bad.toml:1: what"},
		{[]string{"--help"}, 0, "limpetd config check FILE", ""},
		{[]string{"help"}, 0, "limpetd config check FILE", ""},
		{[]string{"version"}, 0, "limpetd ", ""},
		{[]string{"--what"}, 2, "", "limpetd: flag provided but not defined: -what"},
		{[]string{"--config"}, 2, "", "limpetd: flag needs an argument: -config"},
		{[]string{"config"}, 2, "", "config takes default, or check and one FILE"},
		{[]string{"config", "check"}, 2, "", "config takes default, or check and one FILE"},
		{[]string{"--config", "/nonexistent"}, 1, "", "limpetd config default"},
		{[]string{"start"}, 2, "", `no command "start"`},
	} {
		var out, errs bytes.Buffer
		if code := command(c.args, &out, &errs); code != c.code || !strings.Contains(out.String(), c.out) || !strings.Contains(errs.String(), c.errs) {
			t.Errorf("%q: code %d, output %q, errors %q", c.args, code, out.String(), errs.String())
		}
	}
}

// Either format names pod, container and image in fields of their own.
func TestLogFormats(t *testing.T) {
	for format, want := range map[string]string{
		"json": `"level":"INFO","msg":"m","pod":"p","container":"c","image":"i"}`,
		"text": `level=INFO msg=m pod=p container=c image=i`,
	} {
		var b bytes.Buffer
		log := newLogger(logFile{Level: "info", Format: format}, &b)
		log.Debug("not told")
		log.Info("m", "pod", "p", "container", "c", "image", "i")
		if got := strings.TrimSpace(b.String()); !strings.HasSuffix(got, want) || strings.Contains(got, "not told") {
			t.Errorf("%s: %s", format, got)
		}
	}
}

func TestLock(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	first, err := lockFolder("root", root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockFolder("root", root); !errors.Is(err, errRunning) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("a second one: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := lockFolder("root", root)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// instance is a limpetd of this test, and what systemd would hear of it.
type instance struct {
	cmd  *exec.Cmd
	errs *bytes.Buffer
	told *net.UnixConn
}

func launch(t *testing.T, dir, config string) *instance {
	t.Helper()
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, fmt.Sprintf("n%d", time.Now().UnixNano())), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = told.Close() })
	i := &instance{errs: &bytes.Buffer{}, told: told, cmd: exec.Command("/proc/self/exe", "--config", config)}
	i.cmd.Env = append(os.Environ(), runEnv+"=1", "NOTIFY_SOCKET="+told.LocalAddr().String(), "WATCHDOG_USEC=300000")
	i.cmd.Stderr = i.errs
	if err := i.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.cmd.Process.Kill() })
	return i
}

// hears waits until systemd is told a state.
func (i *instance) hears(t *testing.T, want string) {
	t.Helper()
	if err := i.told.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 256)
	for {
		n, err := i.told.Read(b)
		if err != nil {
			t.Fatalf("systemd never heard %s: %v\n%s", want, err, i.errs)
		}
		if string(b[:n]) == want {
			return
		}
	}
}

// ground is a folder for a daemon, and a host for it to use.
func ground(t *testing.T) (dir, host string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	top := os.Getenv("LIMPET_BUILD")
	if top == "" {
		top = "../.."
	}
	var err error
	host, err = filepath.Abs(filepath.Join(top, "bin", "limpet-host"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(host); err != nil {
		t.Skipf("needs make build: %v", err)
	}
	dir = scratch.Dir(t)
	groups, err := cgroup.Detect(cgroup.Root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The parent of the compilers' groups, which the daemon was given.
		if err := groups.Open("/" + filepath.Base(dir)).Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return dir, host
}

func configure(t *testing.T, dir, host, address string) string {
	t.Helper()
	config := filepath.Join(dir, "c.toml")
	text := fmt.Sprintf("root = %q\nrun = %q\n[server]\nsocket = %q\n[metrics]\naddress = %q\n[hosts]\npath = %q\ncompile_cgroup = %q\n",
		filepath.Join(dir, "root"), filepath.Join(dir, "run"), filepath.Join(dir, "s.sock"), address, host, "/"+filepath.Base(dir))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config
}

// What makes a daemon useless ends it before it says that it is ready.
func TestNotReady(t *testing.T) {
	dir, host := ground(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // nobody connects
	for want, config := range map[string]string{
		"does not answer as a limpet-host":           configure(t, dir, "/bin/true", ""),
		"free the address or change metrics.address": configure(t, t.TempDir(), host, taken.Addr().String()),
	} {
		i := launch(t, dir, config)
		if err := i.cmd.Wait(); err == nil || !strings.Contains(i.errs.String(), want) || strings.Contains(i.errs.String(), "limpetd is ready") {
			t.Errorf("want %q: %v\n%s", want, err, i.errs)
		}
		if err := i.told.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 256)
		if n, err := i.told.Read(b); err == nil {
			t.Errorf("systemd was told %s", b[:n])
		}
	}
}

// The whole life of a daemon: ready, alive, asked, doubled, stopped, and
// started again over what a killed one left.
func TestDaemon(t *testing.T) {
	dir, host := ground(t)
	address := freeAddress(t)
	config := configure(t, dir, host, address)
	first := launch(t, dir, config)
	first.hears(t, "READY=1")
	first.hears(t, "WATCHDOG=1")
	for path, want := range map[string]string{"/healthz": "ok", "/metrics": "limpet_containers{state=\"running\"} 0"} {
		if body := get(t, "http://"+address+path); !strings.Contains(body, want) {
			t.Errorf("%s lacks %q: %.200s", path, want, body)
		}
	}
	second := launch(t, dir, config)
	if err := second.cmd.Wait(); err == nil || !strings.Contains(second.errs.String(), "another limpetd runs") {
		t.Errorf("a second limpetd: %v, %s", err, second.errs)
	}
	if err := first.cmd.Process.Kill(); err != nil { // leaves its socket behind
		t.Fatal(err)
	}
	_ = first.cmd.Wait()
	if !strings.Contains(first.errs.String(), "supported until") {
		t.Errorf("it does not tell of its engine: %s", first.errs)
	}
	third := launch(t, dir, config)
	third.hears(t, "READY=1")
	if err := third.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	third.hears(t, "STOPPING=1")
	if err := third.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, third.errs)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // only its address matters
	return l.Addr().String()
}

func get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close() //nolint:errcheck // read to its end
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, r.Status, err)
	}
	return string(b)
}

// The version is semantic whatever the build was stamped with: the kubelet
// parses it.
func TestVersion(t *testing.T) {
	stamped := release
	t.Cleanup(func() { release = stamped })
	for given, want := range map[string]string{"": unversioned, "(devel)": unversioned, "v1.2.3": "1.2.3", "1.2.3-rc.1": "1.2.3-rc.1"} {
		release = given
		got := version()
		if given == "" && got != want && strings.HasPrefix(got, "0.0.0-") {
			continue // git has stamped this test
		}
		if got != want {
			t.Errorf("stamped with %q it is %q, want %q", given, got, want)
		}
	}
}
