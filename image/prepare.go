package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/limpet-cri/limpet/image/artifact"
	"github.com/limpet-cri/limpet/image/content"
	"github.com/limpet-cri/limpet/image/unpack"
)

// containerLease begins the name of a container's lease.
const containerLease = "ctr-"

// Root is the file system of an image.
type Root struct{ mounts []mount.Mount }

// Open makes a detached mount of it, which ends with its last descriptor. With
// an upper and a work folder (both there, on one file system, and empty) it
// can be written to; without them it is read-only.
func (r *Root) Open(upper, work string) (*os.File, error) {
	return unpack.Open(r.mounts, upper, work)
}

// Prepare makes an image ready for a container: a lease keeps it, the module
// that argv0 names is found and compiled. argv0 is the first of the
// container's arguments, "" for the image's own. It may be called again for
// the same container.
func (s *Service) Prepare(ctx context.Context, ref, containerID, argv0 string, proposals []string) (*Prepared, error) {
	ctx = content.Context(ctx)
	e, err := s.hold(ctx, ref, containerID)
	if err != nil {
		return nil, err
	}
	p, err := s.prepare(ctx, e, argv0, proposals)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		return nil, errors.Join(mean(err), s.Release(undo, containerID))
	}
	return p, nil
}

// hold takes the lease first and looks again after it: an image that was
// removed in between is not held by it.
func (s *Service) hold(ctx context.Context, ref, containerID string) (*entry, error) {
	e, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	err = s.store.Hold(ctx, containerLease+containerID, e.manifest.Digest)
	if err == nil {
		var again *entry
		if again, err = s.find(ref); err == nil && again.manifest.Digest != e.manifest.Digest {
			err = fmt.Errorf("%w: %s moved while it was prepared; try again", ErrNotFound, ref)
		}
	} else {
		err = fmt.Errorf("lease image: %w", err)
	}
	if err != nil {
		return nil, errors.Join(err, s.Release(context.WithoutCancel(ctx), containerID))
	}
	return e, nil
}

func (s *Service) find(ref string) (*entry, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, err := s.known.find(ref)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, ref)
	}
	c := *e
	c.img = s.known.shown[e.img.ID]
	c.img.Modules, c.img.Config = e.img.Modules, e.img.Config
	return &c, nil
}

func (s *Service) prepare(ctx context.Context, e *entry, argv0 string, proposals []string) (*Prepared, error) {
	if err := s.verify(ctx, e); err != nil {
		return nil, err
	}
	p := &Prepared{Image: e.img, Ref: e.img.ID}
	if len(e.img.RepoDigests) > 0 {
		p.Ref = e.img.RepoDigests[0]
	}
	m, err := s.guest(ctx, e, argv0)
	if err != nil {
		return nil, err
	}
	if p.Code, err = s.compiled(ctx, e, m, proposals); err != nil {
		return nil, fmt.Errorf("module %s: %w", m.Path, err)
	}
	p.Module = path.Base(m.Path)
	if e.view != "" {
		ms, err := s.store.Snapshots().Mounts(ctx, e.view)
		if err != nil {
			return nil, fmt.Errorf("root file system of the image: %w", err)
		}
		p.Root = &Root{ms}
	}
	return p, nil
}

