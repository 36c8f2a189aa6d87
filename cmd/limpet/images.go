package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const imagesHelp = `
Lists every name of every image, with its id and its size in the registry.
  --all   also those without a name left
  --ids   whole ids
`

func images(ctx context.Context, a *app, args []string) error {
	f := a.flags("images")
	all := f.Bool("all", false, "list images without a name too")
	whole := f.Bool("ids", false, "print whole ids")
	if _, err := a.parse(f, args, 0, "images [--all] [--ids]"); err != nil {
		return err
	}
	return a.ask(ctx, func(ctx context.Context, d *daemon) error {
		r, err := d.images.ListImages(ctx, &runtime.ListImagesRequest{})
		if err != nil {
			return err
		}
		return writeImages(a.out, r.GetImages(), *all, *whole)
	})
}

func writeImages(w io.Writer, list []*runtime.Image, all, whole bool) error {
	type row struct{ name, id, size string }
	var rows []row
	for _, img := range list {
		names := slices.Clone(img.GetRepoTags())
		if len(names) == 0 {
			names = img.GetRepoDigests()
		}
		if len(names) == 0 && all {
			names = []string{"<none>"}
		}
		for _, n := range names {
			rows = append(rows, row{n, shortID(img.GetId(), whole), bytesText(int64(img.GetSize()))})
		}
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.id, b.id)) })
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(t, "IMAGE\tID\tSIZE")
	for _, r := range rows {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", r.name, r.id, r.size)
	}
	return t.Flush()
}

// idDigits is as much of an id as people need.
const idDigits = 12

func shortID(id string, whole bool) string {
	if whole {
		return id
	}
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(idDigits, len(id))]
}

// bytesText writes a size as people do.
func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, u := float64(n), 0
	for v >= 1024 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	if u == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[u])
}
