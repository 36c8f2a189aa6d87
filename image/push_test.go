package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestPush: what is pushed is pulled again as a CNCF artifact, and pushing it
// twice makes the same bytes.
func TestPush(t *testing.T) {
	srv := newServer(t)
	s, _ := open(t, Config{})
	ctx := context.Background()
	dir := t.TempDir()
	name := filepath.Join(dir, "hello.wasm")
	if err := os.WriteFile(name, commandModule("pushed"), 0o644); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var last Progress
	o := PushOptions{Created: at, RemoteOptions: RemoteOptions{Progress: func(p Progress) { last = p }}}
	first, err := Push(ctx, name, srv.ref("me/hello", "v1"), o)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Push(ctx, name, srv.ref("me/hello", "v2"), o)
	if err != nil || again.Digest != first.Digest {
		t.Fatalf("pushed again: %+v, %v; want digest %s", again, err, first.Digest)
	}
	if last.Stage != "done" || last.Done != last.Total || last.Total != first.Size {
		t.Errorf("progress ends with %+v", last)
	}
	img, err := s.Pull(ctx, first.Repeat, PullOptions{})
	if err != nil || img.Kind != "wasm artifact" || len(img.RepoTags) != 0 || !slices.Equal(img.RepoDigests, []string{first.Repeat}) {
		t.Fatalf("pulled %+v, %v", img, err)
	}
	if !slices.Equal(img.Config.Entrypoint, []string{"hello.wasm"}) {
		t.Errorf("entry point %q", img.Config.Entrypoint)
	}
	for ref, compiled := range map[string]bool{first.Ref: false} {
		var fetched Progress
		i, err := InspectRemote(ctx, ref, RemoteOptions{Progress: func(p Progress) { fetched = p }})
		if fetched.Stage != "fetch" || fetched.Done != fetched.Total || fetched.Total != int64(len(commandModule("pushed"))) {
			t.Errorf("progress ends with %+v", fetched)
		}
		if err != nil || !i.Runs || len(i.Modules) != 1 || i.Modules[0].Compiled != compiled || i.Kind != "wasm artifact" {
			t.Errorf("inspect %s: %+v, %v", ref, i, err)
		}
	}
	i, err := s.Inspect(ctx, img.ID)
	if err != nil || !i.Runs || len(i.Modules) != 1 || !i.Modules[0].Compiled || i.Modules[0].Path != "hello.wasm" {
		t.Errorf("inspect on the node: %+v, %v", i, err)
	}
	component := filepath.Join(dir, "c.wasm")
	if err := os.WriteFile(component, wasmComponent, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Push(ctx, component, srv.ref("me/c", "v1"), o); !errors.Is(err, ErrRefused) {
		t.Errorf("push of a component: %v, want ErrRefused", err)
	}
	if i, err := InspectFile(component); err != nil || i.Runs || !strings.Contains(i.Why, "component") {
		t.Errorf("inspect a component: %+v, %v", i, err)
	}
}

// layout writes an OCI layout as an archive.
func layout(t *testing.T, name string, module []byte, extra ...file) []byte {
	t.Helper()
	config, err := json.Marshal(v0(module))
	if err != nil {
		t.Fatal(err)
	}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: ofBytes(v0Type, config).desc,
		Layers: []ocispec.Descriptor{ofBytes(mediaTypeWasm, module).desc}}
	m.SchemaVersion = 2
	mb, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	md := ofBytes(m.MediaType, mb).desc
	md.Annotations = map[string]string{}
	if name != "" {
		md.Annotations["io.containerd.image.name"] = name
	}
	ix := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{md}}
	ix.SchemaVersion = 2
	ib, err := json.Marshal(ix)
	if err != nil {
		t.Fatal(err)
	}
	blob := func(b []byte) file { return file{name: "blobs/sha256/" + sha(b), body: string(b)} }
	return tarBytes(t, append(extra, file{name: "oci-layout", body: `{"imageLayoutVersion":"1.0.0"}`}, file{name: "index.json", body: string(ib)},
		blob(mb), blob(config), blob(module))...)
}

