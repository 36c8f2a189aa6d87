// Command limpet is the tool for people: it makes and publishes artifacts,
// looks into them, and asks the limpetd of this node what it holds and runs.
//
// Lists are ordinary CRI calls; what CRI has no call for goes to the admin
// service on the same socket. It keeps no state, changes no node behind
// limpetd's back, and never runs a guest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

const (
	defaultSocket = "/run/limpet/limpetd.sock"
	socketEnv     = "LIMPET_SOCKET"
)

const (
	// exitInterrupted is what a shell expects of a program that Ctrl-C ended.
	exitInterrupted = 130
	// windUp is how long a command may take to end after Ctrl-C.
	windUp = 2 * time.Second
)

// errUsage is a wrong call; what is right has been printed.
var errUsage = errors.New("wrong call")

// app is what a command may use.
type app struct {
	out, err io.Writer
	in       io.Reader
	// terminal is true where progress is drawn as a bar, width columns wide.
	terminal bool
	width    int
	socket   string
	// host is the limpet-host beside this program.
	host string
}

// subcommand is one thing that limpet does.
type subcommand struct {
	name, args, about, more string
	run                     func(ctx context.Context, a *app, args []string) error
}

func commands() []subcommand {
	return []subcommand{
		{"push", "FILE REF", "make an artifact of a .wasm file and push it to a registry", pushHelp, push},
		{"inspect", "FILE|REF", "say what a file, an image of this node or of a registry is", inspectHelp, inspect},
		{"import", "FILE", "load an OCI layout or archive into this node, without a registry", importHelp, importArchive},
		{"images", "", "list the images of this node", imagesHelp, images},
		{"ps", "", "list the pods and containers of this node", psHelp, ps},
		{"version", "", "print the versions of limpet and limpetd", versionHelp, showVersion},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{out: os.Stdout, err: os.Stderr, in: os.Stdin, socket: defaultSocket}
	if w, _, err := term.GetSize(int(os.Stderr.Fd())); err == nil {
		a.terminal, a.width = true, w
	}
	if s := os.Getenv(socketEnv); s != "" {
		a.socket = s
	}
	if self, err := os.Executable(); err == nil {
		a.host = filepath.Join(filepath.Dir(self), "limpet-host")
	}
	context.AfterFunc(ctx, func() {
		// What waits for a pipe or a keyboard hears of no context.
		time.Sleep(windUp)
		_, _ = fmt.Fprintln(a.err, "limpet: interrupted")
		os.Exit(exitInterrupted)
	})
	code := a.main(ctx, os.Args[1:])
	if ctx.Err() != nil {
		code = exitInterrupted
	}
	stop()
	os.Exit(code)
}

// main does what the arguments say and returns the exit code: 2 for a wrong
// call, 1 for a failure.
func (a *app) main(ctx context.Context, args []string) int {
	flags := a.flags("limpet")
	flags.StringVar(&a.socket, "socket", a.socket, "limpetd's socket")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		a.help(a.out)
		return 0
	} else if err != nil {
		_, _ = fmt.Fprintf(a.err, "limpet: %v; see limpet help\n", err)
		return 2
	}
	args = flags.Args()
	if len(args) == 0 {
		a.help(a.err)
		return 2
	}
	if args[0] == "help" {
		return a.helpOn(args[1:])
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return a.report(ctx, c, c.run(ctx, a, args[1:]))
		}
	}
	return a.unknown(args[0])
}

func (a *app) unknown(name string) int {
	_, _ = fmt.Fprintf(a.err, "limpet: there is no command %q; see limpet help\n", name)
	return 2
}

func (a *app) report(ctx context.Context, c subcommand, err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		return a.helpOn([]string{c.name})
	case errors.Is(err, errUsage):
		return 2
	case ctx.Err() != nil:
		err = errors.New("interrupted")
	}
	_, _ = fmt.Fprintf(a.err, "limpet: %v\n", err)
	return 1
}

func (a *app) help(w io.Writer) {
	_, _ = fmt.Fprint(w, "limpet makes WebAssembly artifacts and looks after those on a Limpet node.\n\n")
	for _, c := range commands() {
		_, _ = fmt.Fprintf(w, "  limpet %-26s %s\n", c.name+" "+c.args, c.about)
	}
	_, _ = fmt.Fprintf(w, "  limpet %-26s %s\n", "help [COMMAND]", "say more about a command")
	_, _ = fmt.Fprintf(w, "\nlimpetd is asked on %s; --socket PATH before the command, or %s, says another.\n", defaultSocket, socketEnv)
}

func (a *app) helpOn(args []string) int {
	if len(args) == 0 {
		a.help(a.out)
		return 0
	}
	if len(args) > 1 {
		_, _ = fmt.Fprint(a.err, "usage: limpet help [COMMAND]\n")
		return 2
	}
	for _, c := range commands() {
		if c.name == args[0] {
			_, _ = fmt.Fprintf(a.out, "limpet %s\n\n%s\n", strings.TrimSpace(c.name+" "+c.args), strings.TrimSpace(c.more))
			return 0
		}
	}
	return a.unknown(args[0])
}

func (a *app) flags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard) // what is wrong is said in words of ours
	f.Usage = func() {}
	return f
}

// parse reads a command's flags, wherever among the arguments they stand, and
// wants n arguments besides.
func (a *app) parse(f *flag.FlagSet, args []string, n int, synopsis string) ([]string, error) {
	usage := func() { _, _ = fmt.Fprintf(a.err, "usage: limpet %s; limpet help %s says more\n", synopsis, f.Name()) }
	var rest []string
	for {
		if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
			return nil, err
		} else if err != nil {
			_, _ = fmt.Fprintf(a.err, "limpet: %s: %v\n", f.Name(), err)
			usage()
			return nil, errUsage
		}
		if f.NArg() == 0 {
			break
		}
		rest, args = append(rest, f.Arg(0)), f.Args()[1:]
	}
	if len(rest) != n {
		usage()
		return nil, errUsage
	}
	return rest, nil
}
