package cri

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/limpet-cri/limpet/cri/pod"
	"github.com/limpet-cri/limpet/image"
	"github.com/limpet-cri/limpet/shim"
)

const module = "github.com/limpet-cri/limpet/"

// TestEveryErrorHasACode compares the exported errors of the packages whose
// errors reach an RPC with those that codes.go names. It parses the source
// itself, so that an error cannot be added without a decision here.
func TestEveryErrorHasACode(t *testing.T) {
	declared := errorSet{names: map[string]bool{}, again: map[string]string{}, caught: map[string]bool{}}
	for _, dir := range []string{"pod", "network", "../shim", "../shim/cgroup", "../shim/record"} {
		declared.add(t, dir)
	}
	err := filepath.WalkDir("../image", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() != "testdata" {
			declared.add(t, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(declared.names) < 10 {
		t.Fatalf("only %d errors found: is this test run from its folder?", len(declared.names))
	}
	named := namedInTable(t)
	for name := range declared.names {
		if !named[name] && !named[declared.again[name]] && !declared.caught[name] {
			t.Errorf("%s has no code: give it one in codes.go", name)
		}
	}
	for name := range named {
		if !declared.names[name] {
			t.Errorf("codes.go names %s, which no package of the list declares", name)
		}
	}
}

// errorSet is the exported errors of some packages. Where one is declared as
// another package's (image.ErrAccess = registry.ErrAccess), again leads from
// that one to it. What package image tells apart of the packages below it
// (errors.Is) is caught: it leaves as an error of its own.
type errorSet struct {
	names, caught map[string]bool
	again         map[string]string
}

// add adds those of a folder: variables that begin with Err, types that end in
// Error.
func (e errorSet) add(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	pkg := path.Clean(path.Join("cri", filepath.ToSlash(dir)))
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		imports := ours(t, f)
		if pkg == "image" {
			e.addCaught(f, imports)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range g.Specs {
				e.addSpec(pkg, s, imports)
			}
		}
	}
}

func (e errorSet) addCaught(f *ast.File, imports map[string]string) {
	ast.Inspect(f, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok && len(c.Args) == 2 {
			if s, ok := c.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Is" {
				if name := selected(c.Args[1], imports); strings.HasPrefix(name, "image/") {
					e.caught[name] = true
				}
			}
		}
		return true
	})
}

func (e errorSet) addSpec(pkg string, s ast.Spec, imports map[string]string) {
	switch s := s.(type) {
	case *ast.ValueSpec:
		for i, n := range s.Names {
			if !n.IsExported() || !strings.HasPrefix(n.Name, "Err") {
				continue
			}
			e.names[pkg+"."+n.Name] = true
			if i < len(s.Values) {
				if of := selected(s.Values[i], imports); of != "" {
					e.again[of] = pkg + "." + n.Name
				}
			}
		}
	case *ast.TypeSpec:
		if s.Name.IsExported() && strings.HasSuffix(s.Name.Name, "Error") {
			e.names[pkg+"."+s.Name.Name] = true
		}
	}
}

// ours returns the imports of this module by the name they are used under.
func ours(t *testing.T, f *ast.File) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, i := range f.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if p, ok := strings.CutPrefix(p, module); ok {
			found[path.Base(p)] = p
		}
	}
	return found
}

// selected returns what PACKAGE.NAME of ours an expression is, or nothing.
func selected(n ast.Node, imports map[string]string) string {
	if s, ok := n.(*ast.SelectorExpr); ok {
		if x, ok := s.X.(*ast.Ident); ok && imports[x.Name] != "" {
			return imports[x.Name] + "." + s.Sel.Name
		}
	}
	return ""
}

// namedInTable returns what codes.go names of ours.
func namedInTable(t *testing.T) map[string]bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	imports, named := ours(t, f), map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		if name := selected(n, imports); name != "" {
			named[name] = true
		}
		return true
	})
	return named
}

func TestCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code codes.Code
		text string
	}{
		{nil, codes.OK, ""},
		{fmt.Errorf("container 12: %w", pod.ErrNotFound), codes.NotFound, "container 12: not found"},
		{fmt.Errorf("create: %w", &pod.FieldError{Field: "ContainerConfig.tty", Sentence: "no"}), codes.InvalidArgument, "create: ContainerConfig.tty is refused: no"},
		{fmt.Errorf("start: %w", pod.ErrBadPhase), codes.FailedPrecondition, "start: wrong phase"},
		{fmt.Errorf("pull a/b: %w", image.ErrUnavailable), codes.Unknown, "RegistryUnavailable: pull a/b: registry unavailable"},
		// A registry that does not answer in time is down; the pull's own
		// end of time must not hide it.
		{fmt.Errorf("pull a/b: %w: %w", image.ErrUnavailable, context.DeadlineExceeded), codes.Unknown, "RegistryUnavailable: pull a/b: registry unavailable: context deadline exceeded"},
		{fmt.Errorf("pull a/b: %w", image.ErrNotFound), codes.NotFound, "pull a/b: image is not on this node"},
		{fmt.Errorf("a: %w", image.ErrNotWasm), codes.FailedPrecondition, "a: not WebAssembly"},
		{fmt.Errorf("a: %w", shim.ErrHostFailed), codes.Internal, "a: host failed"},
		{fmt.Errorf("wait: %w", context.Canceled), codes.Canceled, "wait: context canceled"},
		{fmt.Errorf("wait: %w", context.DeadlineExceeded), codes.DeadlineExceeded, "wait: context deadline exceeded"},
		{status.Error(codes.Unimplemented, "no"), codes.Unimplemented, "no"},
		{errors.New("odd"), codes.Internal, "odd"},
		{fmt.Errorf("pull a/b: %w: %w", image.ErrCompile, unix.ENOSPC), codes.ResourceExhausted,
			"no room left on the node (limpetd's root or run folder): pull a/b: module does not compile: no space left on device"},
	} {
		s := status.Convert(toStatus(c.err))
		if s.Code() != c.code || s.Message() != c.text {
			t.Errorf("%v: got %s %q, want %s %q", c.err, s.Code(), s.Message(), c.code, c.text)
		}
	}
}
