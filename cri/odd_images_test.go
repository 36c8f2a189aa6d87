package cri

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// References that are none, in every call that takes one.
func TestOddImages(t *testing.T) {
	s := newSite(t, noHosts{}, copier{})
	s.pull(t, s.push(t, "odd:v1", []byte(command)))
	for _, ref := range []string{
		"", " ", "\x00", "A", "a b", ":", "@", "x@sha256:", "x@sha256:" + strings.Repeat("z", 64), "sha256:",
		"../../etc/passwd", "http://example.com/a", "a/" + strings.Repeat("b", 1<<20), "[::1", "a\nb", "-", "日本",
	} {
		spec := &runtime.ImageSpec{Image: ref}
		name := ref[:min(len(ref), 40)]
		_, err := s.images.PullImage(t.Context(), &runtime.PullImageRequest{Image: spec})
		refused(t, "pull "+name, err, codes.InvalidArgument, "")
		if text := status.Convert(err).Message(); text == "" || len(text) > maxText+100 {
			t.Errorf("pull %q: the error has %d bytes", name, len(text))
		}
		for what, err := range map[string]error{
			"status": second(s.images.ImageStatus(t.Context(), &runtime.ImageStatusRequest{Image: spec, Verbose: true})),
			"remove": second(s.images.RemoveImage(t.Context(), &runtime.RemoveImageRequest{Image: spec})),
			"list":   second(s.images.ListImages(t.Context(), &runtime.ListImagesRequest{Filter: &runtime.ImageFilter{Image: spec}})),
		} {
			if c := status.Code(err); c != codes.OK && c != codes.InvalidArgument {
				t.Errorf("%s %q: %v", what, name, err)
			}
		}
		if found, err := s.admin.Inspect(t.Context(), ref, &struct{}{}); found || err != nil && status.Code(err) != codes.InvalidArgument {
			t.Errorf("inspect %q: %v, %v", name, found, err)
		}
	}
	if l, err := s.images.ListImages(t.Context(), &runtime.ListImagesRequest{}); err != nil || len(l.GetImages()) != 1 {
		t.Errorf("the image that is there: %v, %v", l, err)
	}
	if _, err := s.admin.Import(t.Context(), strings.NewReader("no archive")); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("import of junk: %v", err)
	}
	if strings.Contains(s.log.String(), "panic") {
		t.Errorf("a call panicked:\n%s", s.log)
	}
}

func second[T any](_ T, err error) error { return err }
