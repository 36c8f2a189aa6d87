package host

import (
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/confine"
	"github.com/limpet-cri/limpet/shim/spec"
	"github.com/limpet-cri/limpet/wasm/wasmtime"
)

// exitUsage is the exit code for a call by hand (EX_USAGE).
const exitUsage = 64

const usage = `limpet-host runs the guest of one container. It is started by limpetd,
inside a confinement that it cannot make for itself:

  limpet-host run ID      run a container's guest
  limpet-host compile     compile a module
  limpet-host key         name what compiled code depends on
  limpet-host version     name the engine

Use "limpet" or a CRI client such as crictl instead.
`

// Main runs the mode that args[1] names and returns the exit code; in mode run
// it does not return.
func Main(args []string) int {
	mode := ""
	if len(args) > 1 {
		mode = args[1]
	}
	switch mode {
	case "version":
		say(1, wasmtime.Version()+"\n")
		return 0
	case "run", "compile", "key":
	default:
		say(2, usage)
		return exitUsage
	}
	p, err := payload()
	if err != nil {
		say(2, "limpet-host "+mode+": "+err.Error()+"\n\n"+usage)
		return exitUsage
	}
	if !confine.Confined() {
		say(2, "limpet-host "+mode+": this process is not confined\n\n"+usage)
		return exitUsage
	}
	switch mode {
	case "compile":
		return Compile(p.Proposals)
	case "key":
		return Key(p.Proposals)
	}
	return run(p)
}

func payload() (*spec.Payload, error) {
	b, err := confine.Payload(spec.FDOrder)
	if err != nil {
		return nil, err
	}
	return spec.DecodePayload(b)
}

// say writes a text to a descriptor, as far as it takes it.
func say(fd int, text string) {
	_, _ = unix.Write(fd, []byte(text)) // nobody is left to tell
}
