package image

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/limpet-cri/limpet/image/artifact"
	"github.com/limpet-cri/limpet/image/content"
	"github.com/limpet-cri/limpet/image/reference"
	"github.com/limpet-cri/limpet/image/registry"
)

// Inspection is what can be said of a file or a reference without running it.
type Inspection struct {
	// Name is what was inspected; Digest is that of the file, or of what the
	// reference stands for.
	Name, Digest string
	// Kind is a noun phrase: "wasm artifact", "a core WebAssembly module", "a
	// WebAssembly component".
	Kind string
	// Size of the file, or of all blobs of the image.
	Size int64
	// Platforms are those that an index offers; Platform is the one chosen.
	Platforms []string
	Platform  string
	// Runs is true where nothing speaks against running it here; else Why
	// says what does.
	Runs bool
	Why  string
	// Modules are the core modules that could be looked into.
	Modules []Inspected
	// Config of an image.
	Config RunConfig
}

// Inspected is one core module.
type Inspected struct {
	Path, Digest string
	// Compiled says whether code for this node's engine is in the cache; only
	// a Service knows.
	Compiled bool
	*artifact.Info
}

// InspectFile looks into a file.
func InspectFile(name string) (Inspection, error) {
	f, err := os.Open(name)
	if err != nil {
		return Inspection{}, fmt.Errorf("inspect: %w", err)
	}
	defer f.Close()
	kind, size, err := sniffFile(f)
	if err != nil {
		return Inspection{}, fmt.Errorf("inspect %s: %w", name, err)
	}
	d, err := digest.FromReader(io.NewSectionReader(f, 0, size))
	if err != nil {
		return Inspection{}, fmt.Errorf("inspect %s: %w", name, err)
	}
	i := Inspection{Name: name, Digest: d.String(), Kind: kind.String(), Size: size}
	if kind != artifact.Module {
		i.Why = artifact.Describe(kind, f, size)
		return i, nil
	}
	if size > MaxModuleBytes {
		i.Why = fmt.Sprintf("it has %d bytes, at most %d are accepted", size, int64(MaxModuleBytes))
		return i, nil
	}
	m, err := inspectModule(f, size, filepath.Base(name), d)
	if err != nil {
		i.Why = err.Error()
		return i, nil
	}
	i.Modules = []Inspected{m}
	i.Why = unfit(m.Info)
	i.Runs = i.Why == ""
	return i, nil
}

// unfit says what speaks against running a module that is whole: nothing that
// a host could call, or imports that none has.
func unfit(info *artifact.Info) string {
	if !info.IsCommand() {
		return "it exports no _start, so there is nothing to call; build a program, not a library"
	}
	for _, i := range info.Imports {
		if i.Module != "wasi_snapshot_preview1" && i.Module != "wasi_unstable" {
			return fmt.Sprintf("it imports %q from %q, which no host here offers; WASI preview 1 is there", i.Name, i.Module)
		}
	}
	return ""
}

func inspectModule(r io.ReaderAt, size int64, path string, d digest.Digest) (Inspected, error) {
	info, err := artifact.ReadModule(r, size)
	if err != nil {
		return Inspected{}, fmt.Errorf("module %s: %w", path, err)
	}
	return Inspected{Path: path, Digest: d.String(), Info: info}, nil
}

// InspectRemote looks at what a registry has under a reference. Modules that
// are layers of their own are fetched and looked into; root file systems are
// not fetched.
func InspectRemote(ctx context.Context, ref string, o RemoteOptions) (Inspection, error) {
	r, err := reference.Parse(ref)
	if err != nil {
		return Inspection{}, err
	}
	session, err := o.session(r)
	if err != nil {
		return Inspection{}, err
	}
	target, err := session.Resolve(ctx)
	if err != nil {
		return Inspection{}, fmt.Errorf("inspect %s: %w", r, err)
	}
	i := Inspection{Name: r.String(), Digest: target.Digest.String()}
	remote, err := newRemote(ctx, session, o.tell)
	if err != nil {
		return i, err
	}
	defer remote.Close()
	if err := i.inspectTarget(remote, target); err != nil {
		return i, fmt.Errorf("inspect %s: %w", r, err)
	}
	return i, nil
}

func (i *Inspection) inspectTarget(r *remote, target ocispec.Descriptor) error {
	if i.Why = sentence(artifact.CheckTarget(target)); i.Why != "" {
		i.Kind = target.MediaType
		return nil
	}
	md := target
	if artifact.IsIndex(target.MediaType) {
		b, err := r.bytes(target)
		if err != nil {
			return err
		}
		ix, err := artifact.ParseIndex(b)
		if err != nil {
			return err
		}
		for _, m := range ix.Manifests {
			i.Platforms = append(i.Platforms, platform(m))
		}
		if md, err = artifact.Choose(ix); err != nil {
			i.Kind, i.Why = "an index", sentence(err)
			return nil
		}
		i.Platform = platform(md)
	}
	b, err := r.bytes(md)
	if err != nil {
		return err
	}
	m, err := artifact.ParseManifest(b)
	if err != nil {
		i.Kind, i.Why = "a manifest", sentence(err)
		return nil
	}
	i.Size = md.Size + artifact.Size(m)
	return i.inspectLayers(r, m)
}

