// Package unpack owns the way from layers to a root file system: layers are
// applied within bounds into snapshots, and an image's snapshots are opened as
// a detached mount.
//
// Nothing is mounted while unpacking, so a kill leaves no mount behind; what
// it leaves under the snapshotter's folder, content.Store.Start removes.
// Nothing a layer says leads outside its snapshot: paths are resolved inside
// it, devices, fifos, setuid bits and file capabilities are dropped.
package unpack

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/limpet-cri/limpet/image/content"
)

var (
	// ErrTooLarge: the layers unpack to more than is allowed.
	ErrTooLarge = errors.New("image exceeds a bound")
	// ErrInvalid: a layer is no archive, or not the one its config names.
	ErrInvalid = errors.New("invalid image")
)

// Layer is one layer of a root file system.
type Layer struct {
	ocispec.Descriptor
	DiffID digest.Digest
}

// Limits bound what an image unpacks to. Total counts all layers, those too
// that were unpacked before for another image. Holes of sparse files count as
// bytes, folders that only a path names as entries.
type Limits struct {
	LayerBytes, TotalBytes     int64
	LayerEntries, TotalEntries int64
}

// Unpacked is a root file system in the snapshotter.
type Unpacked struct {
	// Snapshot is the name of the topmost layer, View that of a read-only
	// view of it.
	Snapshot, View string
}

// Labels on a snapshot that say what its layer unpacked to.
const (
	labelBytes   = "limpet.dev/bytes"
	labelEntries = "limpet.dev/entries"
)

// used counts what an image unpacks to.
type used struct{ bytes, entries int64 }

// Unpack applies the layers, from the lowest, and makes a view of the result.
// Preconditions: ctx carries a lease, which keeps the snapshots until a label
// on a blob of the image does, and under which nobody else unpacks.
func Unpack(ctx context.Context, s *content.Store, layers []Layer, lim Limits, layer func(n int)) (Unpacked, error) {
	ctx = content.Context(ctx)
	var total used
	parent := ""
	names := chain(layers)
	for i, l := range layers {
		layer(i)
		u, err := unpackLayer(ctx, s, l, parent, names[i], left(lim, total))
		if err != nil {
			return Unpacked{}, fmt.Errorf("unpack layer %s: %w", l.Digest, err)
		}
		total.bytes += u.bytes
		total.entries += u.entries
		if total.bytes > lim.TotalBytes || total.entries > lim.TotalEntries {
			return Unpacked{}, fmt.Errorf("%w: the layers unpack to more than %d bytes or %d entries", ErrTooLarge, lim.TotalBytes, lim.TotalEntries)
		}
		parent = names[i]
	}
	u := Names(layers)
	if err := keep(ctx, s, u.View); err != nil {
		return Unpacked{}, err
	}
	if _, err := s.Snapshots().View(ctx, u.View, u.Snapshot); err != nil && !errdefs.IsAlreadyExists(err) {
		return Unpacked{}, fmt.Errorf("make a view: %w", err)
	}
	return u, nil
}

// Names are those of the snapshot and the view that Unpack makes of layers.
func Names(layers []Layer) Unpacked {
	if len(layers) == 0 {
		return Unpacked{}
	}
	top := chain(layers)[len(layers)-1]
	return Unpacked{Snapshot: top, View: "view-" + top}
}

// chain names the snapshots. The name binds the layers' own digests besides
// their diff ids: with the diff ids alone, an image that names another's would
// be given its files without having its layers.
func chain(layers []Layer) []string {
	ids := make([]digest.Digest, len(layers))
	names := make([]string, len(layers))
	for i, l := range layers {
		ids[i] = digest.FromString(l.Digest.String() + " " + l.DiffID.String())
		names[i] = identity.ChainID(ids[:i+1]).String()
	}
	return names
}

func left(lim Limits, t used) used {
	return used{bytes: min(lim.LayerBytes, lim.TotalBytes-t.bytes), entries: min(lim.LayerEntries, lim.TotalEntries-t.entries)}
}

// keep puts a snapshot under the lease of ctx, whether it exists yet or not:
// the collector must not take it between being found and being labelled.
func keep(ctx context.Context, s *content.Store, name string) error {
	id, ok := leases.FromContext(ctx)
	if !ok {
		return errors.New("unpack without a lease")
	}
	err := s.Leases().AddResource(ctx, leases.Lease{ID: id}, leases.Resource{ID: name, Type: "snapshots/" + s.Snapshotter()})
	if err != nil {
		return fmt.Errorf("lease snapshot: %w", err)
	}
	return nil
}

func unpackLayer(ctx context.Context, s *content.Store, l Layer, parent, name string, lim used) (used, error) {
	if err := keep(ctx, s, name); err != nil {
		return used{}, err
	}
	sn := s.Snapshots()
	key, err := dropCutOff(ctx, s, name)
	if err != nil {
		return used{}, err
	}
	if i, err := sn.Stat(ctx, name); err == nil {
		return usedOf(i)
	}
	mounts, err := sn.Prepare(ctx, key, parent)
	if err != nil {
		return used{}, fmt.Errorf("prepare snapshot: %w", err)
	}
	u, err := apply(ctx, s, l, mounts, lim)
	if err == nil {
		err = sn.Commit(ctx, name, key, snapshots.WithLabels(map[string]string{
			labelBytes: strconv.FormatInt(u.bytes, 10), labelEntries: strconv.FormatInt(u.entries, 10)}))
	}
	if err == nil {
		return u, nil
	}
	exists := errdefs.IsAlreadyExists(err)
	if rerr := sn.Remove(context.WithoutCancel(ctx), key); rerr != nil && !exists {
		err = errors.Join(err, fmt.Errorf("remove what was unpacked: %w", rerr))
	}
	if exists {
		// Another image unpacked it meanwhile. What could not be removed of
		// this one goes with the lease.
		return u, nil
	}
	return used{}, err
}

// dropCutOff returns the key under which a layer is unpacked. Its lease has one
// holder at a time, so what is there under that key was left by a kill, and
// would take its room for as long as the lease lasts: it is removed.
func dropCutOff(ctx context.Context, s *content.Store, name string) (key string, err error) {
	lease, _ := leases.FromContext(ctx) // keep has seen it
	key = "extract-" + lease + "-" + name
	err = s.Snapshots().Remove(ctx, key)
	switch {
	case err == nil:
		s.CollectSoon() // its files go with the next collection
	case !errdefs.IsNotFound(err):
		return "", fmt.Errorf("remove what a kill left of the layer: %w", err)
	}
	return key, nil
}

// usedOf reads what an unpacked layer took. One that does not say so is not
// taken for empty: the bound on all layers together would not hold.
func usedOf(i snapshots.Info) (u used, err error) {
	for label, to := range map[string]*int64{labelBytes: &u.bytes, labelEntries: &u.entries} {
		if *to, err = strconv.ParseInt(i.Labels[label], 10, 64); err != nil {
			return used{}, fmt.Errorf("snapshot %s: label %s: %w; remove the image and pull it again", i.Name, label, err)
		}
	}
	return u, nil
}
