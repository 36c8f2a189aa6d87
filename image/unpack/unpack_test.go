package unpack

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"

	blobs "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/log"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/limpet-cri/limpet/image/content"
)

func TestMain(m *testing.M) {
	// The libraries' own logger, which limpetd silences too.
	log.L.Logger.SetOutput(io.Discard)
	m.Run()
}

// whenRead calls fn once, while a layer is read.
type whenRead struct {
	context.Context
	once *sync.Once
	fn   func()
}

// Err implements context.Context.
func (c whenRead) Err() error {
	pc, _, _, _ := runtime.Caller(1)
	if strings.HasSuffix(runtime.FuncForPC(pc).Name(), "(*quota).Read") {
		c.once.Do(c.fn)
	}
	return c.Context.Err()
}

// TestTwoAtOnce: two images that unpack the same layer under leases of their
// own both have it, and what the later one unpacked in vain does not stay.
func TestTwoAtOnce(t *testing.T) {
	s, err := content.Open(content.Config{Root: t.TempDir(), Snapshotter: content.Native}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx := content.Context(t.Context())
	lease := func(id string) context.Context {
		if _, err := s.Leases().Create(ctx, leases.WithID(id)); err != nil {
			t.Fatal(err)
		}
		return leases.WithLease(ctx, id)
	}
	b := archiveOf(t, item{name: "f", body: "x"})
	layer := Layer{ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(b), Size: int64(len(b))}, digest.FromBytes(b)}
	one, two := lease("one"), lease("two")
	if err := blobs.WriteBlob(one, s.Blobs(), "layer", strings.NewReader(string(b)), layer.Descriptor); err != nil {
		t.Fatal(err)
	}
	lim := Limits{LayerBytes: 1 << 20, TotalBytes: 1 << 20, LayerEntries: 10, TotalEntries: 10}
	tell := func(int) {}
	var first Unpacked
	second, err := Unpack(whenRead{two, new(sync.Once), func() {
		if first, err = Unpack(one, s, []Layer{layer}, lim, tell); err != nil {
			t.Error(err)
		}
	}}, s, []Layer{layer}, lim, tell)
	if err != nil || first != second || first.Snapshot == "" {
		t.Errorf("%+v and %+v, %v", first, second, err)
	}
	names := map[string]snapshots.Kind{}
	if err := s.Snapshots().Walk(ctx, func(_ context.Context, i snapshots.Info) error { names[i.Name] = i.Kind; return nil }); err != nil {
		t.Fatal(err)
	}
	if len(names) != 2 || names[first.Snapshot] != snapshots.KindCommitted || names[first.View] != snapshots.KindView {
		t.Errorf("there are %v; want the layer and its view", names)
	}
}
