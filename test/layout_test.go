// Package test holds what concerns the whole tree: the rule of who may import
// whom, and below it the demo, the end-to-end tests and the bench.
//
// It parses the source itself. A test that asks the go command still passes
// from the test cache after the tree has changed.
package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/limpet-cri/limpet"

// rooms is the tree: each package and what of ours it may import. A name that
// ends in /... stands for the package and everything below it. A package that
// is not here fails the test: a new room is a decision, and this is where it
// is written down.
var rooms = map[string][]string{
	"cmd/limpetd":     {"cri/...", "image/...", "shim", "shim/cgroup", "shim/record", "shim/spec"},
	"cmd/limpet-host": {"shim/host"},
	"cmd/limpet":      {"cri/admin", "image/...", "shim/record", "shim/spec", "wasm/binary"},

	// The edge names everybody's errors in its one table of codes (codes.go),
	// and calls none but pod and image.
	"cri":           {"cri/admin", "cri/pod", "cri/streaming", "cri/upstream", "image", "cri/network", "shim", "shim/cgroup", "shim/record"},
	"cri/admin":     {},
	"cri/pod":       {"image", "shim", "shim/cgroup", "shim/record", "shim/spec", "cri/network"},
	"cri/network":   {"shim/thread"},
	"cri/streaming": {},
	"cri/upstream":  {},

	"shim":                        {"shim/spec", "shim/record", "shim/cgroup", "shim/confine", "shim/confine/filter"},
	"shim/spec":                   {},
	"shim/record":                 {},
	"shim/cgroup":                 {"shim/spec"},
	"shim/confine":                {"shim/spec", "shim/thread"},
	"shim/confine/filter":         {},
	"shim/confine/internal/probe": {"shim/confine", "shim/spec"},
	"shim/logs":                   {},
	"shim/thread":                 {},
	"shim/host":                   {"shim/spec", "shim/confine", "shim/logs", "shim/toolbox", "wasm/..."},
	"shim/toolbox":                {"wasm/wasi"},

	"image":            {"image/...", "wasm/binary"},
	"image/reference":  {},
	"image/registry":   {"image/reference"},
	"image/content":    {},
	"image/artifact":   {"wasm/binary"},
	"image/unpack":     {"image/content"},
	"image/policy":     {"image/reference", "image/registry"},
	"image/bindle":     {"image/reference"},
	"image/precompile": {"image/content"},

	"wasm":           {},
	"wasm/binary":    {},
	"wasm/wasmtime":  {"wasm"},
	"wasm/wasi":      {"wasm"},
	"wasm/wasip1":    {"wasm", "wasm/wasi"},
	"wasm/component": {"wasm", "wasm/binary"},
	"wasm/wasip2":    {"wasm", "wasm/wasi", "wasm/component"},
	"wasm/wasip3":    {"wasm", "wasm/wasi", "wasm/component"},
	"wasm/http":      {"wasm", "wasm/wasi", "wasm/component", "wasm/wasip2", "wasm/wasip3"},

	"test/...":     {"..."},
	"guests/...":   {},
	"guests/build": {"wasm/wasmtime"},
}

