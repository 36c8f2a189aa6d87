package artifact

import (
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// known are artifacts that are recognised by a media type and are no program
// for this node, each with what it is and what to do. Prefixes.
var known = []struct{ prefix, what string }{
	{"application/vnd.fermyon.spin.application", "a Spin application, which needs Spin's own interfaces; run it with a Spin runtime"},
	{"application/vnd.wasmcloud.provider.archive", "a wasmCloud provider archive, which holds native code; run it with wasmCloud"},
	{"application/vnd.module.wasm.config.v1", "a filter for a proxy (proxy-wasm, as for Envoy and Istio); load it into the proxy"},
	{"application/vnd.module.wasm.content.layer.v1.compat", "a filter for a proxy (proxy-wasm); load it into the proxy"},
	{"application/vnd.dev.cosign.", "a signature, not a program; name the image that it signs"},
	{"application/vnd.dev.sigstore.", "a signature, not a program; name the image that it signs"},
	{"application/vnd.cncf.notary.", "a signature, not a program; name the image that it signs"},
	{"application/vnd.in-toto", "an attestation, not a program; name the image that it describes"},
	{"application/vnd.cyclonedx", "a bill of materials, not a program; name the image that it describes"},
	{"application/spdx", "a bill of materials, not a program; name the image that it describes"},
	{"text/spdx", "a bill of materials, not a program; name the image that it describes"},
	{"application/vnd.cncf.helm.", "a Helm chart, not a program; install it with helm"},
	{"application/vnd.cncf.flux.", "a Flux artifact, not a program; use it with Flux"},
	{"application/vnd.cncf.openpolicyagent.", "policies for Open Policy Agent, not a program"},
	{"application/vnd.docker.plugin", "a docker plugin, which holds native code; install it with docker"},
	{"application/vnd.unknown.config.v1", "an artifact of an old ORAS without a type; push the module again with `limpet push`"},
}

// refuseByType refuses, before any layer is fetched, what the manifest alone
// shows to be no program. The content is asked later about everything else.
func refuseByType(m ocispec.Manifest) error {
	types := []string{m.ArtifactType, m.Config.MediaType}
	for _, l := range m.Layers {
		types = append(types, l.MediaType)
	}
	for _, t := range types {
		for _, k := range known {
			if k.prefix == "application/vnd.unknown.config.v1" && len(m.Layers) == 1 {
				// The content of a single layer decides.
				continue
			}
			if strings.HasPrefix(strings.ToLower(t), k.prefix) {
				return fmt.Errorf("%w: it is %s", ErrRefused, k.what)
			}
		}
	}
	if len(m.Layers) == 0 && !isImageConfig(m.Config.MediaType) {
		return fmt.Errorf("%w: the artifact (type %q) has no layers, so there is nothing to run", ErrRefused, short(first(m.ArtifactType, m.Config.MediaType)))
	}
	return nil
}

func first(ss ...string) string {
	for _, s := range ss {
		if s != "" {
			return s
		}
	}
	return ""
}
