package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/archive"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// hostile are layers that try to reach OUTSIDE, which is the folder that holds
// the root, or take an archive's reader in.
func hostile() map[string][]item {
	in := func(name string) item { return item{name: name, body: "evil"} }
	link := func(name, to string) item { return item{name: name, link: to, typ: tar.TypeSymlink} }
	hard := func(name, to string) item { return item{name: name, link: to, typ: tar.TypeLink} }
	dir := func(name string) item { return item{name: name, typ: tar.TypeDir, mode: 0o777} }
	return map[string][]item{
		"dots":                    {in("../witness")},
		"many dots":               {in("../../../../../../../../witness")},
		"dots inside":             {in("a/../../witness")},
		"absolute":                {in("OUTSIDE/witness")},
		"through a link":          {link("l", ".."), in("l/witness")},
		"through an absolute":     {link("l", "OUTSIDE"), in("l/witness")},
		"through two links":       {link("a", ".."), link("b", "a/.."), in("b/witness")},
		"over a link":             {link("witness", "../witness"), in("witness")},
		"hard link outside":       {hard("h", "../witness"), in("h")},
		"hard link, absolute":     {hard("h", "OUTSIDE/witness")},
		"hard link by link":       {link("l", ".."), hard("h", "l/witness")},
		"hard link to a link":     {link("l", "../witness"), hard("h", "l"), in("h")},
		"hard link, metadata":     {link("l", "OUTSIDE/witness"), {name: "h", link: "l", typ: tar.TypeLink, mode: 0o777, uid: 99}},
		"hard link to the root":   {hard("h", "/"), hard("i", "."), hard("j", "")},
		"whiteout outside":        {in("../.wh.witness")},
		"whiteout of dots":        {in(".wh..."), in(".wh..wh..opq")},
		"whiteout of nothing":     {in(".wh.")},
		"whiteout of a dot":       {in(".wh..")},
		"whiteout, dots":          {in("a/.wh...")},
		"whiteout by a link":      {link("l", ".."), in("l/.wh.witness")},
		"whiteout that is a link": {link(".wh.l", "OUTSIDE/witness"), in(".wh.l")},
		"whiteout of whiteouts":   {in(".wh..wh.witness"), in(".wh..wh..wh..opq")},
		"opaque outside":          {in("../.wh..wh..opq")},
		"opaque through links":    {link("l", ".."), in("l/.wh..wh..opq")},
		"opaque and a folder":     {dir(".wh..wh..opq"), in(".wh..wh..opq/witness")},
		"directory over":          {link("l", ".."), dir("l"), in("l/witness")},
		"link over a directory":   {dir("d"), in("d/witness"), link("d", ".."), in("d/witness")},
		"file over a directory":   {dir("d"), in("d/witness"), in("d"), in("d/witness")},
		"directory over a file":   {in("d"), dir("d"), in("d/witness")},
		"again and again":         {in("f"), in("f"), link("f", "../witness"), in("f"), dir("f"), in("f")},
		"loop":                    {link("a", "b"), link("b", "a"), in("a/witness")},
		"mode of outside":         {link("l", ".."), dir("l/")},
		"the root itself":         {link(".", ".."), in("."), link("/", ".."), in("witness")},
		"root as a file":          {link("..", "/"), in("../root"), link("../root", "/"), in("../root/witness")},
		"link below":              {link("below/l", "../.."), in("below/l/witness")},
		"lower folder's link":     {link("below", "OUTSIDE"), in("below/witness")},
		"lower link, replaced":    {dir("out"), in("out/witness")},
		"lower link, through":     {in("out/witness"), hard("h", "out/witness"), in("out/.wh.witness"), in("out/.wh..wh..opq")},
		"lower file is a folder":  {in("file/witness")},
		"deep":                    {in(strings.Repeat("d/", 1500) + "f")},
		"a long part":             {in(strings.Repeat("d", 300) + "/f")},
		"a long name":             {in(strings.Repeat("dd/", 100_000) + "f")},
		"a long link":             {link("l", strings.Repeat("../", 2000)+"witness"), in("l")},
		"device below":            {{name: "d", typ: tar.TypeChar}, in("d/f")},
		"of a strange kind":       {{name: "s", typ: 'Z'}, in("f")},
		"odd bytes":               {in("\xff\xfe"), in("a\nb"), in("\x1b[2J"), in(" "), in("a\\b")},
		"a time out of range":     {{name: "f", body: "x", pax: map[string]string{"MTIME": "99999999999999999", "ATIME": "-99999999999999999"}}},
		"pax moves it":            {{name: "f", body: "x", pax: map[string]string{"PATH": "../witness"}}},
		"pax moves its link":      {{name: "h", typ: tar.TypeLink, link: "f", pax: map[string]string{"LINKPATH": "../witness"}}},
		"pax with a zero byte":    {{name: "f", body: "x", pax: map[string]string{"PATH": "../witnessZERO/f"}}},
		"pax with an owner":       {{name: "f", body: "x", pax: map[string]string{"UID": "4294967296", "GID": "-1"}}},
		"pax with a size":         {{name: "f", body: "x", pax: map[string]string{"SIZE": "-1"}}, in("g")},
		"pax with a large size":   {{name: "f", body: "x", pax: map[string]string{"SIZE": "9223372036854775807"}}, in("g")},
		"xattr of the system's":   {{name: "f", body: "x", pax: map[string]string{"SCHILY.xattr.security.selinux": "x", "SCHILY.xattr.system.posix_acl_access": "x", "SCHILY.xattr.": "x"}}},
	}
}

