package cri

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// notOffered are the calls that answer Unimplemented, and so what a client
// must do without.
var notOffered = []string{
	"Attach", "CheckpointContainer", "CheckpointPod", "Exec", "ExecSync", "ListMetricDescriptors", "ListPodSandboxMetrics",
	"PortForward", "RestorePod", "StreamPodSandboxMetrics", "UpdatePodSandboxResources",
}

// rpcs is how many calls CRI has; a new one wants a decision.
const rpcs = 43

// Every call of CRI, sent with an empty request, is offered or answers exactly
// Unimplemented, and none ends in a panic.
func TestEveryCall(t *testing.T) {
	s := newSite(t, noHosts{}, copier{})
	var unimplemented []string
	seen := 0
	for _, service := range []protoreflect.FullName{"runtime.v1.RuntimeService", "runtime.v1.ImageService"} {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(service)
		if err != nil {
			t.Fatal(err)
		}
		methods := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			m := methods.Get(i)
			seen++
			err := s.empty(t, service, m)
			code := status.Code(err)
			switch code {
			case codes.Unimplemented:
				unimplemented = append(unimplemented, string(m.Name()))
				if text := status.Convert(err).Message(); !strings.HasPrefix(text, "Limpet does not offer "+string(m.Name())+": ") {
					t.Errorf("%s does not say what there is instead: %s", m.Name(), text)
				}
			case codes.Internal, codes.Unknown, codes.Unavailable:
				t.Errorf("%s with an empty request: %s", m.Name(), code)
			}
		}
	}
	if seen != rpcs {
		t.Errorf("CRI has %d calls, not %d: is each of them offered or not?", seen, rpcs)
	}
	slices.Sort(unimplemented)
	if !slices.Equal(unimplemented, notOffered) {
		t.Errorf("not offered: %v, want %v", unimplemented, notOffered)
	}
	if strings.Contains(s.log.String(), "panic") {
		t.Errorf("a call panicked:\n%s", s.log)
	}
}

// empty sends an empty request and returns how the call ended.
func (s *site) empty(t *testing.T, service protoreflect.FullName, m protoreflect.MethodDescriptor) error {
	t.Helper()
	in, out := newMessage(t, m.Input().FullName()), newMessage(t, m.Output().FullName())
	name := fmt.Sprintf("/%s/%s", service, m.Name())
	// Events last as long as the client: give it a short life.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	if m.Name() == "GetContainerEvents" {
		cancel()
		ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	}
	defer cancel()
	if !m.IsStreamingServer() {
		return s.conn.Invoke(ctx, name, in, out)
	}
	stream, err := s.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(in); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		if err := stream.RecvMsg(out); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func newMessage(t *testing.T, name protoreflect.FullName) proto.Message {
	t.Helper()
	m, err := protoregistry.GlobalTypes.FindMessageByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return m.New().Interface()
}

