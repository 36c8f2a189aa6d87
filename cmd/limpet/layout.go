package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// openLayout reads a folder with an OCI layout as a tar stream, which is the
// form in which it travels.
func openLayout(dir string) (archive, error) {
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		return archive{}, fmt.Errorf("%s is a folder without an OCI layout (no oci-layout file in it): name a layout or an archive", dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return archive{}, err
	}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := tar.NewWriter(w)
		err := writeTree(t, root.FS())
		if err == nil {
			err = t.Close()
		}
		w.CloseWithError(err) // nil is the end
	}()
	return archive{r: r, close: func() error {
		err := r.Close() // which ends the goroutine, should it still write
		<-done
		return errors.Join(err, root.Close())
	}}, nil
}

// writeTree writes folders and files; a layout has nothing else.
func writeTree(t *tar.Writer, tree fs.FS) error {
	return fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." || !d.IsDir() && !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		h, err := tar.FileInfoHeader(info, "")
		if err != nil {
			return err
		}
		h.Name = p
		if d.IsDir() {
			h.Name += "/"
		}
		if err := t.WriteHeader(h); err != nil || d.IsDir() {
			return err
		}
		f, err := tree.Open(p)
		if err != nil {
			return err
		}
		_, err = io.Copy(t, f)
		return errors.Join(err, f.Close())
	})
}
