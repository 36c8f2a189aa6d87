package cri

import (
	"context"
	"fmt"
	"maps"
	"slices"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/cri/pod"
)

const (
	runtimeName = "limpet"
	// kubeletAPIVersion is what every runtime has answered since the first.
	kubeletAPIVersion = "0.1.0"
	criVersion        = "v1"
)

// runtimeServer is the RuntimeService. The calls it does not define answer
// Unimplemented.
type runtimeServer struct {
	runtime.UnimplementedRuntimeServiceServer
	about   About
	pods    *pod.Manager
	closing <-chan struct{}
}

func (s *runtimeServer) Version(context.Context, *runtime.VersionRequest) (*runtime.VersionResponse, error) {
	return &runtime.VersionResponse{
		Version: kubeletAPIVersion, RuntimeName: runtimeName,
		RuntimeVersion: s.about.Version, RuntimeApiVersion: criVersion,
	}, nil
}

// Status says that the network is ready although there is none but loopback:
// with anything else the kubelet refuses every pod without host network.
func (s *runtimeServer) Status(_ context.Context, r *runtime.StatusRequest) (*runtime.StatusResponse, error) {
	out := &runtime.StatusResponse{
		Status: &runtime.RuntimeStatus{Conditions: []*runtime.RuntimeCondition{
			{Type: runtime.RuntimeReady, Status: true},
			{Type: runtime.NetworkReady, Status: true, Reason: "LoopbackOnly", Message: "a pod of its own network has loopback and nothing else; pods with hostNetwork have the node's"},
		}},
		RuntimeHandlers: s.handlers(),
		Features:        &runtime.RuntimeFeatures{SupplementalGroupsPolicy: true, MountOptions: true},
	}
	if r.GetVerbose() {
		var err error
		if out.Info, err = verbose("limpet", s.details()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// handlers lists every handler, and the default one once more under the empty
// name: the kubelet takes its features for pods without a RuntimeClass.
func (s *runtimeServer) handlers() []*runtime.RuntimeHandler {
	names := append([]string{""}, slices.Sorted(slices.Values(s.about.Handlers))...)
	out := make([]*runtime.RuntimeHandler, 0, len(names))
	for _, n := range names {
		out = append(out, &runtime.RuntimeHandler{
			Name:     n,
			Features: &runtime.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true},
		})
	}
	return out
}

func (s *runtimeServer) details() map[string]string {
	d := maps.Clone(s.about.Details)
	if d == nil {
		d = map[string]string{}
	}
	d["version"] = s.about.Version
	d["default_handler"] = s.about.DefaultHandler
	d["sandboxes"] = fmt.Sprint(len(s.pods.ListPodSandbox(nil)))
	d["containers"] = fmt.Sprint(len(s.pods.ListContainers(nil)))
	return d
}

// RuntimeConfig tells the kubelet which cgroup driver to use: groups are made
// through the file system.
func (s *runtimeServer) RuntimeConfig(context.Context, *runtime.RuntimeConfigRequest) (*runtime.RuntimeConfigResponse, error) {
	return &runtime.RuntimeConfigResponse{
		Linux: &runtime.LinuxRuntimeConfiguration{CgroupDriver: runtime.CgroupDriver_CGROUPFS},
	}, nil
}

// UpdateRuntimeConfig brings the node's pod CIDR, which nothing here needs:
// addresses are given by the network's plugin. An error would be repeated by
// the kubelet at every update of the node.
func (s *runtimeServer) UpdateRuntimeConfig(context.Context, *runtime.UpdateRuntimeConfigRequest) (*runtime.UpdateRuntimeConfigResponse, error) {
	return &runtime.UpdateRuntimeConfigResponse{}, nil
}
