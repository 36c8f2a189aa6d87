package cri

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// absent says why a call of CRI answers Unimplemented, and what there is
// instead. The code is what clients act on; the sentence is for the person who
// reads it in an event of a pod or on a terminal.
func absent(method string) string {
	const (
		noExec = "nothing can be executed beside a guest yet, which is one WebAssembly module without a shell; " +
			"its log, ContainerStatus and the files of its volumes tell what it does, and probes and hooks can use httpGet"
		noCheckpoint = "a guest's state is not saved; start it anew"
		noMetrics    = "the figures are in ContainerStats and PodSandboxStats, and limpetd's own at metrics.address of its configuration"
	)
	switch method {
	case "Exec", "ExecSync":
		return noExec
	case "Attach":
		return "a guest's streams cannot be attached to yet; what it writes is in its log (crictl logs, kubectl logs)"
	case "PortForward":
		return "ports of a pod cannot be forwarded yet; a pod with hostNetwork listens on the node"
	case "CheckpointContainer", "CheckpointPod", "RestorePod":
		return noCheckpoint
	case "ListMetricDescriptors", "ListPodSandboxMetrics", "StreamPodSandboxMetrics":
		return noMetrics
	case "UpdatePodSandboxResources":
		return "the pod's own cgroup is the kubelet's, which resizes it itself; UpdateContainerResources resizes containers"
	}
	return ""
}

// offered replaces the words of the generated code, which say no more than
// that a method is not there.
func offered(method string, err error) error {
	why := absent(method)
	if why == "" || status.Code(err) != codes.Unimplemented {
		return err
	}
	return status.Error(codes.Unimplemented, "Limpet does not offer "+method+": "+why)
}
