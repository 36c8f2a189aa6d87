package cri

import (
	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// GetContainerEvents sends what happens from now on, until the client goes or
// the server ends. Nothing is replayed: a client lists first, as it has to
// after any gap.
func (s *runtimeServer) GetContainerEvents(_ *runtime.GetEventsRequest, out grpc.ServerStreamingServer[runtime.ContainerEventResponse]) error {
	events := s.pods.Events()
	defer events.Close()
	// The header tells the client that from here on it misses nothing.
	if err := out.SendHeader(nil); err != nil {
		return err
	}
	for {
		select {
		case <-out.Context().Done():
			return out.Context().Err()
		case <-s.closing:
			return nil
		case e, ok := <-events.C():
			if !ok {
				return events.Err()
			}
			if err := out.Send(e); err != nil {
				return err
			}
		}
	}
}
