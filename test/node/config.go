package node

import (
	"fmt"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// quick is a client that tries again soon: the daemon is about to listen.
var quick = grpc.ConnectParams{Backoff: backoff.Config{
	BaseDelay: 5 * time.Millisecond, Multiplier: 1.5, MaxDelay: 100 * time.Millisecond,
}, MinConnectTimeout: time.Second}

// config is the configuration of a limpetd that keeps to its folder.
func (n *Node) config() string {
	return fmt.Sprintf(`root = %q
run = %q

[server]
socket = %q

[hosts]
path = %q
compile_cgroup = %q
`, filepath.Join(n.Dir, "lib"), filepath.Join(n.Dir, "run"), n.Socket, filepath.Join(n.Bin, "limpet-host"), n.Cgroup+"/compile")
}
