package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/cri/admin"
)

// fakeDaemon answers as limpetd would, with one pod, one image.
type fakeDaemon struct {
	runtime.UnimplementedRuntimeServiceServer
	runtime.UnimplementedImageServiceServer
	imported []byte
}

func (*fakeDaemon) Status(context.Context, *runtime.StatusRequest) (*runtime.StatusResponse, error) {
	return &runtime.StatusResponse{Info: map[string]string{"limpet": `{"version":"1.2.3","engine":"e5"}`}}, nil
}

func (*fakeDaemon) ListImages(context.Context, *runtime.ListImagesRequest) (*runtime.ListImagesResponse, error) {
	return &runtime.ListImagesResponse{Images: []*runtime.Image{
		{Id: "sha256:bbbbbbbbbbbbbbbbbbbb", RepoTags: []string{"r/b:2", "r/b:1"}, Size: 3 << 20},
		{Id: "sha256:aaaaaaaaaaaaaaaaaaaa", RepoDigests: []string{"r/a@sha256:cc"}, Size: 10},
		{Id: "sha256:dddddddddddddddddddd", Size: 11},
	}}, nil
}

func (*fakeDaemon) ListPodSandbox(context.Context, *runtime.ListPodSandboxRequest) (*runtime.ListPodSandboxResponse, error) {
	return &runtime.ListPodSandboxResponse{Items: []*runtime.PodSandbox{
		{Id: "p1", Metadata: &runtime.PodSandboxMetadata{Name: "web", Namespace: "default"}},
		{Id: "p2", Metadata: &runtime.PodSandboxMetadata{Name: "bare", Namespace: "default"}, CreatedAt: time.Now().UnixNano()},
	}}, nil
}

func (*fakeDaemon) ListContainers(context.Context, *runtime.ListContainersRequest) (*runtime.ListContainersResponse, error) {
	return &runtime.ListContainersResponse{Containers: []*runtime.Container{
		{Id: "c1", PodSandboxId: "p1", State: runtime.ContainerState_CONTAINER_RUNNING},
		{Id: "c2", PodSandboxId: "p1", State: runtime.ContainerState_CONTAINER_EXITED},
	}}, nil
}

func (*fakeDaemon) ContainerStatus(_ context.Context, r *runtime.ContainerStatusRequest) (*runtime.ContainerStatusResponse, error) {
	s := &runtime.ContainerStatus{
		Metadata: &runtime.ContainerMetadata{Name: r.GetContainerId()}, Image: &runtime.ImageSpec{Image: "sha256:bbbbbbbbbbbbbbbbbbbb", UserSpecifiedImage: "r/b:2"},
		State: runtime.ContainerState_CONTAINER_RUNNING, StartedAt: time.Now().Add(-5 * time.Minute).UnixNano(),
	}
	if r.GetContainerId() == "c2" {
		s.Image.UserSpecifiedImage = "" // made by id
		s.State, s.ExitCode, s.Reason, s.FinishedAt = runtime.ContainerState_CONTAINER_EXITED, 3, "Error", time.Now().Add(-3*time.Hour).UnixNano()
	}
	return &runtime.ContainerStatusResponse{Status: s}, nil
}

func (f *fakeDaemon) Import(_ context.Context, archive io.Reader) (images []admin.Image, err error) {
	f.imported, err = io.ReadAll(archive)
	return []admin.Image{{ID: "sha256:aa", Tags: []string{"r/c:1"}, Kind: "wasm artifact", Size: 2048}}, err
}

func (*fakeDaemon) Inspect(_ context.Context, ref string) (any, bool, error) {
	if ref != "r/b:2" && ref != "sha256:bbbbbbbbbbbbbbbbbbbb" {
		return nil, false, nil
	}
	return map[string]any{
		"Name": "r/b:2", "Kind": "wasm artifact", "Runs": true,
		"Modules": []map[string]any{{"Path": "b.wasm", "Compiled": true, "Exports": []map[string]string{{"Name": "_start", "Kind": "func", "Type": "func()"}}}},
	}, true, nil
}

func serve(t *testing.T, f *fakeDaemon) string {
	t.Helper()
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	runtime.RegisterRuntimeServiceServer(s, f)
	runtime.RegisterImageServiceServer(s, f)
	admin.Register(s, f)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return sock
}

// call runs limpet and returns its exit code and what it wrote.
func call(t *testing.T, socket, stdin string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	a := &app{out: &o, err: &e, in: strings.NewReader(stdin), socket: socket}
	code = a.main(t.Context(), args)
	return code, o.String(), e.String()
}

