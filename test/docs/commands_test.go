package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

const root = "../.."

func pages(t *testing.T) []Page {
	t.Helper()
	p, err := Pages(root)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// programs builds limpet and limpetd once for all tests: those in bin/ may be
// older than the source.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "limpet-docs-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", dir, "../../cmd/limpet", "../../cmd/limpetd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	return dir, cmd.Run()
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := programs(); dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// run runs one of the programs and returns all that it says.
func run(t *testing.T, args ...string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	out, _ := exec.Command(filepath.Join(dir, args[0]), args[1:]...).CombinedOutput()
	return string(out)
}

// usageLines are the lines "  PROGRAM words   explanation" of a help text.
func usageLines(help, program string) [][]string {
	var lines [][]string
	for l := range strings.Lines(help) {
		l, _, _ = strings.Cut(strings.TrimSpace(l), "   ")
		if words := strings.Fields(l); len(words) > 1 && words[0] == program {
			lines = append(lines, words[1:])
		}
	}
	return lines
}

// TestLimpet holds each "limpet ..." of the pages to limpet's own help: the
// command, the number of its arguments, its flags.
func TestLimpet(t *testing.T) {
	synopses := map[string][]string{}
	for _, words := range usageLines(run(t, "limpet", "help"), "limpet") {
		synopses[words[0]] = words[1:]
	}
	if len(synopses) < 6 {
		t.Fatalf("limpet help names only %v", synopses)
	}
	count := 0
	for _, p := range pages(t) {
		for _, c := range p.Commands("limpet") {
			count++
			want, ok := synopses[c.Words[1]]
			if c.Words[1] == "run" { // "which comes later" is allowed to say its name
				t.Errorf("%s: there is no limpet run yet", c)
				continue
			}
			if !ok {
				t.Errorf("%s: there is no such command", c)
				continue
			}
			flags, rest := split(c.Words[2:])
			help := run(t, "limpet", c.Words[1], "-h")
			for _, f := range flags {
				if !regexp.MustCompile(`(?m)^  -` + regexp.QuoteMeta(strings.TrimLeft(f, "-")) + `\b`).MatchString(help) {
					t.Errorf("%s: there is no flag %s", c, f)
				}
			}
			// A command in a sentence may be named without its arguments.
			if len(rest) > 0 && len(flags) == 0 && len(rest) != len(want) {
				t.Errorf("%s: it takes %v", c, want)
			}
		}
	}
	if count < 8 {
		t.Errorf("only %d commands were found: the pages are not read as they are written", count)
	}
}

func split(words []string) (flags, rest []string) {
	for _, w := range words {
		if strings.HasPrefix(w, "-") {
			flags = append(flags, strings.SplitN(w, "=", 2)[0])
		} else {
			rest = append(rest, w)
		}
	}
	return flags, rest
}

// TestLimpetd does the same for "limpetd ...".
func TestLimpetd(t *testing.T) {
	forms := usageLines(run(t, "limpetd", "-h"), "limpetd")
	fits := func(words []string) bool {
		return slices.ContainsFunc(forms, func(form []string) bool {
			f := strings.Fields(strings.NewReplacer("[", "", "]", "").Replace(strings.Join(form, " ")))
			return len(f) == len(words) && !slices.ContainsFunc(f, func(w string) bool {
				i := slices.Index(f, w)
				return w != strings.ToUpper(w) && w != words[i]
			})
		})
	}
	count := 0
	for _, p := range pages(t) {
		for _, c := range p.Commands("limpetd") {
			count++
			if !fits(c.Words[1:]) {
				t.Errorf("%s: limpetd knows %v", c, forms)
			}
		}
	}
	if count < 4 {
		t.Errorf("only %d commands were found", count)
	}
}

// TestMake holds each "make ..." to the Makefile: targets and variables.
func TestMake(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9-]+):|^([A-Z_]+) *\?=`).FindAllStringSubmatch(string(b), -1) {
		known[m[1]+m[2]] = true
	}
	for _, p := range pages(t) {
		for _, c := range p.Commands("make") {
			for _, w := range c.Words[1:] {
				name, _, _ := strings.Cut(strings.TrimRight(w, ",;"), "=")
				if !known[name] {
					t.Errorf("%s: the Makefile has no %s", c, name)
				}
			}
		}
	}
	// What is asked for when nothing is known of the project.
	help, err := exec.Command("make", "-s", "-C", root, "help").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range strings.Fields("build demo test e2e bench fuzz lint install uninstall guests arm64 clean") {
		if !strings.Contains(string(help), "make "+target+" ") {
			t.Errorf("make help does not list %s", target)
		}
	}
}
