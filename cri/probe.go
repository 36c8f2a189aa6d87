package cri

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// probeTimeout is how long a server may take to answer a Probe. What it asks
// takes well under a millisecond.
const probeTimeout = 5 * time.Second

// Probe asks a server over its socket whether it is well, as the kubelet
// would: what answers is the whole way through server, index and locks.
type Probe struct{ conn *grpc.ClientConn }

// NewProbe connects, when first used, to the server on a socket.
func NewProbe(socket string) (*Probe, error) {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("probe %s: %w", socket, err)
	}
	return &Probe{conn: conn}, nil
}

// Check returns an error unless the server answers in time.
func (p *Probe) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	// The filter matches nothing, so that the answer is small; the index and
	// its lock are asked all the same.
	none := &runtime.PodSandboxFilter{Id: "-"}
	if _, err := runtime.NewRuntimeServiceClient(p.conn).ListPodSandbox(ctx, &runtime.ListPodSandboxRequest{Filter: none}); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	return nil
}

// Close ends the connection.
func (p *Probe) Close() error { return p.conn.Close() }
