// Command limpetd is the daemon that the kubelet talks to: a CRI server for
// pods whose containers are WebAssembly modules.
//
// It owns its flags, the configuration file, the wiring of the packages, and
// signals. It links no engine and never runs or compiles guest code: each
// container is a limpet-host process of its own, which outlives limpetd.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

const usage = `limpetd runs WebAssembly pods for the kubelet.

  limpetd [--config FILE]      run; without --config, ` + defaultFile + ` if it is there
  limpetd config default       print the configuration with every default
  limpetd config check FILE    say what is wrong with a configuration
  limpetd version              print the version
  limpetd help                 print this
`

func main() { os.Exit(command(os.Args[1:], os.Stdout, os.Stderr)) }

// command does what the arguments say and returns the exit code: 2 for a
// wrong call, 1 for a failure.
func command(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("limpetd", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // we say it ourselves
	config := flags.String("config", "", "the configuration file")
	show := flags.Bool("version", false, "print the version")
	err := flags.Parse(args)
	rest := flags.Args()
	switch {
	case errors.Is(err, flag.ErrHelp), err == nil && len(rest) == 1 && rest[0] == "help":
		_, err = io.WriteString(stdout, usage)
	case err != nil:
		return misused(stderr, err.Error())
	case *show, len(rest) == 1 && rest[0] == "version":
		_, err = fmt.Fprintf(stdout, "limpetd %s %s\n", version(), runtime.Version())
	case len(rest) == 0:
		err = start(*config, stderr)
	case len(rest) == 2 && rest[0] == "config" && rest[1] == "default":
		err = writeDefault(stdout)
	case len(rest) == 3 && rest[0] == "config" && rest[1] == "check":
		err = check(rest[2], stdout)
	case rest[0] == "config":
		return misused(stderr, fmt.Sprintf("%q is not understood; config takes default, or check and one FILE", strings.Join(rest, " ")))
	default:
		return misused(stderr, fmt.Sprintf("there is no command %q", strings.Join(rest, " ")))
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "limpetd: %v\n", err)
		return 1
	}
	return 0
}

// misused tells how limpetd is called; 2 is the exit code for a wrong call.
func misused(stderr io.Writer, what string) int {
	_, _ = fmt.Fprintf(stderr, "limpetd: %s\n\n%s", what, usage)
	return 2
}

func check(path string, stdout io.Writer) error {
	if _, err := load(path); err != nil {
		return err
	}
	_, err := fmt.Fprintf(stdout, "%s is fine\n", path)
	return err
}

// start loads the configuration and runs until a signal.
func start(path string, stderr io.Writer) error {
	s, err := chosen(path)
	if err != nil {
		return err
	}
	return run(s, newLogger(s.log, stderr))
}

// chosen loads the file that was named, or the default one, which need not be
// there.
func chosen(path string) (settings, error) {
	if path != "" {
		return load(path)
	}
	s, err := load(defaultFile)
	if errors.Is(err, fs.ErrNotExist) {
		return parse("the default configuration", nil)
	}
	return s, err
}

func levels() map[string]slog.Level {
	return map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
}

func newLogger(f logFile, w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: levels()[f.Level]}
	if f.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// release is the version that make build VERSION=... stamps in, for builds that
// git cannot tell it to.
var release string

// unversioned is a build outside of git without one: a semantic version,
// because the kubelet wants that.
const unversioned = "0.0.0-unversioned"

// version is what the build was stamped with: the release, else what git says,
// a tag or a pseudo-version with the commit.
func version() string {
	v := release
	if info, ok := debug.ReadBuildInfo(); ok && v == "" {
		v = info.Main.Version
	}
	if v == "" || v == "(devel)" {
		return unversioned
	}
	return strings.TrimPrefix(v, "v")
}
