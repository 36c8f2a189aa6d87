package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/image"
	"github.com/limpet-cri/limpet/image/reference"
)

const inspectHelp = `
Says what something is, whether it runs here, what it imports and exports, and
whether it is compiled. FILE is a file; else the image is looked for on this
node, by name or id, and if it is not there, in its registry.

  --registry               ask the registry without asking this node
  --json                   everything, as JSON
  --docker-config FILE     credentials, in the format of docker's config.json
  --hosts-dir DIR          a hosts.toml per registry (plain HTTP, certificates)
`

func inspect(ctx context.Context, a *app, args []string) error {
	f := a.flags("inspect")
	remote := a.remoteFlags(f)
	skip := f.Bool("registry", false, "ask the registry without asking this node")
	asJSON := f.Bool("json", false, "print everything, as JSON")
	rest, err := a.parse(f, args, 1, "inspect [flags] FILE|REF")
	if err != nil {
		return err
	}
	v, err := a.lookAt(ctx, rest[0], *skip, remote)
	if err != nil {
		return err
	}
	if *asJSON {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(v.Inspection)
	}
	return writeInspection(a.out, v)
}

// view is an inspection and where it comes from.
type view struct {
	image.Inspection
	where string
	// node is true where it is known whether the modules are compiled.
	node bool
}

// lookAt finds what a name stands for: a file, an image of this node, or one
// of a registry.
func (a *app) lookAt(ctx context.Context, name string, skip bool, remote func(*progress) image.RemoteOptions) (view, error) {
	noFile := errors.New("only the registry was to be asked")
	if !skip {
		info, err := os.Stat(name)
		switch {
		case err == nil && info.Mode().IsRegular():
			i, err := image.InspectFile(name)
			return view{Inspection: i, where: "file"}, err
		case err == nil && info.IsDir():
			noFile = fmt.Errorf("%s is a folder", name)
		case err == nil:
			noFile = fmt.Errorf("%s is no regular file", name)
		case filepath.IsAbs(name) || !filepath.IsLocal(name) || strings.HasPrefix(name, "./"):
			return view{}, err // a path, whatever it leads to
		default:
			noFile = fmt.Errorf("there is no file %s", name)
		}
	}
	_, isID := reference.ID(name)
	if _, err := reference.Parse(name); err != nil && !isID {
		return view{}, fmt.Errorf("%w, and it names no image: %w", noFile, err)
	}
	node := errors.New("not asked")
	if !skip {
		v, err := a.onNode(ctx, name)
		if err == nil {
			return v, nil
		}
		node = err
	}
	if isID {
		return view{}, fmt.Errorf("%w, and an id is known on its node alone: %w", noFile, node)
	}
	p := a.progress()
	i, err := image.InspectRemote(ctx, name, remote(p))
	p.end()
	if err != nil && !skip {
		return view{}, fmt.Errorf("%w; on this node: %w; in the registry: %w", noFile, node, err)
	}
	return view{Inspection: i, where: "registry"}, err
}

var errNotHere = errors.New("no such image")

// onNode asks limpetd for an image by a name, a digest, or an id or as much of
// one as "limpet images" prints.
func (a *app) onNode(ctx context.Context, name string) (v view, err error) {
	v.where, v.node = "this node", true
	return v, a.ask(ctx, func(ctx context.Context, d *daemon) error {
		found, err := d.admin.Inspect(ctx, name, &v.Inspection)
		if err != nil || found {
			return err
		}
		id, err := d.imageID(ctx, name)
		if err != nil {
			return err
		}
		if found, err = d.admin.Inspect(ctx, id, &v.Inspection); err == nil && !found {
			err = errNotHere
		}
		return err
	})
}

// imageID finds the one image whose id begins so.
func (d *daemon) imageID(ctx context.Context, prefix string) (id string, err error) {
	prefix = strings.TrimPrefix(prefix, "sha256:")
	if len(prefix) < idDigits || strings.Trim(prefix, "0123456789abcdef") != "" {
		return "", errNotHere
	}
	r, err := d.images.ListImages(ctx, &runtime.ListImagesRequest{})
	if err != nil {
		return "", err
	}
	for _, img := range r.GetImages() {
		if !strings.HasPrefix(strings.TrimPrefix(img.GetId(), "sha256:"), prefix) {
			continue
		}
		if id != "" {
			return "", fmt.Errorf("%s begins the ids of several images", prefix)
		}
		id = img.GetId()
	}
	if id == "" {
		err = errNotHere
	}
	return id, err
}