// foreign is who may import what is not ours. Prefixes; the longest wins.
var foreign = map[string][]string{
	"k8s.io/cri-api":                            {"cri", "cri/pod", "cri/upstream", "cmd/limpet", "test/..."},
	"google.golang.org/grpc/codes":              {"cri", "cri/upstream", "cmd/limpet", "test/..."},
	"google.golang.org/grpc/status":             {"cri", "cri/upstream", "cmd/limpet", "test/..."},
	"google.golang.org/grpc":                    {"cri", "cri/admin", "cri/upstream", "cmd/limpet", "cmd/limpetd", "test/..."},
	"github.com/bytecodealliance/wasmtime-go":   {"wasm/wasmtime"},
	"github.com/elastic/go-seccomp-bpf":         {"shim/confine/filter"},
	"github.com/vishvananda/netlink":            {"cri/network", "test/..."},
	"github.com/containerd/containerd":          {"image/..."},
	"github.com/google/go-containerregistry":    {"image/...", "cmd/limpet", "test/..."},
	"github.com/pelletier/go-toml":              {"cmd/limpetd", "cri/...", "image/..."},
	"github.com/prometheus/client_golang":       {"cmd/limpetd", "cri"},
	"go.etcd.io/bbolt":                          {"image/..."},
	"k8s.io/kubernetes":                         {},
	"github.com/docker":                         {},
	"github.com/bytecodealliance/wasm-tools-go": {},
	// cgo is an import too.
	"C": {"wasm/wasmtime", "shim/confine"},
	// So is unsafe. Outside of the two with C it hands buffers to system calls
	// that have no wrapper (getdents64, poll, pidfd_open's info, writev without
	// an allocation), and in wasip1 it views strings of the guest's memory.
	"unsafe": {"wasm/wasmtime", "shim/confine", "shim", "shim/logs", "wasm/wasi", "wasm/wasip1"},
}

// hosted are the packages linked into limpet-host's run path. What they import
// costs memory in every container, so these stay out.
var (
	hosted = []string{"cmd/limpet-host", "shim/host", "shim/logs", "shim/confine", "shim/spec",
		"wasm", "wasm/wasi", "wasm/wasip1", "wasm/wasmtime"}
	heavy = []string{"fmt", "net", "encoding/json", "log", "os/exec", "crypto/tls", "regexp", "flag", "text/template"}
)

// homeless are names under which everything and nothing can be put.
var homeless = []string{"util", "utils", "common", "types", "helpers", "helper", "misc", "base", "lib", "pkg"}

type source struct {
	file    string
	test    bool
	doc     string
	imports []string
}

