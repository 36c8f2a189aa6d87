package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// packedImage is an image of an archive under construction.
type packedImage struct {
	name   string
	module []byte
}

// archiveOf writes an OCI layout of several images.
func archiveOf(t *testing.T, list ...packedImage) []byte {
	t.Helper()
	files := []file{{name: "oci-layout", body: `{"imageLayoutVersion":"1.0.0"}`}}
	blob := func(mediaType string, b []byte) ocispec.Descriptor {
		files = append(files, file{name: "blobs/sha256/" + sha(b), body: string(b)})
		return ofBytes(mediaType, b).desc
	}
	text := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var ix ocispec.Index
	for _, p := range list {
		d := blob(ocispec.MediaTypeImageManifest, text(ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest,
			Config: blob(v0Type, text(v0(p.module))), Layers: []ocispec.Descriptor{blob(mediaTypeWasm, p.module)}}))
		d.Annotations = map[string]string{"io.containerd.image.name": p.name}
		ix.Manifests = append(ix.Manifests, d)
	}
	return tarBytes(t, append(files, file{name: "index.json", body: string(text(ix))})...)
}

// saved writes an archive as docker saves it, of one image with one layer.
func saved(t *testing.T, tag, body string) []file {
	t.Helper()
	layer := tarLayer(t, "", file{name: "app.wasm", body: body})
	c := imageConfig("wasi", "wasm", "/app.wasm")
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", append(c.RootFS.DiffIDs, layer.diffID)
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return []file{{name: "config.json", body: string(b)}, {name: "layer.tar", body: string(layer.bytes)},
		{name: "manifest.json", body: `[{"Config":"config.json","RepoTags":["` + tag + `"],"Layers":["layer.tar"]}]`}}
}

// nothingVisible: an import that failed leaves nothing to see, and when the
// collector was there nothing at all.
func nothingVisible(t *testing.T, s *Service) {
	t.Helper()
	if l := s.List(""); len(l) != 0 {
		t.Errorf("can be seen: %+v", l)
	}
	if err := s.store.Collect(context.Background()); err != nil {
		t.Fatal(err)
	}
	if blobs, ingests := countFiles(t, s, "content/blobs/sha256"), countFiles(t, s, "content/ingest"); blobs != 0 || ingests != 0 {
		t.Errorf("%d blobs and %d ingests are left", blobs, ingests)
	}
}

// TestImportWhole: an archive is imported whole or not at all, and the error
// says which image it was.
func TestImportWhole(t *testing.T) {
	s, _ := open(t, Config{})
	good := packedImage{"r.example/good:1", wasmModule("good")}
	_, err := s.Import(context.Background(), bytes.NewReader(archiveOf(t, good, packedImage{"r.example/evil:1", wasmModule("bad")}, packedImage{"r.example/last:1", wasmModule("last")})))
	if !errors.Is(err, ErrCompile) || !strings.Contains(err.Error(), "r.example/evil:1") || !strings.Contains(err.Error(), "nothing of the archive was imported") {
		t.Errorf("got %v", err)
	}
	nothingVisible(t, s)
	list, err := s.Import(context.Background(), bytes.NewReader(archiveOf(t, good, packedImage{"r.example/last:1", wasmModule("last")})))
	if err != nil || len(list) != 2 || len(s.List("")) != 2 {
		t.Errorf("control: %+v, %v", list, err)
	}
}

// TestImportOneName: two images of one name are refused, whichever would have
// won; one image that is listed twice is no such thing.
func TestImportOneName(t *testing.T) {
	s, _ := open(t, Config{})
	one, two := packedImage{"r.example/a:1", wasmModule("one")}, packedImage{"r.example/a:1", wasmModule("two")}
	_, err := s.Import(context.Background(), bytes.NewReader(archiveOf(t, one, two)))
	if !errors.Is(err, ErrInvalidImage) || !strings.Contains(err.Error(), "two images of the name r.example/a:1") {
		t.Errorf("got %v", err)
	}
	nothingVisible(t, s)
	two = packedImage{"r.example/b:1", one.module}
	list, err := s.Import(context.Background(), bytes.NewReader(archiveOf(t, one, one, two)))
	if err != nil || len(list) != 2 || len(s.List("")) != 1 || len(s.List("")[0].RepoTags) != 2 {
		t.Errorf("control: %+v, %v, listed %+v", list, err, s.List(""))
	}
}

// sparse is a file of an archive that has n bytes and stores none of them.
func sparse(t *testing.T, name string, n int64) []byte {
	t.Helper()
	block := func(typ byte, name string, body string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(body)), Mode: 0o644, Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		h := b.Bytes()
		h[156] = typ
		copy(h[148:156], "        ")
		sum := 0
		for _, c := range h[:512] {
			sum += int(c)
		}
		copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
		return h
	}
	var records string
	for _, r := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=" + name, fmt.Sprint("GNU.sparse.realsize=", n)} {
		l := len(r) + 4
		records += fmt.Sprintf("%02d %s\n", l, r)
	}
	return append(block('x', "pax", records), block('0', "sparse", "0\n"+strings.Repeat("\x00", 510))...)
}