// keysOfPax are the records that no writer lets a caller set.
var keysOfPax = strings.NewReplacer("LINKPATH=", "linkpath=", "PATH=", "path=", "MTIME=", "mtime=", "ATIME=", "atime=",
	"UID=", "uid=", "GID=", "gid=", "SIZE=", "size=", "ZERO", "\x00\x00\x00\x00")

// TestHostile: no entry reaches outside of the folder, whether it is the lowest
// layer's or lies above another. Beside it stands a witness, which every case
// tries to change, and the layer below must not change either.
func TestHostile(t *testing.T) {
	for name, items := range hostile() {
		for _, above := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", above another ", above), func(t *testing.T) {
				if above && os.Geteuid() != 0 {
					t.Skip("whiteouts of overlay need root")
				}
				outside := t.TempDir()
				witness, root := filepath.Join(outside, "witness"), filepath.Join(outside, "root")
				if err := errors.Join(os.WriteFile(witness, []byte("good"), 0o600), os.Mkdir(root, 0o755)); err != nil {
					t.Fatal(err)
				}
				// What a layer below left: beside the root, or in it.
				lower, opts := root, []archive.ApplyOpt(nil)
				if above {
					lower = filepath.Join(outside, "lower")
					opts = []archive.ApplyOpt{archive.WithParents([]string{lower}), archive.WithConvertWhiteout(archive.OverlayConvertWhiteout)}
				}
				if err := errors.Join(os.MkdirAll(filepath.Join(lower, "below"), 0o755), os.WriteFile(filepath.Join(lower, "file"), []byte("good"), 0o600),
					os.Symlink(outside, filepath.Join(lower, "out"))); err != nil {
					t.Fatal(err)
				}
				before := listing(t, outside)
				var real []item
				for _, i := range items {
					i.name, i.link = strings.ReplaceAll(i.name, "OUTSIDE", outside), strings.ReplaceAll(i.link, "OUTSIDE", outside)
					real = append(real, i)
				}
				b := []byte(keysOfPax.Replace(string(archiveOf(t, real...))))
				_, err := applyTar(context.Background(), bytes.NewReader(b), root, opts, digest.FromBytes(b), wide)
				if err != nil && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooLarge) {
					t.Errorf("error %v, wanted one of the image's", err)
				}
				if after := listing(t, outside); after != before {
					t.Errorf("outside changed (%v):\n%s\nwas\n%s", err, after, before)
				}
				var st unix.Stat_t
				if err := unix.Stat(witness, &st); err != nil || st.Nlink != 1 {
					t.Errorf("witness has %d links, %v", st.Nlink, err)
				}
				if fi, err := os.Lstat(root); err != nil || !fi.IsDir() {
					t.Errorf("the root is %v, %v", fi, err)
				}
			})
		}
	}
}
