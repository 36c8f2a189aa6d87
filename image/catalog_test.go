package image

import (
	"fmt"
	"testing"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestFindByDigest: of several entries behind one digest the same is found
// each time, whichever came first.
func TestFindByDigest(t *testing.T) {
	target := digest.FromString("index")
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}} {
		c := newCatalog()
		for _, i := range order {
			e := &entry{manifest: ocispec.Descriptor{Digest: digest.FromString(fmt.Sprint("manifest ", i))},
				img: Image{ID: digest.FromString(fmt.Sprint("id ", i)).String()}}
			c.add(e, fmt.Sprintf("r.example/%c:1", 'a'+i), target, false)
		}
		for range 50 {
			e, err := c.find(target.String())
			if err != nil || e != c.byName["r.example/a:1"].entry {
				t.Fatalf("found %+v, %v; want that of the first name", e, err)
			}
		}
	}
}
