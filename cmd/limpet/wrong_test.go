package main

import (
	"encoding/pem"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// files are what people name by mistake.
func files(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range map[string]string{
		"component.wasm": "\x00asm\x0d\x00\x01\x00\x01\x08\x00asm\x01\x00\x00\x00", "empty.wasm": "", "text.wasm": "hello, this is text\n",
		"elf.wasm": "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 600), "text.wat": "(module)\n",
		"cut.wasm": "\x00asm\x01\x00\x00\x00\x01\x40\x01", "good.wasm": "\x00asm\x01\x00\x00\x00", "bad.json": "{",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestWrong: whatever is wrong with a call is said in one line: what was
// found, and what to do.
func TestWrong(t *testing.T) {
	t.Chdir(files(t))
	answers := func(code int) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(code)
		}))
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	none, locked, broken := answers(404), answers(401), answers(400)
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	secure.StartTLS()
	defer secure.Close()
	hosts := func(text string) string {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "r.example"), 0o700); err != nil {
			t.Fatal(err)
		}
		ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
		for name, b := range map[string]string{"hosts.toml": text, "ca.pem": string(ca)} {
			if err := os.WriteFile(filepath.Join(dir, "r.example", name), []byte(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	sock := serve(t, &fakeDaemon{})
	away := filepath.Join(t.TempDir(), "none")
	seeHelp := func(c string) string {
		return "usage: limpet " + c + "; limpet help " + strings.Fields(c)[0] + " says more"
	}
	for _, c := range []struct {
		args   []string
		socket string
		code   int
		says   string // the whole of it, or its end behind "..."
	}{
		{[]string{"nothing"}, sock, 2, `limpet: there is no command "nothing"; see limpet help`},
		{[]string{"help", "nothing"}, sock, 2, `limpet: there is no command "nothing"; see limpet help`},
		{[]string{"help", "push", "ps"}, sock, 2, "usage: limpet help [COMMAND]"},
		{[]string{"--nothing"}, sock, 2, "limpet: flag provided but not defined: -nothing; see limpet help"},
		{[]string{"push", "good.wasm"}, sock, 2, seeHelp("push [flags] FILE REF")},
		{[]string{"push", "a", "b", "c"}, sock, 2, seeHelp("push [flags] FILE REF")},
		{[]string{"images", "x"}, sock, 2, seeHelp("images [--all] [--ids]")},
		{[]string{"import"}, sock, 2, seeHelp("import FILE")},

		{[]string{"push", "none.wasm", "r.example/a"}, sock, 1, "limpet: push: open none.wasm: no such file or directory; name a WebAssembly module (.wasm) first, then the reference"},
		{[]string{"push", "r.example/a:v1", "good.wasm"}, sock, 1, "limpet: push: open r.example/a:v1: no such file or directory; name a WebAssembly module (.wasm) first, then the reference"},
		{[]string{"push", "good.wasm", "a:b:c"}, sock, 1, `limpet: invalid image reference: "a:b:c": invalid reference format; wanted a name such as registry.example/demo/hello:v1`},
		{[]string{"push", "good.wasm", ""}, sock, 1, `limpet: invalid image reference: "": invalid reference format; wanted a name such as registry.example/demo/hello:v1`},
		{[]string{"push", "good.wasm", "https://r.example/a"}, sock, 1, `limpet: invalid image reference: "https://r.example/a": invalid reference format; leave out what comes before the name of the registry, up to ://`},
		{[]string{"push", "dir", "r.example/a"}, sock, 1, "limpet: push dir: it is no regular file; a WebAssembly module (.wasm) is wanted"},
		{[]string{"push", "component.wasm", "r.example/a"}, sock, 1, "limpet: push component.wasm: artifact refused: it is a component; only core modules run here, so build it for wasip1 (for example --target wasm32-wasip1)"},
		{[]string{"push", "elf.wasm", "r.example/a"}, sock, 1, "limpet: push elf.wasm: artifact refused: it is a native program (ELF); native code from outside is never executed, so push the .wasm instead"},
		{[]string{"push", "empty.wasm", "r.example/a"}, sock, 1, "limpet: push empty.wasm: artifact refused: it is an empty file; a WebAssembly module (.wasm) is wanted"},
		{[]string{"push", "text.wasm", "r.example/a"}, sock, 1, "limpet: push text.wasm: artifact refused: it is not WebAssembly; a WebAssembly module (.wasm) is wanted"},
		{[]string{"push", "text.wat", "r.example/a"}, sock, 1, "...(translate it to the binary format); a WebAssembly module (.wasm) is wanted"},
		{[]string{"push", "cut.wasm", "r.example/a"}, sock, 1, "limpet: push cut.wasm: invalid image: malformed WebAssembly at offset 10: a section beyond the end"},
		{[]string{"push", "good.wasm", "UPPER"}, sock, 1, `limpet: invalid image reference: "UPPER": invalid reference format: repository name (library/UPPER) must be lowercase`},
		{[]string{"push", "good.wasm", "r.example/a@sha256:" + strings.Repeat("0", 64)}, sock, 1, "...names a digest; a push needs a tag"},
		{[]string{"push", "good.wasm", dead + "/a"}, sock, 1, "limpet: push " + dead + "/a:latest: registry unavailable: https://" + dead + ": dial tcp " + dead + ": connect: connection refused"},
		{[]string{"push", "good.wasm", locked + "/a"}, sock, 1, "limpet: push " + locked + "/a:latest: registry denied access: it wants credentials, and those that it got (if any) are not enough, or it has no such repository"},
		{[]string{"push", "good.wasm", broken + "/a"}, sock, 1, "limpet: push " + broken + "/a:latest: registry unavailable: http://" + broken + " answered with 400 Bad Request"},
		{[]string{"push", "--docker-config", "bad.json", "good.wasm", dead + "/a"}, sock, 1, "limpet: registry credentials: bad.json: unexpected end of JSON input"},
		{[]string{"push", "--hosts-dir", hosts("server = \"" + secure.URL + "\""), "good.wasm", "r.example/a"}, sock, 1,
			"limpet: push r.example/a:latest: registry unavailable: " + secure.URL + ": tls: failed to verify certificate: x509: certificate signed by unknown authority; name the authority that signed its certificate as ca in the registry's hosts.toml"},
		{[]string{"inspect", "--registry", "--hosts-dir", hosts("server = \"" + secure.URL + "\"\nca = \"ca.pem\""), "r.example/a"}, sock, 1, "limpet: inspect r.example/a:latest: not in the registry"},

		{[]string{"inspect", "./none.wasm"}, sock, 1, "limpet: stat ./none.wasm: no such file or directory"},
		{[]string{"inspect", "BAD REF"}, sock, 1, `limpet: there is no file BAD REF, and it names no image: invalid image reference: "BAD REF": invalid reference format: repository name (library/BAD REF) must be lowercase`},
		{[]string{"inspect", none + "/a:b"}, sock, 1, "limpet: there is no file " + none + "/a:b; on this node: no such image; in the registry: inspect " + none + "/a:b: not in the registry"},
		{[]string{"inspect", none + "/a:b"}, away, 1, "limpet: there is no file " + none + "/a:b; on this node: no limpetd on " + away + ": start it, or say where it listens with --socket or LIMPET_SOCKET; in the registry: inspect " + none + "/a:b: not in the registry"},
		{[]string{"inspect", "--registry", none + "/a:b"}, sock, 1, "limpet: inspect " + none + "/a:b: not in the registry"},
		{[]string{"inspect", strings.Repeat("0", 64)}, sock, 1, "limpet: there is no file " + strings.Repeat("0", 64) + ", and an id is known on its node alone: no such image"},

		{[]string{"import", "none.tar"}, sock, 1, "limpet: stat none.tar: no such file or directory"},
		{[]string{"import", "dir"}, sock, 1, "limpet: dir is a folder without an OCI layout (no oci-layout file in it): name a layout or an archive"},
		{[]string{"import", "good.wasm"}, away, 1, "limpet: no limpetd on " + away + ": start it, or say where it listens with --socket or LIMPET_SOCKET"},
		{[]string{"images"}, "good.wasm", 1, `limpet: "good.wasm" is no socket: say where limpetd listens with --socket or LIMPET_SOCKET`},
		{[]string{"ps"}, "dir", 1, `limpet: "dir" is no socket: say where limpetd listens with --socket or LIMPET_SOCKET`},
		{[]string{"images"}, "unix://" + away, 1, "limpet: no limpetd on " + away + ": start it, or say where it listens with --socket or LIMPET_SOCKET"},
		{[]string{"images"}, away, 1, "limpet: no limpetd on " + away + ": start it, or say where it listens with --socket or LIMPET_SOCKET"},
	} {
		code, out, errs := call(t, c.socket, "", c.args...)
		lines := strings.Split(strings.TrimSuffix(errs, "\n"), "\n")
		if lines[0] == "push" {
			lines = lines[1:] // how far it came
		}
		end, partly := strings.CutPrefix(c.says, "...")
		if said := strings.Join(lines, "\n"); code != c.code || out != "" || said != c.says && (!partly || !strings.HasSuffix(said, end)) {
			t.Errorf("limpet %q: code %d, output %q, errors\n%s\nwant code %d and\n%s", c.args, code, out, said, c.code, c.says)
		}
	}
	// A wrong flag takes two lines: what is wrong, and what is right.
	for _, c := range []struct{ args, says string }{
		{"push --annotation x good.wasm r.example/a", `limpet: push: invalid value "x" for flag -annotation: wanted KEY=VALUE`},
		{"push --docker-config none good.wasm r.example/a", `limpet: push: invalid value "none" for flag -docker-config: stat none: no such file or directory`},
		{"inspect --hosts-dir none r.example/a", `limpet: inspect: invalid value "none" for flag -hosts-dir: stat none: no such file or directory`},
		{"ps --al", "limpet: ps: flag provided but not defined: -al"},
	} {
		args := strings.Fields(c.args)
		code, _, errs := call(t, sock, "", args...)
		said, usage, _ := strings.Cut(errs, "\n")
		if code != 2 || said != c.says || !strings.HasPrefix(usage, "usage: limpet "+args[0]) {
			t.Errorf("limpet %s: code %d, %s", c.args, code, errs)
		}
	}
}

// TestHostEngine: without a limpetd, the engine is that of the host beside
// the tool.
func TestHostEngine(t *testing.T) {
	dir := t.TempDir()
	host := filepath.Join(dir, "limpet-host")
	if err := os.WriteFile(host, []byte("#!/bin/sh\n[ \"$1\" = version ] && echo wasmtime 1.2.3, supported until tomorrow\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{host: "engine  wasmtime 1.2.3, supported until tomorrow, in " + host, filepath.Join(dir, "none"): ""} {
		var out strings.Builder
		a := &app{out: &out, err: &out, socket: filepath.Join(dir, "no-socket"), host: path}
		code := a.main(t.Context(), []string{"version"})
		if code != 0 || !strings.Contains(out.String(), want) || want == "" && strings.Contains(out.String(), "engine") {
			t.Errorf("code %d, %s; want %q", code, out.String(), want)
		}
	}
}
