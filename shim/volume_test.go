package shim_test

import (
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/limpet-cri/limpet/shim/logs"
	"github.com/limpet-cri/limpet/shim/spec"
)

// publish writes a version of a ConfigMap as the kubelet does: a new folder,
// and a link to it renamed over the old one.
func (n *node) publish(dir, version string) {
	n.Helper()
	to := filepath.Join(dir, "..v"+version)
	for _, err := range []error{
		os.Mkdir(to, 0o755),
		os.WriteFile(filepath.Join(to, "key"), []byte(version), 0o644),
		os.Symlink("..v"+version, filepath.Join(dir, "..data_tmp")),
		os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")),
	} {
		if err != nil {
			n.Fatal(err)
		}
	}
}

// A running guest sees the update of a ConfigMap, all of it at once, through
// the links that the kubelet makes and through a link of another volume, in a
// mount that is read-only and older than the update.
func TestVolumeIsUpdated(t *testing.T) {
	n := newNode(t)
	config, other := filepath.Join(n.dir, "config"), filepath.Join(n.dir, "other")
	for _, dir := range []string{config, other} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n.publish(config, "1")
	for link, to := range map[string]string{config + "/key": "..data/key", other + "/link": "/etc/app/config/key"} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	// Prints what it reads through the other volume's link, until that is "2".
	guest := wat(`(local $fd i32)
	  (loop $again
	    (if (call $path_open (i32.const 4) (i32.const 1) (i32.const 4096) (i32.const 8) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 16))
	      (then (call $proc_exit (i32.const 9))))
	    (local.set $fd (i32.load (i32.const 16)))
	    (i32.store (i32.const 0) (i32.const 2048)) (i32.store (i32.const 4) (i32.const 1))
	    (if (call $fd_read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)) (then (call $proc_exit (i32.const 8))))
	    (drop (call $fd_close (local.get $fd)))
	    (i32.store8 (i32.const 2049) (i32.const 10))
	    (call $print (i32.const 1) (i32.const 2048) (i32.const 2))
	    (if (i32.eq (i32.load8_u (i32.const 2048)) (i32.const 50)) (then (return)))
	    (call $sleep (i64.const 1000000))
	    (br $again))`, text("srv/link"))
	c := n.container(guest, func(c *spec.Container) {
		c.OCI.Mounts = []specs.Mount{
			{Destination: "/etc/app/config", Source: config, Options: []string{"ro"}},
			{Destination: "/srv", Source: other, Options: []string{"ro"}},
		}
	})
	h := n.start(c)
	n.awaitOutput(c, "1")
	n.publish(config, "2")
	if x := n.ended(h); x.Code != 0 {
		t.Errorf("ended with %+v, wrote %q", x, n.output(c, logs.Stdout))
	}
}