// TestImportHostile: archives made to harm end in an error within bounds.
func TestImportHostile(t *testing.T) {
	module := string(wasmModule("hostile"))
	good := saved(t, "r.example/a:1", module)
	with := func(extra ...file) []byte { return tarBytes(t, append(extra, good...)...) }
	entry := `{"Config":"config.json","Layers":["layer.tar"]}`
	replaced := func(manifest string) []byte {
		return tarBytes(t, good[0], good[1], file{name: "manifest.json", body: manifest})
	}
	for what, c := range map[string]struct {
		b    []byte
		as   error // nil: imported
		says string
	}{
		"as it should be":                {with(), nil, ""},
		"a manifest above":               {tarBytes(t, good[0], good[1], file{name: "../manifest.json", body: good[2].body}), ErrInvalidImage, "no OCI layout"},
		"a manifest at the root":         {tarBytes(t, good[0], good[1], file{name: "/manifest.json", body: good[2].body}), ErrInvalidImage, "no OCI layout"},
		"a manifest by a detour":         {tarBytes(t, good[0], good[1], file{name: "blobs/../manifest.json", body: good[2].body}), nil, ""},
		"a manifest that is a link":      {tarBytes(t, good[0], good[1], file{name: "manifest.json", link: "/etc/passwd", typ: tar.TypeSymlink}), ErrInvalidImage, "no OCI layout"},
		"a layout that is a link":        {tarBytes(t, file{name: "oci-layout", link: "index.json", typ: tar.TypeSymlink}, file{name: "index.json", body: "{}"}), ErrInvalidImage, "no OCI layout"},
		"files above and at the root":    {with(file{name: "../x.json", body: "{}"}, file{name: "/etc/x.json", body: "{}"}, file{name: "blobs/../../x.tar", body: "x"}, file{name: "..", body: "x"}), nil, ""},
		"a layer that links out":         {tarBytes(t, good[0], file{name: "layer.tar", link: "../../../../etc/passwd", typ: tar.TypeSymlink}, good[2]), ErrInvalidImage, "layer.tar"},
		"a layer that links to the root": {tarBytes(t, good[0], file{name: "layer.tar", link: "/etc/passwd", typ: tar.TypeSymlink}, good[2]), ErrInvalidImage, "layer.tar"},
		"a layer that links to itself":   {tarBytes(t, good[0], file{name: "layer.tar", link: "layer.tar", typ: tar.TypeSymlink}, good[2]), ErrInvalidImage, "layer.tar"},
		"a layer that is linked":         {tarBytes(t, good[0], file{name: "x/layer.tar", body: good[1].body}, file{name: "layer.tar", link: "x/layer.tar", typ: tar.TypeSymlink}, good[2]), nil, ""},
		"a layer above":                  {tarBytes(t, good[0], file{name: "../layer.tar", body: good[1].body}, file{name: "manifest.json", body: strings.ReplaceAll(good[2].body, "layer.tar", "../layer.tar")}), ErrInvalidImage, "layer"},
		"a hard link out":                {tarBytes(t, good[0], file{name: "layer.tar", link: "/etc/passwd", typ: tar.TypeLink}, good[2]), ErrInvalidImage, "layer.tar"},
		"no JSON":                        {replaced(`[{]`), ErrInvalidImage, "manifest.json"},
		"many images":                    {replaced("[" + strings.Repeat(entry+",", maxArchiveImages) + entry + "]"), ErrTooLarge, "images"},
		"many names":                     {replaced(`[{"Config":"config.json","Layers":["layer.tar"],"RepoTags":["a:1"` + strings.Repeat(`,"a:1"`, maxArchiveImages) + `]}]`), ErrTooLarge, "images"},
		"many layers":                    {replaced(`[{"Config":"config.json","Layers":["layer.tar"` + strings.Repeat(`,"layer.tar"`, 128) + `]}]`), ErrTooLarge, "layers"},
		"a huge manifest":                {replaced(strings.Repeat(" ", 4<<20) + good[2].body), ErrTooLarge, "manifest.json"},
		"a hole of 1 TiB":                {append(sparse(t, "layer.tar", 1<<40), with()...), ErrTooLarge, ""},
		"a hole of 1 MiB":                {append(sparse(t, "layer.tar", 1<<20), with()...), nil, ""},
	} {
		t.Run(what, func(t *testing.T) {
			s, _ := open(t, Config{MaxImageBytes: 64 << 20})
			list, err := s.Import(context.Background(), bytes.NewReader(c.b))
			if !errors.Is(err, c.as) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("imported %v, %v; want %v with %q", list, err, c.as, c.says)
			}
			if c.as != nil {
				nothingVisible(t, s)
			} else if len(list) != 1 {
				t.Errorf("imported %+v", list)
			}
		})
	}
}

// TestImportAfterCut: what came of an archive that was cut off is not mixed
// with the next, whose files may have the same names.
func TestImportAfterCut(t *testing.T) {
	s, _ := open(t, Config{})
	first := tarBytes(t, saved(t, "r.example/a:1", string(wasmModule("first"))+strings.Repeat("\x00\x03\x01x1", 100_000))...)
	if _, err := s.Import(context.Background(), bytes.NewReader(first[:len(first)/2])); err == nil {
		t.Fatal("half an archive was imported")
	}
	if n := countFiles(t, s, "content/ingest"); n != 0 {
		t.Errorf("%d files of the archive that was cut are left", n)
	}
	second := tarBytes(t, saved(t, "r.example/a:1", string(wasmModule("other"))+strings.Repeat("\x00\x03\x01x2", 100_000))...)
	if _, err := s.Import(context.Background(), bytes.NewReader(second)); err != nil {
		t.Error(err)
	}
}
