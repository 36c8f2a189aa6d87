package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRealFailures runs the go command on modules that go wrong in each way in
// which tests do, and wants every one of them counted, told, and failed.
func TestRealFailures(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		args  []string
		want  string
		tells []string
	}{
		"all is well": {
			files: map[string]string{"a_test.go": "package m\nimport \"testing\"\nfunc TestA(t *testing.T) {}\nfunc TestB(t *testing.T) { t.Skip(\"no fish\") }\n"},
			want:  "1 passed, 0 failed, 1 skipped", tells: []string{"m TestB: no fish"},
		},
		"does not build": {
			files: map[string]string{"a.go": "package m\nvar _ = nowhere\n", "a_test.go": "package m\nimport \"testing\"\nfunc TestA(t *testing.T) {}\n"},
			want:  "0 passed, 1 failed, 0 skipped", tells: []string{"does not build", "undefined: nowhere"},
		},
		"an import that is not there": {
			files: map[string]string{"a_test.go": "package m\nimport _ \"m/nothing\"\n"},
			want:  "0 passed, 1 failed, 0 skipped", tells: []string{"m/nothing"},
		},
		"a panic": {
			files: map[string]string{"a_test.go": "package m\nimport \"testing\"\nfunc TestA(t *testing.T) {}\nfunc TestB(t *testing.T) { panic(\"oh\") }\n"},
			want:  "1 passed, 1 failed, 0 skipped", tells: []string{"m TestB", "panic: oh"},
		},
		"a panic outside the tests": {
			files: map[string]string{"a_test.go": "package m\nimport \"testing\"\nfunc TestMain(m *testing.M) { panic(\"early\") }\n"},
			want:  "0 passed, 1 failed, 0 skipped", tells: []string{"panic: early"},
		},
		"an exit in the middle": {
			files: map[string]string{"a_test.go": "package m\nimport (\"os\"; \"testing\")\nfunc TestA(t *testing.T) { os.Exit(1) }\n"},
			want:  "0 passed, 1 failed, 0 skipped", tells: []string{"m TestA did not end"},
		},
		"a timeout after a failure": {
			files: map[string]string{"a_test.go": "package m\nimport \"testing\"\nfunc TestA(t *testing.T) { t.Error(\"bad\") }\nfunc TestB(t *testing.T) { t.Run(\"deep\", func(*testing.T) { select {} }) }\n"},
			args:  []string{"-timeout", "1s"},
			want:  "0 passed, 2 failed, 0 skipped", tells: []string{"m TestA", "m TestB/deep did not end", "timed out"},
		},
		"no test fits": {
			files: map[string]string{"a_test.go": "package m\nimport \"testing\"\nfunc TestA(t *testing.T) {}\n"},
			args:  []string{"-run", "Nothing"},
			want:  "0 passed, 1 failed, 0 skipped", tells: []string{"no test was run"},
		},
		"a group that is skipped": {
			files: map[string]string{"a_test.go": "package m\nimport \"testing\"\nfunc TestA(t *testing.T) { t.Run(\"one\", func(*testing.T) {}); t.Skip(\"no second\") }\n"},
			want:  "1 passed, 0 failed, 1 skipped", tells: []string{"m TestA: no second"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			c.files["go.mod"] = "module m\n\ngo 1.26\n"
			for file, text := range c.files {
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			var out strings.Builder
			err := run(append([]string{"test", "s"}, append(c.args, "./...")...), &out)
			if failed := !strings.Contains(c.want, " 0 failed"); (err != nil) != failed {
				t.Errorf("ends with %v, want an error: %v", err, failed)
			}
			if !strings.HasSuffix(out.String(), "s: "+c.want+"\n") {
				t.Errorf("want it to close with %q:\n%s", c.want, out.String())
			}
			for _, text := range c.tells {
				if !strings.Contains(out.String(), text) {
					t.Errorf("the output lacks %q:\n%s", text, out.String())
				}
			}
			if kept, _ := os.ReadFile(filepath.Join(sumsDir, "s")); string(kept) != c.want+"\n" {
				t.Errorf("kept %q, want %q", kept, c.want)
			}
		})
	}
}

// A failing input fails its target, and that one only.
func TestRealFuzz(t *testing.T) {
	t.Chdir(t.TempDir())
	for file, text := range map[string]string{
		"go.mod": "module m\n\ngo 1.26\n",
		"a_test.go": "package m\nimport \"testing\"\n" +
			"func FuzzGood(f *testing.F) { f.Fuzz(func(t *testing.T, b []byte) {}) }\n" +
			"func FuzzBad(f *testing.F) { f.Add(\"x\"); f.Fuzz(func(t *testing.T, s string) { t.Fatal(\"context deadline exceeded\") }) }\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	if err := run([]string{"fuzz", "s", "100ms"}, &out); err == nil {
		t.Error("it passes")
	}
	for _, want := range []string{"ok   . FuzzGood", "--- FAIL . FuzzBad", "s: 1 passed, 1 failed, 0 skipped\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "once more") {
		t.Errorf("a failing input is tried again:\n%s", out.String())
	}
}

// A run that is cut short leaves no sum, though an earlier one did.
func TestEarlierSum(t *testing.T) {
	t.Chdir(t.TempDir())
	var out strings.Builder
	if err := closeSuite(&out, "s", sum{Passed: 7}); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"fuzz", "s", "no duration"}, &out); err == nil {
		t.Fatal("a wrong duration is accepted")
	}
	if err := sumUp(&out, []string{"s"}); err == nil {
		t.Errorf("the sum of the earlier run counts:\n%s", out.String())
	}
}
