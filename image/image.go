// Package image owns the images of a node: pulling, importing, listing and
// removing them, and preparing one for a container (Prepare), which yields a
// compiled module and, where the image brings one, a root file system.
//
// It never runs or compiles guest code itself: a precompile.Compiler does, in
// a confined process. It reads guest bytes only through wasm/binary. It knows
// neither CRI nor gRPC, and nothing of containers but their ids, under which
// it keeps leases.
//
// Lock order: a blob's turn (Service.blobs) before Service.naming before
// Service.mu. naming is held over the few transactions that change names and
// the change of the list that must agree with them; mu over memory only.
// Neither is held over a network request, an unpack or a compilation.
// flights.mu and keyed.mu stand alone.
package image

import (
	"errors"

	"github.com/limpet-cri/limpet/image/artifact"
	"github.com/limpet-cri/limpet/image/content"
	"github.com/limpet-cri/limpet/image/precompile"
	"github.com/limpet-cri/limpet/image/reference"
	"github.com/limpet-cri/limpet/image/registry"
)

// The promises of this package that callers act on.
var (
	// ErrNotFound: no image of that name, digest or id is on the node.
	ErrNotFound = errors.New("image is not on this node")
	// ErrInvalidReference: the text is no reference to an image.
	ErrInvalidReference = reference.ErrInvalid
	// ErrNotWasm: the image may be fine, but what the container would run of
	// it is not a WebAssembly module.
	ErrNotWasm = errors.New("not WebAssembly")
	// ErrRefused: the artifact can never run here, whoever asks: a component,
	// native code, something that is not a program.
	ErrRefused = artifact.ErrRefused
	// ErrTooLarge: a bound was exceeded.
	ErrTooLarge = artifact.ErrTooLarge
	// ErrInvalidImage: the bytes are what the registry promised, and make no
	// sense: a manifest that does not parse, a layer that does not unpack.
	ErrInvalidImage = artifact.ErrInvalid
	// ErrCompile: the module does not validate, or the compiler failed on it.
	ErrCompile = precompile.ErrCompile
	// ErrDamaged: the image on disk is not what was pulled; it is gone, and a
	// pull brings it back.
	ErrDamaged = errors.New("image is damaged")
	// ErrNoSuchImage: the registry answered, and has no such image.
	ErrNoSuchImage = registry.ErrNotFound
	// ErrUnavailable: the registry could not be reached or did not answer.
	ErrUnavailable = registry.ErrUnavailable
	// ErrAccess: the registry refused the credentials, or wants some.
	ErrAccess = registry.ErrAccess
	// ErrCredentials: the credentials cannot be read.
	ErrCredentials = registry.ErrAuth
	// ErrHosts: the configuration of the registry's hosts is wrong.
	ErrHosts = registry.ErrHosts
	// ErrInUse: another process has the image store open.
	ErrInUse = content.ErrInUse
	// ErrClosed: the service is ending.
	ErrClosed = errors.New("image service is closed")
)

// DefaultUID is the user of a guest whose image names none: numeric and
// unprivileged, so that a pod with runAsNonRoot can run it.
const DefaultUID = 65532

// Image is one image on the node, all its names together.
type Image struct {
	// ID is "sha256:…": the config digest where the config binds every layer,
	// else the manifest digest.
	ID string
	// RepoTags and RepoDigests are its names, sorted.
	RepoTags, RepoDigests []string
	// Size counts the compressed blobs, in bytes; never zero.
	Size uint64
	// Config is what the image says about running it.
	Config RunConfig
	// Pinned images are not collected by the kubelet.
	Pinned bool
	// Kind is what the artifact is, in a word for people.
	Kind string
	// Modules are the core modules found in it, in a stable order.
	Modules []Module
}

// RunConfig is what an image says about running it.
type RunConfig struct {
	Entrypoint, Cmd, Env []string
	WorkingDir           string
	// User is as the image spells it, "" when it names none.
	User       string
	StopSignal string
	// UID is the numeric user: the image's, resolved from its /etc/passwd
	// where it is a name, or the default. It is negative when the image names
	// a user that cannot be resolved; then Username holds it.
	UID int64
	// GID is the image's group, or the same as the default user's.
	GID      int64
	Username string
}

// Module is one core module of an image.
type Module struct {
	// Path is its path in the image's file system, or, where the module is a
	// layer of its own, the layer's title.
	Path string
	// Digest of the module's bytes.
	Digest string
	// Layer is true where the module is a layer of its own.
	Layer bool
}

// Auth are credentials for a pull or push, in the words of CRI's AuthConfig.
type Auth = registry.Auth

// PullOptions of one pull.
type PullOptions struct {
	Auth *Auth
	// Progress is called now and then, from one goroutine at a time.
	Progress func(Progress)
}

// Progress of a pull, an import or a push.
type Progress struct {
	// Stage is "resolve", "fetch", "unpack", "compile" or "done".
	Stage string
	// Done and Total are bytes while fetching, modules while compiling.
	Done, Total int64
}

// Usage of the file system that holds the images.
type Usage struct {
	// Mountpoint is the folder that was measured; it exists.
	Mountpoint string
	// Bytes and Inodes used by blobs, unpacked layers and compiled code.
	Bytes, Inodes uint64
}

// Prepared is an image made ready for one container.
type Prepared struct {
	Image Image
	// Ref names the image as a person would want to read it in a status: a
	// repository digest if there is one, else the id.
	Ref string
	// Code is the path of the compiled code; Module is the guest's file name.
	Code, Module string
	// Root is the image's file system; nil for artifacts without one.
	Root *Root
}