func TestVersionAndStatus(t *testing.T) {
	s := newSite(t, noHosts{}, copier{})
	v, err := s.runtime.Version(t.Context(), &runtime.VersionRequest{})
	if err != nil || v.GetVersion() != "0.1.0" || v.GetRuntimeName() != "limpet" || v.GetRuntimeVersion() != "1.2.3" || v.GetRuntimeApiVersion() != "v1" {
		t.Errorf("version %v, %v", v, err)
	}
	r, err := s.runtime.Status(t.Context(), &runtime.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.GetStatus().GetConditions() {
		if !c.GetStatus() {
			t.Errorf("%s is false: the kubelet would refuse pods", c.GetType())
		}
		if c.GetType() == runtime.NetworkReady && !strings.Contains(c.GetMessage(), "loopback") {
			t.Errorf("the network's message %q does not say what there is", c.GetMessage())
		}
	}
	var names []string
	for _, h := range r.GetRuntimeHandlers() {
		names = append(names, h.GetName())
		if !h.GetFeatures().GetRecursiveReadOnlyMounts() || h.GetFeatures().GetUserNamespaces() {
			t.Errorf("handler %q has features %v", h.GetName(), h.GetFeatures())
		}
	}
	if want := []string{"", "limpet", "wasm", "wasmtime"}; !slices.Equal(names, want) {
		t.Errorf("handlers %q, want %q", names, want)
	}
	if len(r.GetInfo()) != 0 {
		t.Errorf("details without being asked: %v", r.GetInfo())
	}
	if r, err = s.runtime.Status(t.Context(), &runtime.StatusRequest{Verbose: true}); err != nil || !strings.Contains(r.GetInfo()["limpet"], `"engine":"none"`) {
		t.Errorf("verbose status %v, %v", r.GetInfo(), err)
	}
	c, err := s.runtime.RuntimeConfig(t.Context(), &runtime.RuntimeConfigRequest{})
	if err != nil || c.GetLinux().GetCgroupDriver() != runtime.CgroupDriver_CGROUPFS {
		t.Errorf("runtime config %v, %v", c, err)
	}
}

func TestSandboxes(t *testing.T) {
	s := newSite(t, noHosts{}, copier{})
	a, b := s.run(t, "a"), s.run(t, "b")
	if _, err := s.runtime.StopPodSandbox(t.Context(), &runtime.StopPodSandboxRequest{PodSandboxId: b}); err != nil {
		t.Fatal(err)
	}
	ready := &runtime.PodSandboxStateValue{State: runtime.PodSandboxState_SANDBOX_READY}
	for name, c := range map[string]struct {
		filter *runtime.PodSandboxFilter
		want   []string
	}{
		"nothing":  {nil, []string{a, b}},
		"empty":    {&runtime.PodSandboxFilter{}, []string{a, b}},
		"id":       {&runtime.PodSandboxFilter{Id: b}, []string{b}},
		"state":    {&runtime.PodSandboxFilter{State: ready}, []string{a}},
		"label":    {&runtime.PodSandboxFilter{LabelSelector: map[string]string{"io.kubernetes.pod.uid": "uid-b"}}, []string{b}},
		"together": {&runtime.PodSandboxFilter{State: ready, LabelSelector: map[string]string{"io.kubernetes.pod.uid": "uid-b"}}, nil},
	} {
		l, err := s.runtime.ListPodSandbox(t.Context(), &runtime.ListPodSandboxRequest{Filter: c.filter})
		if err != nil {
			t.Fatal(err)
		}
		stream, err := s.runtime.StreamPodSandboxes(t.Context(), &runtime.StreamPodSandboxesRequest{Filter: c.filter})
		if err != nil {
			t.Fatal(err)
		}
		streamed, err := collect(stream, (*runtime.StreamPodSandboxesResponse).GetPodSandboxes)
		if err != nil {
			t.Fatal(err)
		}
		id := (*runtime.PodSandbox).GetId
		if got := sorted(l.GetItems(), id); !slices.Equal(got, slices.Sorted(slices.Values(c.want))) || !slices.Equal(got, sorted(streamed, id)) {
			t.Errorf("filter by %s: list %v, stream %v, want %v", name, got, sorted(streamed, id), c.want)
		}
	}
	st, err := s.runtime.PodSandboxStatus(t.Context(), &runtime.PodSandboxStatusRequest{PodSandboxId: a})
	if err != nil || st.GetStatus().GetNetwork() != nil {
		t.Errorf("status %v, %v: a pod without an address has no network", st, err)
	}
	// The kubelet tries again with the same name, and takes NotFound for gone.
	if _, err = s.runtime.RunPodSandbox(t.Context(), &runtime.RunPodSandboxRequest{Config: s.sandbox("a")}); status.Code(err) != codes.AlreadyExists {
		t.Errorf("the same name twice: %v", err)
	}
	for range 2 {
		if _, err := s.runtime.RemovePodSandbox(t.Context(), &runtime.RemovePodSandboxRequest{PodSandboxId: b}); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if _, err = s.runtime.PodSandboxStatus(t.Context(), &runtime.PodSandboxStatusRequest{PodSandboxId: b}); status.Code(err) != codes.NotFound {
		t.Errorf("status of what is gone: %v", err)
	}
}

// Refusals name what was asked for and what there is, with the code for it.
func TestRefusals(t *testing.T) {
	s := newSite(t, noHosts{}, copier{})
	for _, c := range []struct {
		name   string
		handle string
		change func(*runtime.PodSandboxConfig)
		code   codes.Code
		text   string
	}{
		{"unknown handler", "runc", func(*runtime.PodSandboxConfig) {}, codes.InvalidArgument, "limpet, wasm, wasmtime"},
		{"no metadata", "", func(c *runtime.PodSandboxConfig) { c.Metadata = nil }, codes.InvalidArgument, "metadata"},
		{"privileged", "", func(c *runtime.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true }, codes.InvalidArgument, "PodSandboxConfig.linux.security_context.privileged is refused"},
		{"sysctl", "", func(c *runtime.PodSandboxConfig) { c.Linux.Sysctls = map[string]string{"a": "b"} }, codes.InvalidArgument, "sysctls"},
	} {
		config := s.sandbox("refused")
		c.change(config)
		_, err := s.runtime.RunPodSandbox(t.Context(), &runtime.RunPodSandboxRequest{Config: config, RuntimeHandler: c.handle})
		if status.Code(err) != c.code || !strings.Contains(status.Convert(err).Message(), c.text) {
			t.Errorf("%s: %v, want %s with %q", c.name, err, c.code, c.text)
		}
	}
	// Nothing of them is left, and the name is free.
	s.run(t, "refused")
}

func TestImages(t *testing.T) {
	s := newSite(t, noHosts{}, copier{})
	ref := s.push(t, "demo/a:v1", []byte(command))
	same := s.push(t, "other/a:v2", []byte(command))
	st, err := s.images.ImageStatus(t.Context(), &runtime.ImageStatusRequest{Image: &runtime.ImageSpec{Image: ref}})
	if err != nil || st.GetImage() != nil {
		t.Fatalf("an absent image: %v, %v", st, err)
	}
	id := s.pull(t, ref)
	if other := s.pull(t, same); other != id {
		t.Errorf("the same content under another name is %s, not %s", other, id)
	}
	for _, name := range []string{ref, same, id, strings.TrimPrefix(id, "sha256:")} {
		st, err := s.images.ImageStatus(t.Context(), &runtime.ImageStatusRequest{Image: &runtime.ImageSpec{Image: name, Annotations: map[string]string{"a": "b"}}, Verbose: true})
		if err != nil {
			t.Fatal(err)
		}
		i := st.GetImage()
		if i.GetId() != id || i.GetSize() == 0 || i.GetUid() == nil || i.GetUid().GetValue() == 0 || i.GetUsername() != "" ||
			!slices.Equal(i.GetRepoTags(), []string{ref, same}) || i.GetSpec().GetAnnotations()["a"] != "b" || st.GetInfo()["image"] == "" {
			t.Errorf("status of %s: %v", name, st)
		}
	}
	for filter, want := range map[string]int{"": 1, ref: 1, "unknown/x:1": 0} {
		l, err := s.images.ListImages(t.Context(), &runtime.ListImagesRequest{Filter: &runtime.ImageFilter{Image: &runtime.ImageSpec{Image: filter}}})
		if err != nil || len(l.GetImages()) != want {
			t.Errorf("list of %q: %v, %v", filter, l, err)
		}
		stream, err := s.images.StreamImages(t.Context(), &runtime.StreamImagesRequest{Filter: &runtime.ImageFilter{Image: &runtime.ImageSpec{Image: filter}}})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := collect(stream, (*runtime.StreamImagesResponse).GetImages); err != nil || len(got) != want {
			t.Errorf("stream of %q: %v, %v", filter, got, err)
		}
	}
	fs, err := s.images.ImageFsInfo(t.Context(), &runtime.ImageFsInfoRequest{})
	if err != nil || len(fs.GetImageFilesystems()) != 1 || fs.GetImageFilesystems()[0].GetUsedBytes().GetValue() == 0 || fs.GetImageFilesystems()[0].GetTimestamp() == 0 {
		t.Errorf("file system %v, %v", fs, err)
	}
	for range 2 { // one name takes all along; what is gone is gone
		if _, err := s.images.RemoveImage(t.Context(), &runtime.RemoveImageRequest{Image: &runtime.ImageSpec{Image: same}}); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if l, err := s.images.ListImages(t.Context(), &runtime.ListImagesRequest{}); err != nil || len(l.GetImages()) != 0 {
		t.Errorf("after the removal: %v, %v", l, err)
	}
}

// The codes of pulls that fail are those that the kubelet acts on.
func TestPullErrors(t *testing.T) {
	s := newSite(t, noHosts{}, copier{})
	for ref, want := range map[string]struct {
		code codes.Code
		text string
	}{
		s.hub + "/none:v1":    {codes.NotFound, "none"},
		"UPPER":               {codes.InvalidArgument, "UPPER"},
		"":                    {codes.InvalidArgument, ""},
		"127.0.0.1:1/down:v1": {codes.Unknown, "RegistryUnavailable: "},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err := s.images.PullImage(ctx, &runtime.PullImageRequest{Image: &runtime.ImageSpec{Image: ref}})
		cancel()
		if status.Code(err) != want.code || !strings.Contains(status.Convert(err).Message(), want.text) {
			t.Errorf("pull of %q: %v, want %s with %q", ref, err, want.code, want.text)
		}
		if want.code == codes.Unknown && !strings.HasPrefix(status.Convert(err).Message(), want.text) {
			t.Errorf("pull of %q: %q does not begin with %q", ref, status.Convert(err).Message(), want.text)
		}
	}
	if _, err := s.images.PullImage(t.Context(), &runtime.PullImageRequest{Image: &runtime.ImageSpec{Image: "a:1", RuntimeHandler: "runc"}}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("pull for an unknown handler: %v", err)
	}
}

// receiver is the client's side of a streamed list.
type receiver[M any] interface{ Recv() (M, error) }

func collect[M, T any](r receiver[M], items func(M) []T) ([]T, error) {
	var all []T
	for {
		m, err := r.Recv()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, items(m)...)
	}
}

func sorted[T any](items []T, key func(T) string) []string {
	found := map[string]bool{}
	for _, i := range items {
		found[key(i)] = true
	}
	return slices.Sorted(maps.Keys(found))
}
