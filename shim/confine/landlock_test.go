package confine_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/limpet-cri/limpet/shim/confine"
)

// What Landlock refuses when nothing else does: the user is root, the filter
// allows every call, the volume's mount is writable, the network is the node's.
// Each refusal has its control, the same without Landlock.
func TestLandlockAlone(t *testing.T) {
	needRoot(t)
	abi := confine.LandlockABI()
	if abi < confine.MinLandlock {
		t.Skip("needs Landlock, version 2")
	}
	name := "limpet-test-" + filepath.Base(t.TempDir()) + filepath.Base(filepath.Dir(t.TempDir()))
	l, err := net.Listen("unix", "@"+name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	rows := []struct {
		abi                     int
		action, refused, allows string
	}{
		{2, "open /", "EACCES", "ok"},
		{2, "exec /code", "EACCES", "ENOEXEC"},
		{2, "write /guest/volume/f", "EACCES", "ok"},
		{2, "create /guest/volume/new", "EACCES", "ok"},
		{2, "rename /guest/volume/a/f /guest/volume/b/f", "EACCES", "ok"},
		{3, "truncate /guest/volume/f", "EACCES", "ok"},
		{4, "bind 0", "EACCES", "ok"},
		{4, "connect 9", "EACCES", "ECONNREFUSED"},
		{6, "abstract " + name, "EPERM", "ok"},
	}
	var payload strings.Builder
	for _, r := range rows {
		payload.WriteString(r.action + "\n")
	}
	for _, skip := range []string{"", "landlock"} {
		p := run(t, setup{
			payload: payload.String(), skip: skip, codeMode: 0o755,
			mounts: []volume{{source: writable(t), path: "/volume", attr: confine.Volume}},
			order: func(o *confine.Order) {
				o.UID, o.GID, o.Groups, o.AllowRoot, o.Filter, o.NetNS = 0, 0, nil, true, allowAll, 0
				o.Mounts[0].Writable, o.Root.ReadOnly = false, true
			},
		})
		for _, r := range rows {
			want := r.refused
			if skip != "" || abi < r.abi {
				want = r.allows
			}
			if got := p.answers[r.action]; got != want {
				t.Errorf("without %q: %s is %s, want %s", skip, r.action, got, want)
			}
		}
	}
}

// A read-only root is one for Landlock too.
func TestLandlockReadOnlyRoot(t *testing.T) {
	if confine.LandlockABI() < confine.MinLandlock {
		t.Skip("needs Landlock, version 2")
	}
	for readOnly, want := range map[bool]string{true: "EACCES", false: "ok"} {
		p := run(t, setup{payload: "create /guest/x\n", skip: "read-only", order: func(o *confine.Order) {
			o.UID, o.GID, o.AllowRoot, o.Root.ReadOnly = 0, 0, true, readOnly
		}})
		if got := p.answers["create /guest/x"]; got != want {
			t.Errorf("read-only %v: %s, want %s", readOnly, got, want)
		}
	}
}

// writable makes a folder of root's with files and folders.
func writable(t *testing.T) string {
	dir := t.TempDir()
	for _, f := range []string{"f", "a/f"} {
		writeFile(t, filepath.Join(dir, f), "text")
	}
	if err := os.Mkdir(filepath.Join(dir, "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
