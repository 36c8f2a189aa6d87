package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/limpet-cri/limpet/cri/admin"
)

const importHelp = `
Loads the images of a tar archive, as "docker save", "ctr images export" or
"skopeo copy ... oci-archive:FILE" write it, or of a folder with an OCI layout,
into the limpetd of this node. "-" reads an archive from standard input. Images
keep the names that the archive gives them.
`

func importArchive(ctx context.Context, a *app, args []string) (err error) {
	rest, err := a.parse(a.flags("import"), args, 1, "import FILE")
	if err != nil {
		return err
	}
	archive, err := a.openArchive(rest[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, archive.close()) }()
	d, err := a.dial()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	p := a.progress()
	images, err := d.admin.Import(ctx, &counted{r: archive.r, p: p, stage: "import " + rest[0], total: archive.size})
	p.end()
	if err != nil {
		return fmt.Errorf("import %s: %w", rest[0], plainError(err))
	}
	return a.writeImported(images)
}

func (a *app) writeImported(images []admin.Image) error {
	for _, img := range images {
		names := img.Tags
		if len(names) == 0 {
			names = img.Digests
		}
		if len(names) == 0 {
			names = []string{img.ID}
		}
		for _, n := range names {
			if _, err := fmt.Fprintf(a.out, "%s (%s, %s)\n", n, img.Kind, bytesText(int64(img.Size))); err != nil {
				return err
			}
		}
	}
	return nil
}

// archive is an open archive; size is 0 where it is not known.
type archive struct {
	r     io.Reader
	size  int64
	close func() error
}

func (a *app) openArchive(name string) (archive, error) {
	if name == "-" {
		return archive{r: a.in, close: func() error { return nil }}, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return archive{}, err
	}
	if info.IsDir() {
		return openLayout(name)
	}
	f, err := os.Open(name)
	if err != nil {
		return archive{}, err
	}
	return archive{r: f, size: info.Size(), close: f.Close}, nil
}
