// Command suite runs tests, counts them and closes with one line:
//
//	N passed, M failed, K skipped
//
// What failed is printed with its output, what was skipped by name with its
// reason; the rest stays quiet. It owns the sums in build/sums (one file per
// suite) and no opinion about the tests themselves. A package that does not
// build, a test that never ends and a suite without tests have failed.
//
//	suite test NAME [go test arguments]   run go test -json, count, keep the sum
//	suite fuzz NAME DURATION              run each fuzz target of the module that long
//	suite sum NAME...                     add up what the suites named have kept
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const sumsDir = "build/sums"

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, errFailed) {
			fmt.Fprintln(os.Stderr, "suite:", err)
		}
		os.Exit(1)
	}
}

var (
	errUsage  = errors.New("usage: suite test NAME [go test arguments] | suite fuzz NAME DURATION | suite sum NAME [NAME ...]")
	errFailed = errors.New("tests failed")
	// errNothing is of a pattern or a folder that no test fits: a suite that
	// shows nothing must not pass for one that has shown something.
	errNothing = errors.New("no test was run")
)

func run(args []string, out io.Writer) error {
	if len(args) < 2 {
		return errUsage
	}
	name := args[1]
	if args[0] != "sum" {
		// What an earlier run kept must not stand for one that is cut short.
		if err := os.Remove(filepath.Join(sumsDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	switch args[0] {
	case "test":
		return closeSuite(out, name, goTest(out, args[2:]))
	case "fuzz":
		if len(args) != 3 {
			return errUsage
		}
		d, err := time.ParseDuration(args[2])
		if err != nil {
			return err
		}
		s, err := fuzzAll(out, d)
		if err != nil {
			return err
		}
		return closeSuite(out, name, s)
	case "sum":
		return sumUp(out, args[1:])
	}
	return errUsage
}

// goTest runs one go test and counts its stream. A go command that ends badly
// without any test to blame (a package that does not build) is a failure too.
func goTest(out io.Writer, args []string) sum {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return broken(out, err)
	}
	if err := cmd.Start(); err != nil {
		return broken(out, err)
	}
	s := count(pipe, out)
	if err := cmd.Wait(); err != nil && s.Failed == 0 {
		return s.add(broken(out, fmt.Errorf("go test: %w", err)))
	}
	if s.Passed+s.Failed+s.Skipped == 0 {
		return s.add(broken(out, errNothing))
	}
	return s
}

func broken(out io.Writer, err error) sum {
	fmt.Fprintf(out, "FAIL %v\n", err)
	return sum{Failed: 1}
}

// closeSuite keeps the sum and writes the closing line.
func closeSuite(out io.Writer, name string, s sum) error {
	if err := os.MkdirAll(sumsDir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(sumsDir, name), []byte(s.line()+"\n"), 0o644); err != nil {
		return err
	}
	s.listSkipped(out)
	fmt.Fprintf(out, "%s: %s\n", name, s.line())
	if s.Failed > 0 {
		return errFailed
	}
	return nil
}

// sumUp adds the kept sums; a suite that left none counts as failed, since it
// did not come to its end.
func sumUp(out io.Writer, names []string) error {
	var all sum
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(sumsDir, n))
		if err != nil {
			fmt.Fprintf(out, "%s: did not come to its end\n", n)
			all.Failed++
			continue
		}
		s, err := parseLine(string(b))
		if err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
		fmt.Fprintf(out, "%s: %s\n", n, s.line())
		all = all.add(s)
	}
	fmt.Fprintln(out, all.line())
	if all.Failed > 0 {
		return errFailed
	}
	return nil
}
