package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const stream = `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"run","Package":"p","Test":"TestB/one"}
{"Action":"output","Package":"p","Test":"TestB/one","Output":"    b_test.go:7: it is broken\n"}
{"Action":"fail","Package":"p","Test":"TestB/one"}
{"Action":"run","Package":"p","Test":"TestB/two"}
{"Action":"pass","Package":"p","Test":"TestB/two"}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"run","Package":"p","Test":"TestC"}
{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:9: needs root\n"}
{"Action":"output","Package":"p","Test":"TestC","Output":"--- SKIP: TestC (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestC"}
{"Action":"fail","Package":"p"}
{"Action":"run","Package":"q","Test":"TestP"}
{"Action":"output","Package":"q","Output":"panic: oh\n"}
{"Action":"fail","Package":"q","Elapsed":0.1}
{"ImportPath":"r","Action":"build-output","Output":"r.go:1: nonsense\n"}
{"ImportPath":"r","Action":"build-fail"}
`

func TestCount(t *testing.T) {
	var out strings.Builder
	s := count(strings.NewReader(stream), &out)
	if got, want := s.line(), "2 passed, 3 failed, 1 skipped"; got != want {
		t.Errorf("counted %q, want %q", got, want)
	}
	for _, want := range []string{"it is broken", "panic: oh", "r.go:1: nonsense"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, out.String())
		}
	}
	if len(s.skips) != 1 || s.skips[0] != "p TestC: needs root" {
		t.Errorf("skips %q", s.skips)
	}
}

func TestSumUp(t *testing.T) {
	t.Chdir(t.TempDir())
	var out strings.Builder
	if err := closeSuite(&out, "a", sum{Passed: 3, Skipped: 1}); err != nil {
		t.Fatal(err)
	}
	if err := sumUp(&out, []string{"a"}); err != nil {
		t.Fatal(err)
	}
	if err := sumUp(&out, []string{"a", "missing"}); err == nil {
		t.Error("a suite that did not end counts as passed")
	}
	if !strings.HasSuffix(out.String(), "3 passed, 1 failed, 1 skipped\n") {
		t.Errorf("got %q", out.String())
	}
}

func TestFuzzTargets(t *testing.T) {
	dir := t.TempDir()
	text := "package x\nimport \"testing\"\nfunc FuzzIt(f *testing.F) {}\n"
	if err := os.WriteFile(filepath.Join(dir, "x_test.go"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := fuzzTargets(dir)
	if err != nil || len(got) != 1 || got[0].name != "FuzzIt" {
		t.Errorf("found %v, %v", got, err)
	}
}

func TestEndedLate(t *testing.T) {
	const before = "fuzz: elapsed: 3s, execs: 85393 (28462/sec), new interesting: 0 (total: 115)\n--- FAIL: FuzzIt (3.69s)\n"
	const after = "FAIL\nexit status 1\nFAIL\tm\t3.709s\n"
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"the time ran out":        {before + "    context deadline exceeded\n" + after, true},
		"a test that says so":     {before + "    a_test.go:4: context deadline exceeded\n" + after, false},
		"a failing input":         {before + "    context deadline exceeded\n    \n    Failing input written to testdata/fuzz/FuzzIt/1\n" + after, false},
		"another error":           {before + "    fuzzing process hung or terminated unexpectedly: exit status 2\n" + after, false},
		"nothing said":            {before + after, false},
		"does not build":          {"# m\n./a_test.go:3: context deadline exceeded\nFAIL\tm [build failed]\n", false},
		"no verdict":              {"context deadline exceeded\n", false},
		"passed":                  {"PASS\nok  \tm\t3.709s\n", false},
		"cut off after the error": {before + "    context deadline exceeded", true},
	} {
		if got := endedLate([]byte(c.text)); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
