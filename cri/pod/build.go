package pod

import (
	"os"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"github.com/limpet-cri/limpet/image"
	"github.com/limpet-cri/limpet/shim/spec"
)

// plan is what a request for a container comes to before its image is looked
// into: everything that can be refused without touching anything.
type plan struct {
	image    image.Image
	args     []string
	named    bool
	env      []string
	cwd      string
	user     user
	mounts   []specs.Mount
	log      string
	limits   *specs.LinuxResources
	guestMem uint64
	listen   []spec.Listen
	onStop   spec.OnStop
	signal   int
}

// planContainer checks a request and decides what can be decided.
func (m *Manager) planContainer(c *container, i image.Image) (*plan, error) {
	s, cfg := c.sandbox, c.config
	if err := checkFields(subject{pod: s.config, ctr: cfg}); err != nil {
		return nil, err
	}
	p := &plan{image: i}
	var err error
	p.args, p.named = argv(cfg, i.Config)
	if err := checkArgs(p.args); err != nil {
		return nil, err
	}
	if p.cwd, err = workingDir(cfg, i.Config); err != nil {
		return nil, err
	}
	if p.env, err = environment(cfg, i.Config, m.hostname(s.config), p.cwd); err != nil {
		return nil, err
	}
	if p.user, err = userOf(cfg.GetLinux().GetSecurityContext(), i.Config, s.profile); err != nil {
		return nil, err
	}
	if p.mounts, err = m.mounts(s, cfg); err != nil {
		return nil, err
	}
	if p.log, err = logPath(s.config, cfg); err != nil {
		return nil, err
	}
	if p.limits, p.guestMem, err = limits(cfg.GetLinux().GetResources(), s.profile); err != nil {
		return nil, err
	}
	if p.listen, p.onStop, err = settings(s.config.GetAnnotations(), cfg.GetMetadata().GetName()); err != nil {
		return nil, err
	}
	signal, err := stopSignal(cfg, i.Config)
	p.signal = int(signal)
	return p, err
}

// blueprint is the container as the supervisor gets it.
func (m *Manager) blueprint(c *container, p *plan, prepared *image.Prepared) *spec.Container {
	sc := c.config.GetLinux().GetSecurityContext()
	out := m.outline(c)
	out.OCI.Process = &specs.Process{
		Args: withName(p.args, p.named, prepared, c.image(&made{}).GetImage()), Env: p.env, Cwd: p.cwd, NoNewPrivileges: true,
		User: specs.User{UID: uint32(p.user.UID), GID: uint32(p.user.GID), AdditionalGids: groups(p.user.Groups)},
	}
	if r := c.config.GetLinux().GetResources(); r != nil {
		adj := int(r.GetOomScoreAdj())
		out.OCI.Process.OOMScoreAdj = &adj
	}
	out.OCI.Root = &specs.Root{Path: "rootfs", Readonly: sc.GetReadonlyRootfs()}
	out.OCI.Hostname = m.hostname(c.sandbox.config)
	out.OCI.Mounts = p.mounts
	out.OCI.Linux.Resources = p.limits
	if ready, ok := m.index.sandboxPhase(c.sandbox).(SandboxReady); ok && ready.Netns != "" {
		out.OCI.Linux.Namespaces = append(out.OCI.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: ready.Netns})
	}
	out.Limpet = spec.Limpet{
		Code: prepared.Code, Module: prepared.Module, LogPath: p.log, MemoryLimit: p.guestMem, RootSize: c.sandbox.profile.RootSize,
		Proposals: c.sandbox.profile.Proposals, Listen: p.listen, OnStop: p.onStop, Stdin: c.config.GetStdin(),
	}
	return out
}

// outline is as much of a container as its identity tells: what is needed to
// take away whatever was made of it.
func (m *Manager) outline(c *container) *spec.Container {
	return m.trace(c.id, c.cgroup)
}

func (m *Manager) trace(id, cgroup string) *spec.Container {
	return &spec.Container{
		ID: id, Dir: m.containerDir(id), Socket: m.socket(id),
		OCI: &specs.Spec{
			Version: specs.Version, Process: &specs.Process{Args: []string{id}, Cwd: "/"},
			Linux: &specs.Linux{CgroupsPath: cgroup},
		},
	}
}

func groups(l []int64) []uint32 {
	var out []uint32
	for _, g := range l {
		out = append(out, uint32(g))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// openRoot opens the image's file system with a writable layer of the
// container's own above it, so that places for mounts can be made in it even
// if the guest may not write. It returns nil for an image without files.
func (m *Manager) openRoot(c *container, prepared *image.Prepared) (*os.File, error) {
	if prepared.Root == nil {
		return nil, nil
	}
	upper, work := m.layer(c.id)
	for _, d := range []string{m.layerDir(c.id), upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	return prepared.Root.Open(upper, work)
}

// madeOf is what is remembered of a container's making.
func madeOf(c *container, p *plan, prepared *image.Prepared, b *spec.Container) (*made, error) {
	r, err := proto.Marshal(c.config.GetLinux().GetResources())
	if err != nil {
		return nil, err
	}
	return &made{
		ImageID: prepared.Image.ID, ImageRef: prepared.Ref, StopSignal: p.signal, User: p.user,
		Resources: r, Container: b, Writable: prepared.Root != nil,
	}, nil
}

func uitoa(n uint64) string { return strconv.FormatUint(n, 10) }
