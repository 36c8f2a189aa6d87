// limpet-host is the confined process in which one container's guest runs, and
// in which modules are compiled. See shim/host.
package main

import (
	"os"

	"github.com/limpet-cri/limpet/shim/host"
)

func main() { os.Exit(host.Main(os.Args)) }
