package cri

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/cri/pod"
)

var update = flag.Bool("update", false, "write docs/cri-fields.md instead of comparing it")

const fieldsDoc = "../docs/cri-fields.md"

// tables are all fields, with the configurations below the requests that carry
// them.
func tables() map[string]bool {
	known := map[string]bool{}
	for _, f := range requestFields() {
		known[f.Message+"."+f.Path] = true
	}
	for _, f := range pod.Fields() {
		known[f.Message+"."+f.Path] = true
	}
	return known
}

// Every field of every request that changes something is in a table, by
// itself or with the message it is in.
func TestEveryFieldIsInATable(t *testing.T) {
	known, used := tables(), map[string]bool{}
	for _, m := range []proto.Message{
		&runtime.RunPodSandboxRequest{}, &runtime.StopPodSandboxRequest{}, &runtime.RemovePodSandboxRequest{},
		&runtime.CreateContainerRequest{}, &runtime.StartContainerRequest{}, &runtime.StopContainerRequest{}, &runtime.RemoveContainerRequest{},
		&runtime.UpdateContainerResourcesRequest{}, &runtime.ReopenContainerLogRequest{}, &runtime.UpdateRuntimeConfigRequest{},
		&runtime.PullImageRequest{}, &runtime.RemoveImageRequest{},
		// What the first and the fourth carry.
		&runtime.PodSandboxConfig{}, &runtime.ContainerConfig{},
	} {
		d := m.ProtoReflect().Descriptor()
		walk(t, d, string(d.Name()), known, used)
	}
	for key := range known {
		if !used[key] {
			t.Errorf("%s is in a table, but no field of such a request", key)
		}
	}
}

func walk(t *testing.T, d protoreflect.MessageDescriptor, path string, known, used map[string]bool) {
	t.Helper()
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		key := path + "." + string(f.Name())
		if known[key] {
			used[key] = true
			continue
		}
		if f.IsList() {
			key += "[]"
		}
		if f.Message() == nil || !hasPrefix(known, key+".") {
			t.Errorf("%s is in no table: is it honoured, satisfied by construction, or refused?", key)
			continue
		}
		walk(t, f.Message(), key, known, used)
	}
}

func hasPrefix(known map[string]bool, prefix string) bool {
	for k := range known {
		if strings.HasPrefix(k, prefix) {
			return true
		}
	}
	return false
}

// docs/cri-fields.md is what the tables say: go test ./cri -run Doc -update.
func TestFieldsDoc(t *testing.T) {
	want := renderFields()
	if *update {
		if err := os.WriteFile(fieldsDoc, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(fieldsDoc)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s does not say what the tables say; write it anew with: go test ./cri -run TestFieldsDoc -update", fieldsDoc)
	}
}

func renderFields() string {
	var b strings.Builder
	b.WriteString(`# What becomes of each field of a CRI request

Every field of every request that changes something is honoured, satisfied by
construction (what it asks for holds for every guest anyway), or refused with an
error that names it. None is ignored. This page is written from the tables that
the code checks requests with.

A field that is honoured may still refuse some values; its sentence says which.
The error of a refusal carries the field and the sentence below, and appears as
an event of the pod.
`)
	section(&b, "A sandbox: PodSandboxConfig", pod.Fields(), func(f pod.Field) bool { return f.Message == "PodSandboxConfig" }, false)
	section(&b, "A container: ContainerConfig", pod.Fields(), func(f pod.Field) bool { return f.Message == "ContainerConfig" }, false)
	section(&b, "The other requests", requestFields(), func(pod.Field) bool { return true }, true)
	return b.String()
}

func section(b *strings.Builder, title string, fields []pod.Field, mine func(pod.Field) bool, message bool) {
	fmt.Fprintf(b, "\n## %s\n\n| Field | Becomes | How, or why not |\n|---|---|---|\n", title)
	for _, f := range fields {
		if !mine(f) {
			continue
		}
		path := f.Path
		if message {
			path = f.Message + "." + path
		}
		becomes := string(f.Treatment)
		if f.Partial() {
			becomes += ", in part"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", path, becomes, strings.ReplaceAll(f.Sentence, "|", "\\|"))
	}
}

func TestRequestsRefused(t *testing.T) {
	about := About{Handlers: []string{"limpet", "wasm"}}
	for name, err := range map[string]error{
		"UpdateContainerResourcesRequest.windows is refused":      checkUpdate(&runtime.UpdateContainerResourcesRequest{Windows: &runtime.WindowsContainerResources{}}),
		"UpdateContainerResourcesRequest.annotations is refused":  checkUpdate(&runtime.UpdateContainerResourcesRequest{Annotations: map[string]string{"limpet.dev/on-stop": "kill"}}),
		`unknown runtime handler "runc": this node has limpet, w`: about.checkHandler(&runtime.ImageSpec{RuntimeHandler: "runc"}),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("got %v, want %s", err, name)
		}
	}
	for _, err := range []error{
		checkUpdate(&runtime.UpdateContainerResourcesRequest{Annotations: map[string]string{"example.com/x": "y"}}),
		about.checkHandler(nil), about.checkHandler(&runtime.ImageSpec{RuntimeHandler: "wasm"}),
	} {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
	}
}
