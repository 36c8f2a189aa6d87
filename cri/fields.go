package cri

import (
	"fmt"
	"slices"
	"strings"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/cri/pod"
)

// requestFields are the fields of the requests that change something, besides
// the two configurations that pod.Fields is about. Those of requests that only
// ask are filters, and all of them are honoured.
func requestFields() []pod.Field {
	f := func(message, path string, t pod.Treatment, sentence string) pod.Field {
		return pod.Field{Message: message, Path: path, Treatment: t, Sentence: sentence}
	}
	const (
		run, create, update = "RunPodSandboxRequest", "CreateContainerRequest", "UpdateContainerResourcesRequest"
		pull, remove        = "PullImageRequest", "RemoveImageRequest"
		one                 = "an image has one form here, whatever its annotations say"
		handler             = "an image is the same for every handler; an unknown one is refused"
	)
	return []pod.Field{
		f(run, "config", pod.Honoured, "see PodSandboxConfig"),
		f(run, "runtime_handler", pod.Honoured, "the profile of that name; empty is the default one, an unknown one is refused with the list of those known"),
		f("StopPodSandboxRequest", "pod_sandbox_id", pod.Honoured, "stopping what is stopped or gone succeeds"),
		f("RemovePodSandboxRequest", "pod_sandbox_id", pod.Honoured, "removing what is gone succeeds"),
		f(create, "pod_sandbox_id", pod.Honoured, "the sandbox has to be ready"),
		f(create, "config", pod.Honoured, "see ContainerConfig"),
		f(create, "sandbox_config", pod.ByConstruction, "the sandbox's own record holds the same since RunPodSandbox"),
		f("StartContainerRequest", "container_id", pod.Honoured, "a container starts once"),
		f("StopContainerRequest", "container_id", pod.Honoured, "stopping what is stopped or gone succeeds"),
		f("StopContainerRequest", "timeout", pod.Honoured, "the grace period in seconds, then the container is killed; 0 kills at once"),
		f("RemoveContainerRequest", "container_id", pod.Honoured, "what runs is killed first; removing what is gone succeeds"),
		f("ReopenContainerLogRequest", "container_id", pod.Honoured, "the container has to have a process"),
		f(update, "container_id", pod.Honoured, "the container has to have a process"),
		f(update, "linux", pod.Honoured, "as linux.resources of ContainerConfig, for the running guest too; what is left out stays as it is, and a memory limit below what is in use is refused"),
		f(update, "windows", pod.Refused, "this is a Linux node"),
		f(update, "annotations", pod.ByConstruction, "they are for experiments, of which there are none; settings under limpet.dev/ belong on the pod and are refused here"),
		f(pull, "image.image", pod.Honoured, "a reference with tag, digest or both; latest if neither"),
		f(pull, "image.annotations", pod.ByConstruction, one),
		f(pull, "image.user_specified_image", pod.ByConstruction, "for logs; image.image is what is pulled"),
		f(pull, "image.runtime_handler", pod.ByConstruction, handler),
		f(pull, "image.image_ref", pod.ByConstruction, "an answer of an earlier pull; image.image is what is pulled"),
		f(pull, "auth", pod.Honoured, "for the registry of the reference alone, and never logged"),
		f(pull, "sandbox_config", pod.ByConstruction, "a pull does not depend on the pod"),
		f(remove, "image.image", pod.Honoured, "any name, digest or id; all names of the image go, and removing what is gone succeeds"),
		f(remove, "image.annotations", pod.ByConstruction, one),
		f(remove, "image.user_specified_image", pod.ByConstruction, "image.image is what is removed"),
		f(remove, "image.runtime_handler", pod.ByConstruction, handler),
		f(remove, "image.image_ref", pod.ByConstruction, "image.image is what is removed"),
		f("UpdateRuntimeConfigRequest", "runtime_config", pod.ByConstruction, "the node's pod CIDR concerns whoever gives pods their addresses, which is not Limpet"),
	}
}

// checkUpdate refuses what requestFields says of an update.
func checkUpdate(r *runtime.UpdateContainerResourcesRequest) error {
	if r.GetWindows() != nil {
		return &pod.FieldError{Field: "UpdateContainerResourcesRequest.windows", Sentence: "this is a Linux node"}
	}
	for k := range r.GetAnnotations() {
		if strings.HasPrefix(k, annotationDomain) {
			return &pod.FieldError{Field: "UpdateContainerResourcesRequest.annotations", Sentence: "settings under " + annotationDomain + " belong on the pod"}
		}
	}
	return nil
}

// annotationDomain is where the names of Limpet's annotations begin.
const annotationDomain = "limpet.dev/"

// checkHandler refuses an image for a handler that does not exist.
func (a About) checkHandler(i *runtime.ImageSpec) error {
	h := i.GetRuntimeHandler()
	if h == "" || slices.Contains(a.Handlers, h) {
		return nil
	}
	return fmt.Errorf("%w %q: this node has %s", pod.ErrUnknownHandler, h, strings.Join(a.Handlers, ", "))
}
