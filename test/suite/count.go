package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// sum is the result of a suite.
type sum struct {
	Passed, Failed, Skipped int
	skips                   []string
}

func (s sum) add(o sum) sum {
	return sum{s.Passed + o.Passed, s.Failed + o.Failed, s.Skipped + o.Skipped, append(s.skips, o.skips...)}
}

func (s sum) line() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", s.Passed, s.Failed, s.Skipped)
}

func parseLine(line string) (sum, error) {
	var s sum
	if _, err := fmt.Sscanf(line, "%d passed, %d failed, %d skipped", &s.Passed, &s.Failed, &s.Skipped); err != nil {
		return s, fmt.Errorf("not a closing line: %q", line)
	}
	return s, nil
}

func (s sum) listSkipped(out io.Writer) {
	if len(s.skips) > 0 {
		fmt.Fprintln(out, "skipped:")
	}
	for _, l := range s.skips {
		fmt.Fprintln(out, "  "+l)
	}
}

// event is what test2json writes, one per line.
type event struct {
	Action, Package, Test, Output string
	ImportPath, FailedBuild       string
	Elapsed                       float64
}

// counter follows the stream. Output is kept per test until its end is known,
// so that only the output of failed ones is shown.
type counter struct {
	out     io.Writer
	sum     sum
	output  map[string][]string
	failed  map[string]bool // packages, and builds, for which a failure is counted
	parents map[string]bool // tests that have subtests: they only group
	running []running       // tests that have begun and not ended, in that order
}

type running struct{ pkg, key string }

const maxKept = 400 // lines of output kept per test

// count reads a test2json stream to its end. Tests that only group subtests
// are not counted, unless they fail or are skipped by themselves. A test that
// begins and is not heard of again (a timeout, an exit) has failed.
func count(r io.Reader, out io.Writer) sum {
	c := &counter{out: out, output: map[string][]string{}, failed: map[string]bool{}, parents: map[string]bool{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(out, lines.Text())
			continue
		}
		c.take(e)
	}
	if err := lines.Err(); err != nil {
		c.sum = c.sum.add(broken(out, err))
	}
	c.lost("")
	return c.sum
}

func (c *counter) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "run":
		c.running = append(c.running, running{e.Package, key})
		if i := strings.LastIndexByte(e.Test, '/'); i > 0 {
			c.parents[e.Package+" "+e.Test[:i]] = true
		}
	case "output", "build-output":
		if e.Action == "build-output" {
			key = e.ImportPath + " "
		}
		if len(c.output[key]) < maxKept {
			c.output[key] = append(c.output[key], e.Output)
		}
	case "build-fail":
		c.failed[e.ImportPath] = true
		c.fail(e.ImportPath+" does not build", e.ImportPath+" ")
	case "pass", "fail", "skip":
		c.end(e, key)
		delete(c.output, key)
	}
}

func (c *counter) end(e event, key string) {
	name := strings.TrimSpace(key)
	c.running = slices.DeleteFunc(c.running, func(r running) bool { return r.key == key })
	switch {
	case e.Test == "":
		c.endPackage(e, key)
	case e.Action == "fail":
		if c.parents[key] && c.failed[e.Package] {
			return // one of its subtests is counted
		}
		c.failed[e.Package] = true
		c.fail(name, key)
	case e.Action == "skip":
		c.sum.Skipped++
		c.sum.skips = append(c.sum.skips, name+": "+reason(c.output[key]))
	case c.parents[key]:
	default:
		c.sum.Passed++
	}
}

// lost blames the tests of a package, or of all, that began and never ended:
// those without subtests, or whose subtests have all ended.
func (c *counter) lost(pkg string) {
	for _, r := range c.running {
		inner := func(o running) bool { return strings.HasPrefix(o.key, r.key+"/") }
		if pkg != "" && r.pkg != pkg || slices.ContainsFunc(c.running, inner) {
			continue
		}
		c.failed[r.pkg] = true
		c.fail(r.key+" did not end", r.key)
		c.show(r.pkg + " ") // what nobody in particular has said
	}
	c.running = slices.DeleteFunc(c.running, func(r running) bool { return pkg == "" || r.pkg == pkg })
}

func (c *counter) endPackage(e event, key string) {
	c.lost(e.Package)
	switch e.Action {
	case "fail":
		if !c.failed[e.Package] && !c.failed[e.FailedBuild] {
			c.fail(e.Package, key) // TestMain, or an exit between tests
		}
		fmt.Fprintf(c.out, "FAIL %s (%.1f s)\n", e.Package, e.Elapsed)
	case "pass":
		fmt.Fprintf(c.out, "ok   %s (%.1f s)\n", e.Package, e.Elapsed)
	}
}

func (c *counter) fail(name, key string) {
	c.sum.Failed++
	fmt.Fprintf(c.out, "--- FAIL %s\n", name)
	c.show(key)
}

func (c *counter) show(key string) {
	for _, l := range c.output[key] {
		fmt.Fprint(c.out, "    "+l)
	}
}

// reason finds the text of t.Skip in a test's output: the last line that is
// not the test2json framing, without the file and line in front.
func reason(output []string) string {
	for i := len(output) - 1; i >= 0; i-- {
		l := strings.TrimSpace(output[i])
		if l == "" || strings.HasPrefix(l, "---") || strings.HasPrefix(l, "===") {
			continue
		}
		if _, text, ok := strings.Cut(l, ".go:"); ok {
			if _, text, ok = strings.Cut(text, ": "); ok {
				return text
			}
		}
		return l
	}
	return "no reason given"
}
