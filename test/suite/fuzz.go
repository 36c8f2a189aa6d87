package main

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// target is one fuzz target: a package folder and a function.
type target struct{ dir, name string }

// fuzzTargets finds the targets by reading the source, in the order of the
// tree. Modules of their own are left out.
func fuzzTargets(root string) ([]target, error) {
	var found []target
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil && p != root || strings.HasPrefix(d.Name(), ".") && p != root {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Fuzz") {
				found = append(found, target{filepath.Dir(p), fn.Name.Name})
			}
		}
		return nil
	})
	return found, err
}

// fuzzAll runs every target for d and counts each as one test.
func fuzzAll(out io.Writer, d time.Duration) (sum, error) {
	targets, err := fuzzTargets(".")
	if err != nil {
		return sum{}, err
	}
	if len(targets) == 0 {
		return broken(out, errNothing), nil
	}
	var s sum
	for _, t := range targets {
		start := time.Now()
		name := t.dir + " " + t.name
		text, err := fuzz(t, d)
		if err != nil && endedLate(text) {
			fmt.Fprintf(out, "     %s: its time ran out in a way that the go command takes for a failure, no input failed: once more\n", name)
			text, err = fuzz(t, d)
		}
		if err != nil {
			s.Failed++
			fmt.Fprintf(out, "--- FAIL %s\n%s", name, text)
			continue
		}
		s.Passed++
		fmt.Fprintf(out, "ok   %s (%.1f s)\n", name, time.Since(start).Seconds())
	}
	return s, nil
}

// minimize bounds how long an input that reaches something new is made
// shorter. By default that is a minute for each, in which a target whose inputs
// are some kilobytes, such as archives, tries nothing else.
const minimize = "-fuzzminimizetime=100x"

func fuzz(t target, d time.Duration) ([]byte, error) {
	return exec.Command("go", "test", "-run=^$", "-fuzz=^"+t.name+"$", "-fuzztime="+d.String(), minimize, "./"+t.dir).CombinedOutput()
}

// endedLate tells the end of -fuzztime from an input that fails. Before Go
// 1.27 the two race (go.dev/issue/75804): a target that has found nothing is
// then reported with the error of its own context, and nothing else.
func endedLate(text []byte) bool {
	var under []string // the lines between the verdict and the closing FAIL
	_, rest, found := strings.Cut("\n"+string(text), "\n--- FAIL: ")
	if !found {
		return false
	}
	for i, line := range strings.Split(rest, "\n") {
		if line == "FAIL" {
			break
		}
		if line = strings.TrimSpace(line); i > 0 && line != "" {
			under = append(under, line)
		}
	}
	return len(under) == 1 && under[0] == context.DeadlineExceeded.Error()
}