func writeInspection(w io.Writer, v view) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(key, value string) {
		if value != "" {
			_, _ = fmt.Fprintf(t, "%s\t%s\n", key, value)
		}
	}
	row("name", v.Name)
	row("found in", v.where)
	row("kind", v.Kind)
	row("digest", v.Digest)
	row("size", bytesText(v.Size))
	row("platform", v.Platform)
	row("offered", strings.Join(v.Platforms, ", "))
	row("runs here", runs(v.Inspection))
	if v.where != "file" {
		row("entry point", quotedList(v.Config.Entrypoint))
		row("arguments", quotedList(v.Config.Cmd))
		row("environment", quotedList(v.Config.Env))
		row("folder", v.Config.WorkingDir)
		row("user", userText(v.Config))
		row("stop signal", v.Config.StopSignal)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, m := range v.Modules {
		if err := writeModule(w, m, v.node); err != nil {
			return err
		}
	}
	return nil
}

func runs(i image.Inspection) string {
	switch {
	case i.Runs && i.Why == "":
		return "yes"
	case i.Runs:
		return "yes, but " + i.Why
	}
	return "no: " + i.Why
}

func userText(c image.RunConfig) string {
	if c.Username != "" {
		return c.Username + " (a name that this image does not resolve)"
	}
	return strconv.FormatInt(c.UID, 10) + ":" + strconv.FormatInt(c.GID, 10)
}

func quotedList(l []string) string {
	q := make([]string, 0, len(l))
	for _, s := range l {
		q = append(q, strconv.Quote(s))
	}
	return strings.Join(q, " ")
}

func writeModule(w io.Writer, m image.Inspected, node bool) error {
	_, _ = fmt.Fprintf(w, "\nmodule %s\n", quoteOdd(m.Path))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(t, "  digest\t%s\n", m.Digest)
	if node {
		_, _ = fmt.Fprintf(t, "  compiled\t%s\n", yesNo(m.Compiled))
	}
	if m.Info == nil {
		return t.Flush()
	}
	_, _ = fmt.Fprintf(t, "  is a\t%s\n", role(m))
	for _, p := range m.Producers {
		_, _ = fmt.Fprintf(t, "  %s\t%s\n", quoteOdd(p.Field), quoteOdd(strings.TrimSpace(p.Name+" "+p.Version)))
	}
	for _, mem := range m.Memories {
		_, _ = fmt.Fprintf(t, "  memory\t%s pages\n", strings.TrimPrefix(mem.String(), "memory "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	lines := make([]string, 0, len(m.Imports))
	for _, i := range m.Imports {
		lines = append(lines, quoteOdd(i.Module)+"."+quoteOdd(i.Name)+"\t"+i.Type)
	}
	if err := writeList(w, "imports", lines); err != nil {
		return err
	}
	lines = lines[:0]
	for _, x := range m.Exports {
		what := x.Type
		if what == "" {
			what = x.Kind
		}
		lines = append(lines, quoteOdd(x.Name)+"\t"+what)
	}
	return writeList(w, "exports", lines)
}

func writeList(w io.Writer, title string, lines []string) error {
	slices.Sort(lines)
	_, _ = fmt.Fprintf(w, "  %s (%d)\n", title, len(lines))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range lines {
		_, _ = fmt.Fprintf(t, "    %s\n", l)
	}
	return t.Flush()
}

func role(m image.Inspected) string {
	what := "library"
	if m.IsCommand() {
		what = "command"
	} else if m.IsReactor() {
		what = "reactor"
	}
	if p := m.WASI(); p != "" {
		return what + " for " + p
	}
	return what + " without WASI"
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// quoteOdd quotes text of a module that a terminal might take for more than
// text, or that has blanks in it where columns matter.
func quoteOdd(s string) string {
	if q := strconv.Quote(s); q != `"`+s+`"` {
		return q
	}
	return s
}
