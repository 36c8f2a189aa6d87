package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNeedGo runs need-go.sh with go commands of every age: who has too old a
// one is told what is needed and where it is, before anything is built.
func TestNeedGo(t *testing.T) {
	wanted := ""
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(mod)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l), "go "); ok {
			wanted = v[:strings.LastIndexByte(v, '.')]
		}
	}
	for name, c := range map[string]struct {
		says string // the shell script that is the go command
		good bool
		told string
	}{
		"none":                {"", false, "there is no go command"},
		"Debian 12":           {"echo go1.19.8", false, "is Go 1.19.8"},
		"Debian 13, no fetch": {"echo 'go: go.mod requires go >= 1.26.6 (running go 1.24.4; GOTOOLCHAIN=local)'; exit 1", false, "running go 1.24.4"},
		"fetched":             {"echo go" + wanted + ".1", true, ""},
		"newer":               {"echo go1.100.2", true, ""},
		"next major":          {"echo go2.0", true, ""},
		"release candidate":   {"echo go" + wanted + "rc1", true, ""},
		"development":         {"echo 'devel go1.27-abcdef'", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			if c.says != "" {
				if err := os.WriteFile(filepath.Join(bin, "gogo"), []byte("#!/bin/sh\n"+c.says+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("./need-go.sh", "gogo")
			cmd.Env = append(os.Environ(), "PATH="+bin+":/usr/bin:/bin")
			out, err := cmd.CombinedOutput()
			if good := err == nil; good != c.good {
				t.Fatalf("good: %v, want %v: %s", good, c.good, out)
			}
			if c.good {
				if len(out) > 0 {
					t.Errorf("it says %q where all is well", out)
				}
				return
			}
			for _, want := range []string{c.told, "Go " + wanted + " or newer is needed", "https://go.dev/dl"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("the message lacks %q: %s", want, out)
				}
			}
			if lines := strings.Count(string(out), "\n"); lines != 1 {
				t.Errorf("%d lines, want one: %s", lines, out)
			}
		})
	}
}