func TestImport(t *testing.T) {
	s, _ := open(t, Config{})
	ctx := context.Background()
	named := layout(t, "r.example/a/b:v1", wasmModule("imported"), file{name: "stray.bin", body: "x"}, file{name: "../../evil.json", body: "{}"},
		file{name: "dev", typ: tar.TypeChar})
	list, err := s.Import(ctx, bytes.NewReader(named))
	if err != nil || len(list) != 1 || !slices.Equal(list[0].RepoTags, []string{"r.example/a/b:v1"}) {
		t.Fatalf("imported %+v, %v", list, err)
	}
	if _, err := s.Prepare(ctx, "r.example/a/b:v1", "c", "", nil); err != nil {
		t.Error(err)
	}
	list, err = s.Import(ctx, bytes.NewReader(compressed(t, "gzip", layout(t, "", wasmModule("unnamed"))).bytes))
	if err != nil || len(list) != 1 || len(list[0].RepoTags) != 0 || len(list[0].RepoDigests) != 1 {
		t.Fatalf("imported without a name: %+v, %v", list, err)
	}
	blobs := countFiles(t, s, "content/blobs/sha256")
	for what, c := range map[string]struct {
		b    []byte
		as   error
		says string
	}{
		"text":                {[]byte("hello, this is text"), ErrInvalidImage, "it is no archive; an OCI layout or an archive"},
		"nothing":             {nil, ErrInvalidImage, "it is an empty file; an OCI layout or an archive"},
		"a module":            {wasmModule("x"), ErrInvalidImage, "push a module to a registry with limpet push"},
		"a program":           {elfFile, ErrInvalidImage, "it is a native program (ELF); an OCI layout or an archive"},
		"an archive of texts": {tarBytes(t, file{name: "a.txt", body: "hello"}, file{name: "blobs/a", body: "x"}), ErrInvalidImage, "no OCI layout (it has no file oci-layout)"},
		"an empty archive":    {make([]byte, 1024), ErrInvalidImage, "no OCI layout"},
		"cut":                 {named[:len(named)/2], ErrInvalidImage, "unexpected EOF"},
		"lacks its index":     {tarBytes(t, file{name: "oci-layout", body: `{"imageLayoutVersion":"1.0.0"}`}), ErrInvalidImage, "index.json"},
		"component":           {layout(t, "r.example/x:y", wasmComponent), ErrRefused, "a component"},
		"does not compile":    {layout(t, "r.example/x:y", wasmModule("bad")), ErrCompile, "type mismatch"},
	} {
		list, err := s.Import(ctx, bytes.NewReader(c.b))
		if !errors.Is(err, c.as) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: imported %v, %v; want %v with %q", what, list, err, c.as, c.says)
		}
	}
	small, _ := open(t, Config{MaxImageBytes: 1 << 10})
	if _, err := small.Import(ctx, bytes.NewReader(named)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if err := s.store.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	if n := countFiles(t, s, "content/blobs/sha256"); n > blobs {
		t.Errorf("%d blobs, %d before the imports that failed", n, blobs)
	}
	if n := countFiles(t, s, "content/ingest"); n != 0 {
		t.Errorf("%d ingests left", n)
	}
}

func countFiles(t *testing.T, s *Service, dir string) int {
	t.Helper()
	es, err := os.ReadDir(filepath.Join(s.cfg.Root, dir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return len(es)
}

// TestInspectUnfit: a module that is whole and cannot run is said to be so.
func TestInspectUnfit(t *testing.T) {
	foreign := []byte("\x00asm\x01\x00\x00\x00" + "\x01\x04\x01\x60\x00\x00" + "\x02\x09\x01\x03env\x01f\x00\x00" +
		"\x03\x02\x01\x00" + "\x07\x0a\x01\x06_start\x00\x01" + "\x0a\x04\x01\x02\x00\x0b")
	for name, c := range map[string]struct {
		module []byte
		why    string
	}{
		"library": {wasmModule("library"), "it exports no _start"},
		"foreign": {foreign, `it imports "f" from "env"`},
		"command": {commandModule("command"), ""},
	} {
		file := filepath.Join(t.TempDir(), name+".wasm")
		if err := os.WriteFile(file, c.module, 0o600); err != nil {
			t.Fatal(err)
		}
		i, err := InspectFile(file)
		if err != nil || i.Runs != (c.why == "") || !strings.HasPrefix(i.Why, c.why) {
			t.Errorf("%s: runs %v, %q, %v; want %q", name, i.Runs, i.Why, err, c.why)
		}
	}
}

// TestInspectTooLarge: what no pull would take does not run here, however good
// it is.
func TestInspectTooLarge(t *testing.T) {
	// A custom section of holes in front of a command.
	const section = MaxModuleBytes
	var size []byte
	for n := uint64(section); ; n >>= 7 {
		if n < 0x80 {
			size = append(size, byte(n))
			break
		}
		size = append(size, byte(n)|0x80)
	}
	head := append([]byte("\x00asm\x01\x00\x00\x00\x00"), size...)
	name := filepath.Join(t.TempDir(), "huge.wasm")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err1 := f.Write(append(head, "\x01x"...))
	_, err2 := f.WriteAt(commandModule("huge")[8:], int64(len(head)+section))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	i, err := InspectFile(name)
	if err != nil || i.Runs || !strings.Contains(i.Why, "at most 268435456 are accepted") {
		t.Errorf("runs %v: %s, %v", i.Runs, i.Why, err)
	}
}
