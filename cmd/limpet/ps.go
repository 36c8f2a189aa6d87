package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const psHelp = `
Lists pods with their containers.
  --all   also those that have ended, with exit code and reason
  --ids   whole ids
`

// labelPod and the like are what the kubelet puts on sandboxes and containers.
const labelContainer = "io.kubernetes.container.name"

func ps(ctx context.Context, a *app, args []string) error {
	f := a.flags("ps")
	all := f.Bool("all", false, "list what has ended too")
	whole := f.Bool("ids", false, "print whole ids")
	if _, err := a.parse(f, args, 0, "ps [--all] [--ids]"); err != nil {
		return err
	}
	return a.ask(ctx, func(ctx context.Context, d *daemon) error {
		rows, err := d.processes(ctx, *all)
		if err != nil {
			return err
		}
		return writeProcesses(a.out, rows, *whole, time.Now())
	})
}

// process is a line of the list: a container, or a pod that has none.
type process struct {
	pod, container, id, image string
	state                     string
	since                     time.Time
}

func (d *daemon) processes(ctx context.Context, all bool) ([]process, error) {
	pods, err := d.runtime.ListPodSandbox(ctx, &runtime.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	containers, err := d.runtime.ListContainers(ctx, &runtime.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	named, err := d.imageNames(ctx)
	if err != nil {
		return nil, err
	}
	names, bare := map[string]string{}, map[string]*runtime.PodSandbox{}
	for _, p := range pods.GetItems() {
		names[p.GetId()] = p.GetMetadata().GetNamespace() + "/" + p.GetMetadata().GetName()
		bare[p.GetId()] = p
	}
	var rows []process
	for _, c := range containers.GetContainers() {
		delete(bare, c.GetPodSandboxId())
		if c.GetState() == runtime.ContainerState_CONTAINER_EXITED && !all {
			continue
		}
		r, ok, err := d.container(ctx, c)
		if err != nil {
			return nil, err
		}
		if ok {
			r.pod = names[c.GetPodSandboxId()]
			r.image = cmp.Or(named[r.image], r.image)
			rows = append(rows, r)
		}
	}
	for id, p := range bare {
		if ready := p.GetState() == runtime.PodSandboxState_SANDBOX_READY; ready || all {
			state := "Stopped"
			if ready {
				state = "Ready"
			}
			rows = append(rows, process{pod: names[id], container: "-", id: id, image: "-", state: state, since: time.Unix(0, p.GetCreatedAt())})
		}
	}
	return rows, nil
}

// imageNames has a name for each image's id: a container that was made by id
// is not told otherwise.
func (d *daemon) imageNames(ctx context.Context) (map[string]string, error) {
	r, err := d.images.ListImages(ctx, &runtime.ListImagesRequest{})
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, img := range r.GetImages() {
		if tags := img.GetRepoTags(); len(tags) > 0 {
			names[img.GetId()] = tags[0]
		}
	}
	return names, nil
}

// container asks for what the list does not tell; false if it has gone since.
func (d *daemon) container(ctx context.Context, c *runtime.Container) (process, bool, error) {
	r, err := d.runtime.ContainerStatus(ctx, &runtime.ContainerStatusRequest{ContainerId: c.GetId()})
	if status.Code(err) == codes.NotFound {
		return process{}, false, nil
	}
	if err != nil {
		return process{}, false, err
	}
	s := r.GetStatus()
	p := process{
		container: cmp.Or(c.GetLabels()[labelContainer], s.GetMetadata().GetName()), id: c.GetId(),
		image: cmp.Or(s.GetImage().GetUserSpecifiedImage(), s.GetImage().GetImage()),
	}
	switch s.GetState() {
	case runtime.ContainerState_CONTAINER_CREATED:
		p.state, p.since = "Created", time.Unix(0, s.GetCreatedAt())
	case runtime.ContainerState_CONTAINER_RUNNING:
		p.state, p.since = "Running", time.Unix(0, s.GetStartedAt())
	case runtime.ContainerState_CONTAINER_EXITED:
		p.state, p.since = fmt.Sprintf("Exited %d (%s)", s.GetExitCode(), s.GetReason()), time.Unix(0, s.GetFinishedAt())
	default:
		p.state, p.since = "Unknown", time.Unix(0, s.GetCreatedAt())
	}
	return p, true, nil
}

func writeProcesses(w io.Writer, rows []process, whole bool, now time.Time) error {
	slices.SortFunc(rows, func(a, b process) int {
		return cmp.Or(strings.Compare(a.pod, b.pod), a.since.Compare(b.since), strings.Compare(a.id, b.id))
	})
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(t, "POD\tCONTAINER\tSTATE\tSINCE\tIMAGE\tID")
	for _, r := range rows {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", r.pod, r.container, r.state, ago(now.Sub(r.since)), r.image, shortID(r.id, whole))
	}
	return t.Flush()
}

// ago writes a time span with one unit, as kubectl does.
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}
