package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/test/node"
)

// byHand writes the two files that crictl wants and prints the lines that do
// with crictl what the demo did.
func byHand(n *node.Node, keep bool) error {
	ref := n.Registry + "/hello:1"
	s := node.Sandbox("by-hand", filepath.Join(n.Dir, "logs", "by-hand"), n.Cgroup, runtime.NamespaceMode_POD)
	c := node.Container("hello", ref)
	belong(c, s)
	pod, container := filepath.Join(n.Dir, "pod.json"), filepath.Join(n.Dir, "container.json")
	if err := writeJSON(pod, s); err != nil {
		return err
	}
	if err := writeJSON(container, c); err != nil {
		return err
	}
	when := "make demo KEEP=1 leaves everything running, and such lines do the same by hand:"
	if keep {
		when = "These lines do the same by hand, in another terminal:"
	}
	fmt.Printf(`
%s

  export CONTAINER_RUNTIME_ENDPOINT=unix://%s
  crictl pull %s
  crictl images
  POD=$(crictl runp --runtime limpet %s)
  CTR=$(crictl create $POD %s %s)
  crictl start $CTR
  crictl ps -a
  crictl logs $CTR
  crictl inspect $CTR
  crictl stopp $POD && crictl rmp $POD

(crictl is part of cri-tools; test/peers.sh build/peers crictl builds one.)
`, when, n.Socket, ref, pod, container, pod)
	return nil
}

// writeJSON writes a message as crictl reads it: by the field tags of its Go
// type.
func writeJSON(file string, m any) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