func TestCommands(t *testing.T) {
	f := &fakeDaemon{}
	sock := serve(t, f)
	layout := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(layout, "oci-layout"), []byte("{}"), 0o600),
		os.MkdirAll(filepath.Join(layout, "blobs/sha256"), 0o700),
		os.WriteFile(filepath.Join(layout, "blobs/sha256/aa"), []byte("the blob"), 0o600)); err != nil {
		t.Fatal(err)
	}
	module := filepath.Join(t.TempDir(), "m.wasm")
	if err := os.WriteFile(module, []byte("\x00asm\x01\x00\x00\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		args      []string
		code      int
		out, errs []string // parts, in order
		not       string
	}{
		{"images", []string{"images"}, 0, []string{"IMAGE", "r/a@sha256:cc", "aaaaaaaaaaaa ", "10 B", "r/b:1", "r/b:2", "3.0 MiB"}, nil, "none"},
		{"all images", []string{"images", "--all", "--ids"}, 0, []string{"<none>", "sha256:dddddddddddddddddddd"}, nil, ""},
		{"ps", []string{"ps"}, 0, []string{"POD", "default/bare", "-", "Ready", "default/web", "c1", "Running", "5m", "r/b:2"}, nil, "Exited"},
		{"all ps", []string{"ps", "--all"}, 0, []string{"c2", "Exited 3 (Error)", "3h", "r/b:2"}, nil, "sha256"},
		{"version", []string{"version"}, 0, []string{"limpet ", "limpetd 1.2.3", "engine  e5"}, nil, ""},
		{"import", []string{"import", "-"}, 0, []string{"r/c:1 (wasm artifact, 2.0 KiB)"}, []string{"import -"}, ""},
		{"import layout", []string{"import", layout}, 0, []string{"r/c:1"}, nil, ""},
		{"import nothing", []string{"import", t.TempDir()}, 1, nil, []string{"without an OCI layout"}, ""},
		{"inspect on the node", []string{"inspect", "r/b:2"}, 0, []string{"r/b:2", "this node", "runs here", "yes", "b.wasm", "compiled", "yes", "command", "_start", "func()"}, nil, ""},
		{"inspect file", []string{"inspect", module}, 0, []string{"file", "core WebAssembly module", "8 B", "no: it exports no _start", "m.wasm", "library without WASI"}, nil, "compiled"},
		{"inspect by id", []string{"inspect", "bbbbbbbbbbbb"}, 0, []string{"r/b:2", "this node"}, nil, ""},
		{"inspect json", []string{"inspect", module, "--json"}, 0, []string{`"Digest": "sha256:`}, nil, ""},
		{"no command", nil, 2, nil, []string{"limpet push", "limpet ps"}, ""},
		{"unknown command", []string{"run"}, 2, nil, []string{`no command "run"`}, ""},
		{"too few arguments", []string{"push", "x"}, 2, nil, []string{"usage: limpet push"}, ""},
		{"unknown flag", []string{"ps", "--what"}, 2, nil, []string{"-what", "usage: limpet ps"}, ""},
		{"help", []string{"help"}, 0, []string{"limpet import FILE", "LIMPET_SOCKET"}, nil, ""},
		{"help on a command", []string{"help", "push"}, 0, []string{"limpet push FILE REF", "CNCF"}, nil, ""},
		{"help flag", []string{"push", "--help"}, 0, []string{"limpet push FILE REF", "--annotation"}, nil, ""},
		{"push of no file", []string{"push", "/nonexistent.wasm", "127.0.0.1:1/a:b"}, 1, nil, []string{"no such file"}, ""},
		{"push to no name", []string{"push", module, "UPPER CASE"}, 1, nil, []string{"invalid image reference"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := call(t, sock, "bytes of an archive", c.args...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			inOrder(t, "output", out, c.out)
			inOrder(t, "errors", errs, c.errs)
			if c.not != "" && strings.Contains(out, c.not) {
				t.Errorf("output has %q:\n%s", c.not, out)
			}
		})
	}
	if !bytes.Contains(f.imported, []byte("the blob")) {
		t.Error("the layout's blob did not arrive")
	}
}

func inOrder(t *testing.T, what, text string, parts []string) {
	t.Helper()
	rest := text
	for _, p := range parts {
		_, after, ok := strings.Cut(rest, p)
		if !ok {
			t.Errorf("%s lacks %q (in this order: %q):\n%s", what, p, parts, text)
			return
		}
		rest = after
	}
}

// Without a limpetd, each command says so, and what to do.
func TestNoDaemon(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for socket, want := range map[string]string{
		filepath.Join(dir, "none"): "no limpetd on",
		stale:                      "does not answer on",
	} {
		if code, _, errs := call(t, socket, "", "ps"); code != 1 || !strings.Contains(errs, want) {
			t.Errorf("%s: code %d, %q, want %q", socket, code, errs, want)
		}
	}
	if code, out, _ := call(t, filepath.Join(dir, "none"), "", "version"); code != 0 || !strings.Contains(out, "not asked") {
		t.Errorf("version: code %d, %q", code, out)
	}
}

func TestProgress(t *testing.T) {
	var b bytes.Buffer
	now := time.Unix(0, 0)
	p := &progress{w: &b, terminal: true, width: 60, now: func() time.Time { now = now.Add(time.Second); return now }}
	p.set("fetch", 0, 2048)
	p.set("fetch", 1024, 2048)
	p.set("fetch", 2048, 2048)
	p.set("compile", 5, 0)
	p.end()
	inOrder(t, "bar", b.String(), []string{"\rfetch [    ", "]   0% 2.0 KiB", "\rfetch [====", " ]  50%", "=] 100%", "\n", "\rcompile 5 B", "\n"})
	for line := range strings.SplitSeq(b.String(), "\r") {
		if n := len(strings.TrimSuffix(strings.TrimRight(line, "\n"), "\x1b[K")); n > 60 {
			t.Errorf("a line of %d columns: %q", n, line)
		}
	}
	b.Reset()
	p = &progress{w: &b, now: time.Now}
	for n := range int64(100) {
		p.set("fetch", n, 100)
	}
	p.set("unpack", 0, 0)
	p.end()
	if b.String() != "fetch\nunpack\n" {
		t.Errorf("elsewhere than on a terminal: %q", b.String())
	}
}