// tree parses every Go file of this module and returns them by folder.
// Folders with a go.mod of their own are other modules and left out.
func tree(t *testing.T) map[string][]source {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]source{}
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return enter(p, rel, d.Name())
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		s, err := parse(p)
		if err != nil {
			return err
		}
		dir := path.Dir(filepath.ToSlash(rel))
		found[dir] = append(found[dir], s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func enter(p, rel, name string) error {
	if rel == "." {
		return nil
	}
	if strings.HasPrefix(name, ".") || name == "testdata" || rel == "build" || rel == "bin" {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

func parse(p string) (source, error) {
	f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return source{}, err
	}
	s := source{file: p, test: strings.HasSuffix(p, "_test.go")}
	if f.Doc != nil && !ast.IsGenerated(f) {
		s.doc = f.Doc.Text()
	}
	for _, i := range f.Imports {
		v, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return source{}, err
		}
		s.imports = append(s.imports, v)
	}
	return s, nil
}

// within reports whether room is in the list, /... and ... included.
func within(room string, list []string) bool {
	return slices.ContainsFunc(list, func(l string) bool {
		base, deep := strings.CutSuffix(l, "/...")
		return l == "..." || room == base || deep && strings.HasPrefix(room, base+"/")
	})
}

// below reports whether the import path is p or lies below it, a major
// version's folder included.
func below(imp, p string) bool { return imp == p || strings.HasPrefix(imp, p+"/") }

// allowed returns what room may import of ours.
func allowed(room string) ([]string, bool) {
	if a, ok := rooms[room]; ok {
		return a, true
	}
	for _, r := range sortedKeys(rooms) {
		if strings.HasSuffix(r, "/...") && within(room, []string{r}) {
			return rooms[r], true
		}
	}
	return nil, false
}

func sortedKeys[V any](m map[string]V) []string {
	k := make([]string, 0, len(m))
	for n := range m {
		k = append(k, n)
	}
	sort.Strings(k)
	return k
}

func TestEveryRoomIsKnown(t *testing.T) {
	found := tree(t)
	for _, dir := range sortedKeys(found) {
		if _, ok := allowed(dir); !ok {
			t.Errorf("%s is no room of the tree: put the code where it belongs, or add the room (and why) to rooms", dir)
		}
		for _, part := range strings.Split(dir, "/") {
			if slices.Contains(homeless, part) {
				t.Errorf("%s: a package named %q says nothing; a helper belongs to its one caller", dir, part)
			}
		}
	}
}

func TestImportsOfOurs(t *testing.T) {
	found := tree(t)
	for _, dir := range sortedKeys(found) {
		may, ok := allowed(dir)
		if !ok {
			continue // reported by TestEveryRoomIsKnown
		}
		for _, s := range found[dir] {
			for _, imp := range s.imports {
				ours, is := strings.CutPrefix(imp, module+"/")
				if !is || s.test || within(ours, may) {
					continue
				}
				t.Errorf("%s: %s may not import %s; it may import %v", s.file, dir, ours, may)
			}
		}
	}
}

func TestImportsOfOthers(t *testing.T) {
	found := tree(t)
	for _, dir := range sortedKeys(found) {
		for _, s := range found[dir] {
			for _, imp := range s.imports {
				rule := ""
				for p := range foreign {
					if below(imp, p) && len(p) > len(rule) {
						rule = p
					}
				}
				if rule == "" || within(dir, foreign[rule]) {
					continue
				}
				// Tests may be clients of anything but the engine and C.
				if s.test && rule != "C" && !strings.Contains(rule, "wasmtime-go") {
					continue
				}
				t.Errorf("%s: %s may not import %q; that is for %v", s.file, dir, imp, foreign[rule])
			}
		}
	}
}

func TestHostStaysSmall(t *testing.T) {
	found := tree(t)
	for _, dir := range hosted {
		for _, s := range found[dir] {
			for _, imp := range s.imports {
				if s.test {
					continue
				}
				for _, h := range heavy {
					if below(imp, h) {
						t.Errorf("%s imports %q: %s is linked into limpet-host, where every container pays for it", s.file, imp, dir)
					}
				}
			}
		}
	}
}

func TestPackageComments(t *testing.T) {
	found := tree(t)
	for _, dir := range sortedKeys(found) {
		documented := slices.ContainsFunc(found[dir], func(s source) bool {
			first, _, _ := strings.Cut(s.doc, " ")
			return first == "Package" || first == "Command" || strings.EqualFold(first, path.Base(dir))
		})
		if !documented {
			t.Errorf("%s has no package comment: what does it own, what does it never do, in which order are its locks taken?", dir)
		}
	}
}

func TestNoCycle(t *testing.T) {
	found := tree(t)
	edges := map[string][]string{}
	for dir, sources := range found {
		for _, s := range sources {
			if s.test {
				continue
			}
			for _, imp := range s.imports {
				if ours, is := strings.CutPrefix(imp, module+"/"); is {
					edges[dir] = append(edges[dir], ours)
				}
			}
		}
	}
	const entered, left = 1, 2
	state := map[string]int{}
	var visit func(dir string, way []string)
	visit = func(dir string, way []string) {
		way = append(way, dir)
		switch state[dir] {
		case left:
			return
		case entered:
			t.Errorf("cycle: %s", strings.Join(way, " -> "))
			return
		}
		state[dir] = entered
		for _, to := range edges[dir] {
			visit(to, way)
		}
		state[dir] = left
	}
	for _, dir := range sortedKeys(edges) {
		visit(dir, nil)
	}
}

// TestRules shows that each rule bites: a rule that no file can break is not
// held by anything.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		room, imp string
		want      bool
	}{
		{"image", "shim", false},
		{"shim", "image", false},
		{"cmd/limpetd", "shim/host", false},
		{"cmd/limpetd", "image/registry", true},
		{"shim/host", "shim/confine/filter", false},
		{"shim/host", "wasm/wasmtime", true},
		{"wasm/wasip1", "wasm/wasmtime", false},
		{"test/e2e", "cri/pod", true},
		{"guests/hello", "wasm", false},
	} {
		may, _ := allowed(c.room)
		if got := within(c.imp, may); got != c.want {
			t.Errorf("%s imports %s: allowed %v, want %v", c.room, c.imp, got, c.want)
		}
	}
}