// verify makes sure, while blobs may be damaged by an unclean end of the
// machine, that the image's are what their digests say. A damaged image leaves
// the list, so that it is pulled again.
func (s *Service) verify(ctx context.Context, e *entry) error {
	if !s.store.Unclean() {
		return nil
	}
	for _, d := range append([]ocispec.Descriptor{e.manifest, e.config}, e.layers...) {
		err := s.store.Verify(ctx, d.Digest)
		if errors.Is(err, content.ErrDamaged) || errdefs.IsNotFound(err) {
			s.dropDamaged(d.Digest)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// guest finds the module that a container runs.
func (s *Service) guest(ctx context.Context, e *entry, argv0 string) (Module, error) {
	if argv0 == "" {
		if args := append(append([]string(nil), e.img.Config.Entrypoint...), e.img.Config.Cmd...); len(args) > 0 {
			argv0 = args[0]
		}
	}
	var fromLayer []Module
	for _, m := range e.img.Modules {
		if m.Layer {
			fromLayer = append(fromLayer, m)
		}
	}
	for _, m := range fromLayer {
		if len(fromLayer) == 1 && e.view == "" || path.Base(argv0) == m.Path {
			return m, nil
		}
	}
	if e.view == "" {
		if len(fromLayer) == 0 {
			return Module{}, notWasm("it has no file system and no modules")
		}
		return Module{}, notWasm(fmt.Sprintf("it holds %d modules, and %q names none of them", len(fromLayer), argv0))
	}
	m, err := s.guestFile(ctx, e, argv0)
	if err != nil && len(fromLayer) == 1 && errors.Is(err, ErrNotWasm) {
		return fromLayer[0], nil
	}
	return m, err
}

// notWasm says what was found in an image; who asked knows which one it is.
func notWasm(found string) error {
	return fmt.Errorf("%w: %s. This handler runs WebAssembly only; name a .wasm file as the container's command, or give the pod a runtime class whose handler runs Linux containers",
		ErrNotWasm, found)
}

func (e *entry) label() string {
	if len(e.img.RepoTags) > 0 {
		return e.img.RepoTags[0]
	}
	return e.img.ID
}

// guestFile finds argv0 in the image's file system.
func (s *Service) guestFile(ctx context.Context, e *entry, argv0 string) (Module, error) {
	if argv0 == "" {
		return Module{}, notWasm("it names no entry point, and the container no command")
	}
	t, err := s.openTree(ctx, e.view)
	if err != nil {
		return Module{}, err
	}
	defer t.Close()
	var f *os.File
	var name string
	for _, name = range candidates(argv0, e.img.Config) {
		if f, err = t.open(name); err == nil {
			break
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Module{}, notWasm(fmt.Sprintf("the entry point %q is not in it", argv0))
	case err != nil:
		return Module{}, notWasm(fmt.Sprintf("the entry point %q: %v", argv0, errors.Unwrap(err)))
	}
	defer f.Close()
	return e.inspectGuest(f, name, argv0)
}

// inspectGuest says whether a file can be run, and what it is if not.
func (e *entry) inspectGuest(f *os.File, name, argv0 string) (Module, error) {
	c, size, err := sniffFile(f)
	if err != nil {
		return Module{}, fmt.Errorf("entry point %q: %w", argv0, err)
	}
	if c != artifact.Module {
		return Module{}, notWasm(fmt.Sprintf("the entry point %q is %s", argv0, artifact.Describe(c, f, size)))
	}
	if size > MaxModuleBytes {
		return Module{}, fmt.Errorf("%w: module %s has %d bytes, at most %d are accepted", ErrTooLarge, name, size, int64(MaxModuleBytes))
	}
	// A survey records files under the path on which no link stands, so equal
	// paths are one file.
	for _, m := range e.img.Modules {
		if !m.Layer && m.Path == name {
			return m, nil
		}
	}
	d, err := digest.FromReader(f)
	if err != nil {
		return Module{}, fmt.Errorf("read module %s: %w", name, err)
	}
	return Module{Path: name, Digest: d.String()}, nil
}

// candidates are the paths that argv0 may mean, as a shell would look: a path
// from the working directory, a bare name there or in the PATH.
func candidates(argv0 string, c RunConfig) []string {
	if path.IsAbs(argv0) {
		return []string{path.Clean(argv0)}
	}
	list := []string{path.Join("/", c.WorkingDir, argv0), path.Join("/", argv0)}
	if strings.Contains(argv0, "/") {
		return list
	}
	for _, v := range c.Env {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			for _, d := range strings.Split(p, ":") {
				if path.IsAbs(d) && len(list) < 64 {
					list = append(list, path.Join(d, argv0))
				}
			}
		}
	}
	return list
}

// isPath: could argv0 mean this file?
func isPath(file, argv0, workingDir string) bool {
	if argv0 == "" {
		return false
	}
	return file == path.Join("/", argv0) || file == path.Join("/", workingDir, argv0) || path.Base(file) == path.Base(argv0)
}

// Release gives a container's lease back; what only it kept is collected.
// Releasing twice is no error.
func (s *Service) Release(ctx context.Context, containerID string) error {
	if err := s.store.LetGo(ctx, containerLease+containerID); err != nil {
		return fmt.Errorf("release image of container %s: %w", containerID, err)
	}
	s.store.CollectSoon()
	return nil
}

// Leased returns the ids of the containers that hold an image, so that a
// recovery can release those it does not know.
func (s *Service) Leased(ctx context.Context) ([]string, error) {
	ls, err := s.store.Leases().List(content.Context(ctx))
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	var ids []string
	for _, l := range ls {
		if id, ok := strings.CutPrefix(l.ID, containerLease); ok {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
