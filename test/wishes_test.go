package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// files parses the product's own Go files of this module whole, by folder:
// tests, and what only tests and builds run, are left out.
func files(t *testing.T, fset *token.FileSet) map[string][]*ast.File {
	t.Helper()
	found := map[string][]*ast.File{}
	for dir, sources := range tree(t) {
		if strings.HasPrefix(dir, "test") || strings.HasPrefix(dir, "guests") || strings.Contains(dir, "internal/") {
			continue
		}
		for _, s := range sources {
			if s.test {
				continue
			}
			f, err := parser.ParseFile(fset, s.file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			found[dir] = append(found[dir], f)
		}
	}
	return found
}

// TestSealedSwitches: an interface with an unexported method that has no
// parameters and no results, and only marks, is a closed sum. A type switch
// over one of its types names every one of them, so that a new one fails here
// until each switch has decided about it.
func TestSealedSwitches(t *testing.T) {
	fset := token.NewFileSet()
	sums, switches := 0, 0
	for dir, parsed := range files(t, fset) {
		marks := map[string]bool{} // marker methods of sealed interfaces
		for _, f := range parsed {
			ast.Inspect(f, func(n ast.Node) bool {
				if i, ok := n.(*ast.InterfaceType); ok {
					for _, m := range i.Methods.List {
						if ft, ok := m.Type.(*ast.FuncType); ok && len(m.Names) == 1 && !m.Names[0].IsExported() && ft.Params.NumFields() == 0 && ft.Results.NumFields() == 0 {
							marks[m.Names[0].Name] = true
						}
					}
				}
				return true
			})
		}
		members := map[string][]string{} // by marker method
		for _, f := range parsed {
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || fn.Recv == nil || !marks[fn.Name.Name] || fn.Body == nil || len(fn.Body.List) > 0 {
					continue
				}
				if name, ok := fn.Recv.List[0].Type.(*ast.Ident); ok {
					members[fn.Name.Name] = append(members[fn.Name.Name], name.Name)
				}
			}
		}
		for _, types := range members {
			if len(types) < 2 {
				continue
			}
			sums++
			for _, f := range parsed {
				ast.Inspect(f, func(n ast.Node) bool {
					s, ok := n.(*ast.TypeSwitchStmt)
					if !ok {
						return true
					}
					if missing := missingCases(s, types); len(missing) > 0 && len(missing) < len(types) {
						t.Errorf("%s: %s: the switch says nothing of %s", fset.Position(s.Pos()), dir, strings.Join(missing, ", "))
					} else if len(missing) == 0 {
						switches++
					}
					return true
				})
			}
		}
	}
	if sums < 2 || switches < 4 {
		t.Errorf("%d sums and %d switches were found: the test does not read the code as it is written", sums, switches)
	}
}

// missingCases are the types that no case names.
func missingCases(s *ast.TypeSwitchStmt, types []string) []string {
	missing := slices.Clone(types)
	for _, c := range s.Body.List {
		for _, e := range c.(*ast.CaseClause).List {
			if id, ok := e.(*ast.Ident); ok {
				missing = slices.DeleteFunc(missing, func(t string) bool { return t == id.Name })
			}
		}
	}
	return missing
}

// TestNoInitNoPanic: nothing happens before main, and nothing that a guest, an
// image, a client or a file sends ends in a panic of ours.
func TestNoInitNoPanic(t *testing.T) {
	fset := token.NewFileSet()
	for _, parsed := range files(t, fset) {
		for _, f := range parsed {
			ast.Inspect(f, func(n ast.Node) bool {
				switch x := n.(type) {
				case *ast.FuncDecl:
					if x.Recv == nil && x.Name.Name == "init" {
						t.Errorf("%s: an init", fset.Position(x.Pos()))
					}
				case *ast.CallExpr:
					if id, ok := x.Fun.(*ast.Ident); ok && id.Name == "panic" {
						t.Errorf("%s: a panic", fset.Position(x.Pos()))
					}
				}
				return true
			})
		}
	}
}

// TestDependencies wants a reason in RATIONALE.md for each direct dependency,
// no reason without one, and no fork.
func TestDependencies(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../RATIONALE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(page), "## Dependencies")
	if !ok {
		t.Fatal("RATIONALE.md has no table of dependencies")
	}
	reasons := map[string]bool{} // as the table names them, and whether go.mod has them
	for _, m := range regexp.MustCompile(`(?m)^\| ([^|]+) \|`).FindAllStringSubmatch(table, -1) {
		for name := range strings.SplitSeq(braces(m[1]), ", ") {
			if strings.Contains(name, "/") {
				reasons[name] = false
			}
		}
	}
	for l := range strings.Lines(string(mod)) {
		l = strings.TrimPrefix(strings.TrimSpace(l), "require ")
		if strings.HasPrefix(l, "replace") {
			t.Errorf("go.mod: %s: no forks", l)
		}
		f := strings.Fields(l)
		if len(f) != 2 || !strings.HasPrefix(f[1], "v") {
			continue // indirect ones have a comment, and belong to others
		}
		name := regexp.MustCompile(`/v\d+$`).ReplaceAllString(strings.TrimPrefix(f[0], "github.com/"), "")
		name = strings.Replace(name, "go.etcd.io/", "etcd-io/", 1)
		if _, ok := reasons[name]; !ok {
			t.Errorf("RATIONALE.md gives no reason for %s", f[0])
		}
		reasons[name] = true
	}
	for name, there := range reasons {
		if !there {
			t.Errorf("RATIONALE.md gives a reason for %s, which go.mod does not require", name)
		}
	}
}

// braces writes a{b,c} as "ab, ac".
func braces(s string) string {
	m := regexp.MustCompile(`(\S*)\{([^}]*)\}`).FindStringSubmatch(s)
	if m == nil {
		return strings.TrimSpace(s)
	}
	var all []string
	for _, inner := range strings.Split(m[2], ",") {
		all = append(all, m[1]+inner)
	}
	return strings.Join(all, ", ")
}

// TestFuzzed wants a fuzz target in every package that reads what strangers
// send.
func TestFuzzed(t *testing.T) {
	for _, dir := range []string{"wasm/binary", "wasm/wasip1", "image/artifact", "image/reference", "image/registry", "image/unpack", "shim/record", "shim/spec", "shim/confine", "shim/logs", "shim/cgroup", "cmd/limpetd"} {
		tests, err := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(tests, func(f string) bool {
			b, err := os.ReadFile(f)
			return err == nil && regexp.MustCompile(`(?m)^func Fuzz[A-Z]`).Match(b)
		}) {
			t.Errorf("%s has no fuzz target", dir)
		}
	}
}
