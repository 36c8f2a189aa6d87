package image

import (
	"cmp"
	"maps"
	"slices"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/limpet-cri/limpet/image/reference"
)

// entry is one manifest as the service knows it.
type entry struct {
	img Image
	// manifest is behind the names, which may stand for an index.
	manifest ocispec.Descriptor
	layers   []ocispec.Descriptor
	config   ocispec.Descriptor
	// view is the snapshot of its root file system; "" without one.
	view string
}

// named is a name and what it stands for.
type named struct {
	*entry
	target digest.Digest
	pinned bool
}

// catalog is the list of images: what the kubelet asks for every few seconds
// is answered from it. Several manifests can be one image (the same layers
// compressed otherwise); its names are then those of all of them.
type catalog struct {
	byName map[string]named
	// byID holds, for each image, its names.
	byID map[string]map[string]struct{}
	// shown is what is handed out.
	shown map[string]Image
}

func newCatalog() catalog {
	return catalog{byName: map[string]named{}, byID: map[string]map[string]struct{}{}, shown: map[string]Image{}}
}

// add puts a name of an image into the list, or moves it there.
func (c *catalog) add(e *entry, name string, target digest.Digest, pinned bool) {
	c.dropName(name)
	c.byName[name] = named{e, target, pinned}
	if c.byID[e.img.ID] == nil {
		c.byID[e.img.ID] = map[string]struct{}{}
	}
	c.byID[e.img.ID][name] = struct{}{}
	c.refresh(e.img.ID)
}

func (c *catalog) dropName(name string) {
	n, ok := c.byName[name]
	if !ok {
		return
	}
	delete(c.byName, name)
	delete(c.byID[n.img.ID], name)
	c.refresh(n.img.ID)
}

func (c *catalog) names(id string) []string {
	return slices.Sorted(maps.Keys(c.byID[id]))
}

// refresh derives what is shown of an image. The slices are new each time:
// they are handed out.
func (c *catalog) refresh(id string) {
	names := c.names(id)
	if len(names) == 0 {
		delete(c.byID, id)
		delete(c.shown, id)
		return
	}
	img := c.byName[names[0]].img
	img.RepoTags, img.RepoDigests, img.Pinned = []string{}, []string{}, false
	for _, name := range names {
		n := c.byName[name]
		r, err := reference.Parse(name)
		if err != nil {
			continue
		}
		if r.Tag != "" {
			img.RepoTags = append(img.RepoTags, name)
		}
		if d := r.At(n.target).String(); !slices.Contains(img.RepoDigests, d) {
			img.RepoDigests = append(img.RepoDigests, d)
		}
		img.Pinned = img.Pinned || n.pinned
	}
	slices.Sort(img.RepoDigests)
	c.shown[id] = img
}

// find resolves what a client may call an image by: an id with or without its
// algorithm, the digest of its manifest or index, a tag, a name at a digest.
// The entry is nil when nothing is called that.
func (c *catalog) find(ref string) (*entry, error) {
	d, isID := reference.ID(ref)
	if !isID {
		r, err := reference.Parse(ref)
		if err != nil {
			return nil, err
		}
		return c.byName[r.String()].entry, nil
	}
	if names := c.names(d.String()); len(names) > 0 {
		return c.byName[names[0]].entry, nil
	}
	// Several names may stand for it; the first in order is taken, always.
	var found *entry
	first := ""
	for name, n := range c.byName {
		if (n.manifest.Digest == d || n.target == d) && (found == nil || name < first) {
			found, first = n.entry, name
		}
	}
	return found, nil
}

// Status finds an image by tag, digest or id; ok is false when it is not on
// the node.
func (s *Service) Status(ref string) (img Image, ok bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, err := s.known.find(ref)
	if err != nil || e == nil {
		return Image{}, false, err
	}
	return s.known.shown[e.img.ID], true, nil
}

// List returns all images, or the one that ref names; sorted by id.
func (s *Service) List(ref string) []Image {
	if ref != "" {
		img, ok, err := s.Status(ref)
		if err != nil || !ok {
			return nil
		}
		return []Image{img}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := slices.Collect(maps.Values(s.known.shown))
	slices.SortFunc(list, func(a, b Image) int { return cmp.Compare(a.ID, b.ID) })
	return list
}
