package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// keys are those of the configuration: tables and dotted names, and the last
// names alone.
func keys(t *testing.T) (dotted, last map[string]bool) {
	t.Helper()
	var v map[string]any
	if err := toml.Unmarshal([]byte(run(t, "limpetd", "config", "default")), &v); err != nil {
		t.Fatal(err)
	}
	dotted, last = map[string]bool{}, map[string]bool{}
	var walk func(prefix string, m map[string]any)
	walk = func(prefix string, m map[string]any) {
		for k, v := range m {
			dotted[prefix+k], last[k] = true, true
			if inner, ok := v.(map[string]any); ok {
				walk(prefix+k+".", inner)
			}
		}
	}
	walk("", v)
	return dotted, last
}

// others look like keys of the configuration and are names of other things.
var others = []string{"wasi_unstable", "wasi_snapshot_preview1", "proc_exit", "no_new_privs", "_default", "imagefs", "log_directory", "config_check"}

// TestKeys wants every key of the configuration that the pages name to exist.
func TestKeys(t *testing.T) {
	dotted, last := keys(t)
	table := regexp.MustCompile(`^\[?((?:server|log|metrics|images|hosts|pods)(?:\.[A-Za-z_]+)*)\]?$`)
	snake := regexp.MustCompile(`^[a-z]+(_[a-z0-9]+)+$`)
	count := 0
	for _, p := range pages(t) {
		if p.File == "docs/cri-fields.md" || p.File == "docs/lifecycle.md" {
			continue // held to the CRI and to the code by tests of their own
		}
		for _, s := range p.Spans {
			name, _, assigned := strings.Cut(s.Text, " = ")
			if strings.HasPrefix(name, "limpet_") || name == "hosts.toml" {
				continue // a metric (TestNames), a file
			}
			if m := table.FindStringSubmatch(name); m != nil && (strings.ContainsAny(name, ".[") || assigned) {
				count++
				if k := strings.Replace(m[1], "handlers.NAME", "handlers.limpet", 1); !dotted[k] {
					t.Errorf("%s:%d: the configuration has no %s", p.File, s.Line, name)
				}
			} else if snake.MatchString(name) && !slices.Contains(others, name) {
				count++
				if !last[name] {
					t.Errorf("%s:%d: the configuration has no key %s", p.File, s.Line, name)
				}
			}
		}
	}
	if count < 9 {
		t.Errorf("only %d keys were found", count)
	}
}

// TestTOML hands each TOML block to limpetd, but for the hosts.toml: that one
// is in examples/, where the end-to-end tests pull through it.
func TestTOML(t *testing.T) {
	count := 0
	for _, p := range pages(t) {
		for _, b := range p.Blocks {
			if b.Language != "toml" {
				continue
			}
			count++
			text := strings.Join(b.Lines, "\n") + "\n"
			if rest, is := strings.CutPrefix(b.Lines[0], "# /etc/limpet/hosts/"); is {
				example, err := os.ReadFile(filepath.Join(root, "examples", "hosts", rest))
				if err != nil {
					t.Error(err)
				} else if bare(string(example)) != bare(text) {
					t.Errorf("%s:%d: this is not examples/hosts/%s", p.File, b.Line, rest)
				}
				continue
			}
			file := filepath.Join(t.TempDir(), "limpetd.toml")
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if out := run(t, "limpetd", "config", "check", file); !strings.HasSuffix(out, "is fine\n") {
				t.Errorf("%s:%d: %s", p.File, b.Line, out)
			}
		}
	}
	if count < 4 {
		t.Errorf("only %d blocks were found", count)
	}
}

// bare is a TOML text without comments and empty lines.
func bare(text string) string {
	var lines []string
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l != "" && l[0] != '#' {
			lines = append(lines, l)
		}
	}
	return strings.Join(lines, "\n")
}

// TestFaults makes the two faults whose messages docs/configuration.md shows.
func TestFaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "limpetd.toml")
	if err := os.WriteFile(file, []byte("[images]\n\nparalel = 4\n\n\n\nstall_window = \"20\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	said := strings.ReplaceAll(run(t, "limpetd", "config", "check", file), filepath.Dir(file)+"/", "")
	found := false
	for _, p := range pages(t) {
		for _, b := range p.Blocks {
			if !strings.HasPrefix(b.Lines[0], "limpetd: limpetd.toml:") {
				continue
			}
			found = true
			lines := strings.Split(strings.TrimSpace(said), "\n")
			if !slices.EqualFunc(b.Lines, lines, func(shown, said string) bool {
				begin, _, cut := strings.Cut(shown, "...")
				return shown == said || cut && strings.HasPrefix(said, begin)
			}) {
				t.Errorf("%s:%d: the page shows\n%s\nlimpetd says\n%s", p.File, b.Line, strings.Join(b.Lines, "\n"), said)
			}
		}
	}
	if !found {
		t.Error("no page shows what limpetd says")
	}
}