func (i *Inspection) inspectLayers(r *remote, m ocispec.Manifest) error {
	config, err := r.bytes(m.Config)
	if err != nil {
		return err
	}
	a, err := artifact.Classify(m, config, r.layer)
	if err != nil {
		if r.err != nil {
			return r.err
		}
		i.Kind, i.Why = "an artifact", sentence(err)
		return nil
	}
	i.Kind, i.Runs = string(a.Kind), true
	i.Config = runConfig(a, "", DefaultUID)
	for _, l := range a.Modules {
		f, err := r.layer(l.Descriptor)
		if err != nil {
			return err
		}
		in, err := inspectModule(f, l.Size, l.Title, l.Digest)
		f.Close()
		if err != nil {
			i.Runs, i.Why = false, err.Error()
			return nil
		}
		i.Modules = append(i.Modules, in)
	}
	if len(a.Modules) == 0 {
		i.Why = "its files are known once it is pulled"
		return nil
	}
	i.judge()
	return nil
}

// judge: an image runs if one of its modules does.
func (i *Inspection) judge() {
	i.Runs, i.Why = false, "no core module was found in it"
	for _, m := range i.Modules {
		why := unfit(m.Info)
		if why == "" {
			i.Runs, i.Why = true, ""
			return
		}
		i.Why = "module " + m.Path + ": " + why
	}
}

func platform(d ocispec.Descriptor) string {
	if d.Platform == nil {
		return "none"
	}
	return d.Platform.OS + "/" + d.Platform.Architecture
}

func sentence(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Inspect looks into an image on this node.
func (s *Service) Inspect(ctx context.Context, ref string) (Inspection, error) {
	ctx = content.Context(ctx)
	e, err := s.find(ref)
	if err != nil {
		return Inspection{}, err
	}
	i := Inspection{Name: e.label(), Digest: e.manifest.Digest.String(), Kind: e.img.Kind, Size: int64(e.img.Size), Config: e.img.Config}
	for _, m := range e.img.Modules {
		in, err := s.inspectHeld(ctx, e, m)
		if err != nil {
			return i, err
		}
		in.Compiled = s.code.Has(ctx, digest.Digest(m.Digest), nil)
		i.Modules = append(i.Modules, in)
	}
	i.judge()
	return i, nil
}

func (s *Service) inspectHeld(ctx context.Context, e *entry, m Module) (Inspected, error) {
	f, err := s.openModule(ctx, e, m)
	if err != nil {
		return Inspected{}, fmt.Errorf("open module %s: %w", m.Path, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return Inspected{}, err
	}
	return inspectModule(f, fi.Size(), m.Path, digest.Digest(m.Digest))
}

// remote reads blobs of one repository into a folder that goes with it.
type remote struct {
	ctx     context.Context
	session *registry.Session
	dir     string
	tell    func(Progress)
	err     error
}

func newRemote(ctx context.Context, session *registry.Session, tell func(Progress)) (*remote, error) {
	dir, err := os.MkdirTemp("", "limpet-inspect-")
	if err != nil {
		return nil, err
	}
	return &remote{ctx: ctx, session: session, dir: dir, tell: tell}, nil
}

// Close removes what was fetched.
func (r *remote) Close() error { return os.RemoveAll(r.dir) }

func (r *remote) fetch(d ocispec.Descriptor, w io.Writer, limit int64) error {
	f, err := r.session.Fetcher(r.ctx)
	if err != nil {
		return err
	}
	rc, err := f.Fetch(r.ctx, clean(d))
	if err != nil {
		return registry.Classify(r.ctx, err)
	}
	defer rc.Close()
	v := d.Digest.Verifier()
	n, err := io.Copy(io.MultiWriter(w, v), io.LimitReader(rc, limit))
	if err != nil {
		return registry.Classify(r.ctx, err)
	}
	if n < limit && !v.Verified() {
		return fmt.Errorf("%w: the registry sent something else than blob %s of %d bytes", ErrInvalidImage, d.Digest, d.Size)
	}
	return nil
}

func (r *remote) bytes(d ocispec.Descriptor) ([]byte, error) {
	if d.Size > artifact.MaxManifest {
		return nil, fmt.Errorf("%w: blob %s of %d bytes", ErrTooLarge, d.Digest, d.Size)
	}
	var b limitedBuffer
	if err := r.fetch(d, &b, artifact.MaxManifest+1); err != nil {
		return nil, err
	}
	return b.b, nil
}

type limitedBuffer struct{ b []byte }

// Write implements io.Writer.
func (l *limitedBuffer) Write(p []byte) (int, error) {
	l.b = append(l.b, p...)
	return len(p), nil
}

// layer fetches a layer once: all of it where it may be a module, else as
// much as tells what it is.
func (r *remote) layer(d ocispec.Descriptor) (artifact.ReaderAt, error) {
	path := filepath.Join(r.dir, d.Digest.Encoded())
	if f, err := os.Open(path); err == nil {
		return f, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	head, done := headOf{w: f}, int64(0)
	tell := writerFunc(func(n int64) {
		done += n
		r.tell(Progress{Stage: "fetch", Done: done, Total: d.Size})
	})
	if err := r.fetch(d, io.MultiWriter(&head, tell), MaxModuleBytes+1); err != nil && !head.enough {
		f.Close()
		r.err = err
		return nil, err
	}
	return f, nil
}

// headOf stops after the first bytes of what is no Wasm.
type headOf struct {
	w      *os.File
	n      int64
	enough bool
}

// Write implements io.Writer.
func (h *headOf) Write(p []byte) (int, error) {
	n, err := h.w.Write(p)
	h.n += int64(n)
	if err != nil || h.n < 4*tarHead || h.enough {
		return n, err
	}
	k, err := artifact.Sniff(h.w, h.n)
	if err == nil && (k == artifact.Tar || k == artifact.Gzip || k == artifact.Zstd) {
		h.enough = true
		return n, io.ErrShortWrite
	}
	return n, err
}

// tarHead is what is needed to know an archive.
const tarHead = 512
