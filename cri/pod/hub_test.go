package pod_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/limpet-cri/limpet/wasm/wasmtime"
)

// guest wraps the body of _start in a module that can print, sleep and exit.
func guest(body string, more ...string) string {
	return `(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 4096) "0000000\n")
  (func $print (param $at i32) (param $len i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $len))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func $sleep (param $ns i64)
    (i32.store8 (i32.const 1032) (i32.const 0))
    (i32.store (i32.const 1040) (i32.const 1))
    (i64.store (i32.const 1048) (local.get $ns))
    (drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1) (i32.const 8))))
  (func $increment (local $p i32)
    (local.set $p (i32.const 4102))
    (loop $carry
      (i32.store8 (local.get $p) (i32.add (i32.load8_u (local.get $p)) (i32.const 1)))
      (if (i32.gt_u (i32.load8_u (local.get $p)) (i32.const 57)) (then
        (i32.store8 (local.get $p) (i32.const 48))
        (local.set $p (i32.sub (local.get $p) (i32.const 1)))
        (br $carry)))))
` + strings.Join(more, "\n") + `
  (func (export "_start") ` + body + `))`
}

// The guests, by the name of their image.
var guests = map[string]string{
	// count prints 0000000, 0000001, ... about one every two milliseconds.
	"count": guest(`(loop (call $print (i32.const 4096) (i32.const 8)) (call $increment) (call $sleep (i64.const 2000000)) (br 0))`),
	// idle waits for ever.
	"idle":  guest(`(call $print (i32.const 4096) (i32.const 8)) (loop (call $sleep (i64.const 3600000000000)) (br 0))`),
	"spin":  guest(`(call $print (i32.const 4096) (i32.const 8)) (loop (br 0))`),
	"exit7": guest(`(call $print (i32.const 4096) (i32.const 8)) (call $proc_exit (i32.const 7))`),
	"hello": guest(`(call $print (i32.const 4096) (i32.const 8))`),
	// late ends with 7 after half a second.
	"late": guest(`(call $print (i32.const 4096) (i32.const 8)) (call $sleep (i64.const 500000000)) (call $proc_exit (i32.const 7))`),
	"trap": guest(`(call $deep)`, `(func $deep unreachable)`),
	// fill takes and touches all the memory it can get, then exits with 3.
	"fill": guest(`(local $at i32)
	  (local.set $at (i32.const 65536))
	  (loop $more
	    (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then (call $proc_exit (i32.const 3))))
	    (loop $page
	      (i32.store (local.get $at) (i32.const 1))
	      (local.set $at (i32.add (local.get $at) (i32.const 4096)))
	      (br_if $page (i32.and (local.get $at) (i32.const 65535))))
	    (br $more))`),
	// stretch takes a MiB after the other, does not touch it, tries again each
	// millisecond, and prints how many it has whenever it got more.
	"stretch": guest(`(local $new i32)
	  (loop $try
	    (local.set $new (i32.const 0))
	    (loop $more (if (i32.ne (memory.grow (i32.const 16)) (i32.const -1)) (then
	      (call $increment) (local.set $new (i32.const 1)) (br $more))))
	    (if (local.get $new) (then (call $print (i32.const 4096) (i32.const 8))))
	    (call $sleep (i64.const 1000000))
	    (br $try))`),
	// hold takes and touches 40 MiB, says so, and waits.
	"hold": guest(`(local $at i32)
	  (drop (memory.grow (i32.const 640)))
	  (local.set $at (i32.const 65536))
	  (loop $page
	    (i32.store (local.get $at) (i32.const 1))
	    (local.set $at (i32.add (local.get $at) (i32.const 4096)))
	    (br_if $page (i32.lt_u (local.get $at) (i32.const 41943040))))
	  (call $print (i32.const 4096) (i32.const 8))
	  (loop (call $sleep (i64.const 3600000000000)) (br 0))`),
	// foreign is a module that no host can link.
	"foreign": `(module (import "env" "magic" (func)) (func (export "_start")))`,
	// grow exits with 3 when memory cannot grow to 512 MiB.
	"grow": guest(`(if (i32.eq (memory.grow (i32.const 8192)) (i32.const -1)) (then (call $proc_exit (i32.const 3))))`),
}

// hub is a registry on loopback with an image of every guest.
type hub struct{ host string }

func newHub(t testing.TB) hub {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo))))
	t.Cleanup(s.Close)
	h := hub{strings.TrimPrefix(s.URL, "http://")}
	for n, wat := range guests {
		module, err := wasmtime.Wat([]byte(wat))
		if err != nil {
			t.Fatalf("%s: %v", n, err)
		}
		h.push(t, n, module)
		if n == "idle" {
			h.pushRoot(t, "files", module)
		}
	}
	return h
}

func (h hub) ref(guest string) string { return h.host + "/guests/" + guest + ":1" }

// push pushes an artifact as the CNCF's TAG Runtime describes it.
func (h hub) push(t testing.TB, guest string, module []byte) {
	t.Helper()
	layer := h.blob(t, guest, module)
	config := h.blob(t, guest, fmt.Appendf(nil, `{"created":"2026-01-01T00:00:00Z","architecture":"wasm","os":"wasip1","layerDigests":[%q]}`, digestOf(module)))
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.wasm.config.v0+json",%s},"layers":[{"mediaType":"application/wasm",%s}]}`,
		manifestType, config, layer)
	h.send(t, http.MethodPut, "/v2/guests/"+guest+"/manifests/1", manifestType, []byte(manifest))
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// pushRoot pushes an image with a root file system that holds the module.
func (h hub) pushRoot(t testing.TB, guest string, module []byte) {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err := w.WriteHeader(&tar.Header{Name: "app.wasm", Mode: 0o755, Size: int64(len(module))})
	if err == nil {
		_, err = w.Write(module)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	config := fmt.Appendf(nil, `{"architecture":"wasm","os":"wasip1","config":{"Entrypoint":["/app.wasm"]},"rootfs":{"type":"layers","diff_ids":[%q]}}`, digestOf(layer.Bytes()))
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json",%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar",%s}]}`,
		manifestType, h.blob(t, guest, config), h.blob(t, guest, layer.Bytes()))
	h.send(t, http.MethodPut, "/v2/guests/"+guest+"/manifests/1", manifestType, []byte(manifest))
}

// blob uploads bytes and returns the part of a descriptor that they decide.
func (h hub) blob(t testing.TB, guest string, b []byte) string {
	t.Helper()
	h.send(t, http.MethodPost, "/v2/guests/"+guest+"/blobs/uploads/?digest="+digestOf(b), "application/octet-stream", b)
	return fmt.Sprintf(`"digest":%q,"size":%d`, digestOf(b), len(b))
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (h hub) send(t testing.TB, method, path, contentType string, b []byte) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, "http://"+h.host+path, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Content-Type", contentType)
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode > 299 {
		t.Fatalf("%s %s: %s", method, path, r.Status)
	}
}
