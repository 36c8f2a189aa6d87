package wasmtime

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// include returns the folder of the engine's real headers: that of the library
// given at build time (WASMTIME_INCLUDE), or that of the bundled one.
func include(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("WASMTIME_INCLUDE"); dir != "" {
		return dir
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/bytecodealliance/wasmtime-go/v44").Output()
	if err != nil {
		t.Skip("needs the go tool to find the engine's headers: ", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "build", "include")
}

func compiler(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"cc", "gcc", "clang"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("needs a C compiler")
	return ""
}

// TestPrototypes compiles api.h after the real headers: a prototype that
// differs is an error of the compiler.
func TestPrototypes(t *testing.T) {
	cc, dir := compiler(t), include(t)
	check := func(source string) error {
		cmd := exec.Command(cc, "-x", "c", "-fsyntax-only", "-Werror", "-DLIMPET_REAL_HEADERS", "-I", dir, "-I", ".", "-")
		cmd.Stdin = strings.NewReader(source)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Logf("%s", out)
		}
		return err
	}
	if err := check("#include \"api.h\"\n"); err != nil {
		t.Fatal("api.h does not fit the engine's headers: ", err)
	}
	// The control: a wrong prototype must be seen.
	if check("#include \"api.h\"\nint wasmtime_module_delete(void);\n") == nil {
		t.Fatal("a wrong prototype went unseen")
	}
}

// TestEveryProposalIsSet: what the engine switches on by default changes from
// release to release, so that each switch it has is set by us.
func TestEveryProposalIsSet(t *testing.T) {
	header, err := os.ReadFile(filepath.Join(include(t), "wasmtime", "config.h"))
	if err != nil {
		t.Fatal(err)
	}
	glue, err := os.ReadFile("glue.c")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`WASMTIME_CONFIG_PROP\(void, (wasm_\w+|shared_memory|gc_support|concurrency_support), bool\)`).FindAllSubmatch(header, -1)
	if len(found) < 15 {
		t.Fatalf("the header has %d switches that this test understands", len(found))
	}
	for _, m := range found {
		if string(m[1]) == "wasm_component_model_map" {
			continue // a part of the component model, which is off
		}
		if !bytes.Contains(glue, []byte("wasmtime_config_"+string(m[1])+"_set(c, ")) {
			t.Errorf("%s is left to the engine", m[1])
		}
	}
}

// TestPrototypesComplete sees to it that every function in api.h is declared
// by the real headers too, and not only by us.
func TestPrototypesComplete(t *testing.T) {
	cc, dir := compiler(t), include(t)
	cmd := exec.Command(cc, "-x", "c", "-E", "-P", "-I", dir, "-")
	cmd.Stdin = strings.NewReader("#include <wasmtime.h>\n")
	real, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile("api.h")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, m := range regexp.MustCompile(`\b(wasm(?:time)?_[a-z0-9_]+)\(`).FindAllSubmatch(own, -1) {
		seen++
		if !bytes.Contains(real, append(m[1], '(')) {
			t.Errorf("%s is not declared by the engine's headers", m[1])
		}
	}
	if seen < 80 {
		t.Errorf("found %d functions only", seen)
	}
}

// TestLayout compares the sizes and offsets of everything passed by value and
// the numbers of constants.
func TestLayout(t *testing.T) {
	cc, dir := compiler(t), include(t)
	const program = `
#include "api.h"
#include <stdio.h>
#define SIZE(T) printf(#T " %zu\n", sizeof(T))
#define AT(T, F) printf(#T "." #F " %zu\n", offsetof(T, F))
#define NUM(N) printf(#N " %d\n", (int)N)
int main(void) {
  SIZE(wasm_byte_vec_t); AT(wasm_byte_vec_t, data);
  SIZE(wasm_valtype_vec_t); AT(wasm_valtype_vec_t, data);
  SIZE(wasm_frame_vec_t); AT(wasm_frame_vec_t, data);
  SIZE(wasm_importtype_vec_t); AT(wasm_importtype_vec_t, data);
  SIZE(wasm_exporttype_vec_t); AT(wasm_exporttype_vec_t, data);
  SIZE(wasmtime_instance_t);
  SIZE(wasmtime_func_t);
  SIZE(wasmtime_memory_t);
  SIZE(wasmtime_extern_t); AT(wasmtime_extern_t, of);
  SIZE(wasmtime_extern_union_t);
  SIZE(wasmtime_val_raw_t); AT(wasmtime_val_raw_t, i32); AT(wasmtime_val_raw_t, i64);
  NUM(WASMTIME_EXTERN_FUNC); NUM(WASMTIME_EXTERN_MEMORY);
  NUM(WASMTIME_STRATEGY_CRANELIFT); NUM(WASMTIME_OPT_LEVEL_SPEED);
  return 0;
}`
	run := func(flags ...string) string {
		bin := filepath.Join(t.TempDir(), "layout")
		cmd := exec.Command(cc, append(flags, "-x", "c", "-I", ".", "-o", bin, "-")...)
		cmd.Stdin = strings.NewReader(program)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		out, err := exec.Command(bin).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	own, real := run(), run("-DLIMPET_REAL_HEADERS", "-I", dir)
	if own != real {
		t.Errorf("own layout:\n%s\nthe engine's:\n%s", own, real)
	}
}

// TestVersion compares the version that this layer was written for with that
// of the headers.
func TestVersion(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(include(t), "wasmtime.h"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`#define WASMTIME_VERSION "([^"]+)"`).FindSubmatch(b)
	if m == nil || string(m[1]) != engineVersion {
		t.Errorf("the engine is %s, written for %s", m, engineVersion)
	}
}
