package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestLinks wants every link between pages to lead somewhere, headings
// included.
func TestLinks(t *testing.T) {
	headings := func(file string) []string {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil
		}
		var all []string
		for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(b), -1) {
			slug := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
			all = append(all, strings.ReplaceAll(slug, " ", "-"))
		}
		return all
	}
	count := 0
	for _, p := range pages(t) {
		for _, l := range p.Links {
			if strings.Contains(l.Text, "://") {
				continue
			}
			count++
			target, heading, deep := strings.Cut(l.Text, "#")
			file := filepath.Join(root, filepath.Dir(p.File), target)
			if target == "" {
				file = filepath.Join(root, p.File)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s:%d: the link to %s leads nowhere", p.File, l.Line, l.Text)
			} else if deep && !slices.Contains(headings(file), heading) {
				t.Errorf("%s:%d: %s has no heading %s", p.File, l.Line, target, heading)
			}
		}
	}
	if count < 20 {
		t.Errorf("only %d links were found", count)
	}
}

var (
	treePath = regexp.MustCompile(`^(\.ci|cmd|cri|docs|examples|guests|image|packaging|shim|test|wasm)(/[\w.-]+)+/?$|^[A-Z]+\.md$|^(guests|examples|docs)/$`)
	// Platforms of images look like folders.
	platforms = []string{"wasm/wasm"}
)

// TestPaths wants every path that looks like one of the tree to be in it.
func TestPaths(t *testing.T) {
	count := 0
	for _, p := range pages(t) {
		check := func(line int, word string) {
			word = strings.Trim(word, "\"'(),;")
			if !treePath.MatchString(word) || slices.Contains(platforms, word) {
				return
			}
			count++
			if _, err := os.Stat(filepath.Join(root, word)); err != nil {
				t.Errorf("%s:%d: %s is not in the tree", p.File, line, word)
			}
		}
		for _, s := range p.Spans {
			for w := range strings.FieldsSeq(s.Text) {
				check(s.Line, w)
			}
		}
		for _, b := range p.Blocks {
			for i, l := range b.Lines {
				for w := range strings.FieldsSeq(l) {
					check(b.Line+i+1, w)
				}
			}
		}
	}
	if count < 40 {
		t.Errorf("only %d paths were found", count)
	}
}

// TestTreeOfArchitecture wants every package in the picture of the tree, and
// every line of the picture to be a folder.
func TestTreeOfArchitecture(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "## The tree")
	_, rest, _ = strings.Cut(rest, "```\n")
	picture, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("ARCHITECTURE.md has no picture of the tree")
	}
	var drawn []string
	for l := range strings.Lines(picture) {
		if l[0] != ' ' && l[0] != '\n' {
			drawn = append(drawn, strings.Fields(l)[0])
		}
	}
	for _, d := range drawn {
		if st, err := os.Stat(filepath.Join(root, d)); err != nil || !st.IsDir() {
			t.Errorf("%s is drawn and not there", d)
		}
	}
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		if d.IsDir() {
			if rel != "." && strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"test", "guests", "build", "bin", "testdata", "internal"}, d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if dir := filepath.Dir(rel); strings.HasSuffix(p, ".go") && !slices.Contains(drawn, dir) {
			drawn = append(drawn, dir) // told once
			t.Errorf("the package %s is not drawn", dir)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// source is every Go, Makefile and shell text of the tree but the tests of
// this package.
func source(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); p != root && strings.HasPrefix(n, ".") || n == "build" || n == "bin" || strings.HasSuffix(p, "test/docs") {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(p, ".go") || d.Name() == "Makefile" || strings.HasSuffix(p, ".yaml") {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			all.Write(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestNames wants the names that the pages use to exist: tests, metrics,
// annotations, variables of the environment.
func TestNames(t *testing.T) {
	text := source(t)
	for _, x := range []struct {
		what  string
		name  *regexp.Regexp
		least int
		there func(name string) bool
	}{
		{"test", regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`), 1, func(n string) bool { return strings.Contains(text, "func "+n+"(") }},
		{"metric", regexp.MustCompile(`\blimpet_[a-z_]+`), 9, func(n string) bool {
			return strings.Contains(text, `"`+n+`"`) || strings.Contains(text, `"`+strings.TrimPrefix(n, "limpet_")+`"`)
		}},
		{"variable", regexp.MustCompile(`\bLIMPET_[A-Z_]+`), 1, func(n string) bool { return strings.Contains(text, n) }},
		{"annotation or label", regexp.MustCompile(`limpet\.dev/[a-z-]+`), 3, func(n string) bool {
			return strings.Contains(text, n) || strings.Contains(text, `annotationDomain + "`+strings.TrimPrefix(n, "limpet.dev/")+`"`)
		}},
	} {
		seen := map[string]bool{}
		for _, p := range pages(t) {
			for _, n := range x.name.FindAllString(p.Text, -1) {
				if !seen[n] && !x.there(n) {
					t.Errorf("%s: there is no %s %s", p.File, x.what, n)
				}
				seen[n] = true
			}
		}
		if len(seen) < x.least {
			t.Errorf("only %d names of a %s were found", len(seen), x.what)
		}
	}
}
