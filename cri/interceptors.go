package cri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// edge is what every call passes through, whatever its service: measure, log,
// turn panics and errors into codes.
type edge struct {
	log     *slog.Logger
	metrics *Metrics
	slow    time.Duration
	life    context.Context // of the server
	// podOf names the pod of a sandbox's or container's id, "" if it is unknown.
	podOf func(id string) string
}

func (e *edge) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	detach := context.AfterFunc(e.life, func() { cancel(context.Cause(e.life)) })
	done := e.begin(ctx, info.FullMethod, req)
	// A file that shrank under its mapping is a fault of this call alone.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, e.panicked(info.FullMethod, p)
		}
		if err != nil && context.Cause(ctx) == errStopping && !errors.Is(err, errStopping) {
			err = fmt.Errorf("%w (%w)", err, errStopping)
		}
		detach()
		cancel(nil)
		err = offered(path.Base(info.FullMethod), toStatus(err))
		done(resp, err)
	}()
	return handler(ctx, req)
}

func (e *edge) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	done := e.begin(ss.Context(), info.FullMethod, nil)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = e.panicked(info.FullMethod, p)
		}
		err = offered(path.Base(info.FullMethod), toStatus(err))
		done(nil, err)
	}()
	return handler(srv, ss)
}

// panicked logs a bug of ours and keeps it from ending the daemon, under which
// other pods live.
func (e *edge) panicked(method string, p any) error {
	e.metrics.panics.Inc()
	e.log.Error("panic in a call; please report it", "method", path.Base(method), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	return status.Errorf(codes.Internal, "%s: internal error: %v; limpetd's log has the details", path.Base(method), p)
}

// begin notes the start of a call and returns what notes its end.
func (e *edge) begin(ctx context.Context, full string, req any) func(resp any, err error) {
	method, started := path.Base(full), time.Now()
	pod := e.pod(req) // now: after the call it may be gone
	measured := e.metrics.begin(method)
	return func(resp any, err error) {
		took := time.Since(started)
		measured(status.Code(err), took)
		level, text := e.weigh(method, req, took, err)
		if !e.log.Enabled(ctx, level) {
			return
		}
		attrs := append(fields(pod, req, resp), slog.String("method", method), slog.Duration("took", took.Round(time.Microsecond)))
		if err != nil {
			attrs = append(attrs, slog.String("code", status.Code(err).String()), slog.String("error", status.Convert(err).Message()))
		}
		e.log.LogAttrs(ctx, level, text, attrs...)
	}
}

// weigh says how much a call that ended matters to an operator. The kubelet's
// questions, several a second for ever, do not.
func (e *edge) weigh(method string, req any, took time.Duration, err error) (slog.Level, string) {
	code := status.Code(err)
	switch {
	case code == codes.Unimplemented || code == codes.Canceled:
		return slog.LevelDebug, "call not carried out"
	case code == codes.NotFound && asks(method):
		return slog.LevelDebug, "call for something gone"
	case err != nil:
		return slog.LevelWarn, "call failed"
	case took > e.slow+patience(req) && !mayLast(method):
		return slog.LevelWarn, "slow call"
	case asks(method) || told(method):
		return slog.LevelDebug, "call"
	}
	return slog.LevelInfo, "call"
}

// asks reports whether a method only asks and changes nothing.
func asks(method string) bool {
	return strings.HasPrefix(method, "List") || strings.HasPrefix(method, "Stream") ||
		strings.HasSuffix(method, "Status") || strings.HasSuffix(method, "Stats") ||
		slices.Contains([]string{"Version", "RuntimeConfig", "UpdateRuntimeConfig", "ImageFsInfo", "GetContainerEvents", "Inspect"}, method)
}

// told reports whether who carries a method out says at info itself what came
// of it.
func told(method string) bool {
	return slices.Contains([]string{"RunPodSandbox", "StopPodSandbox", "RemovePodSandbox", "CreateContainer", "RemoveContainer", "PullImage", "Import"}, method)
}

// mayLast reports whether the length of a call says nothing about this node.
func mayLast(method string) bool {
	return slices.Contains([]string{"PullImage", "Import", "GetContainerEvents"}, method)
}

// patience is the time that a request itself asks for.
func patience(req any) time.Duration {
	if r, ok := req.(*runtime.StopContainerRequest); ok {
		return time.Duration(min(max(r.GetTimeout(), 0), int64(maxPatience/time.Second))) * time.Second
	}
	return 0
}

// maxPatience keeps what a request asks for within what a duration can hold.
const maxPatience = 365 * 24 * time.Hour

// pod names the pod of a call as people write it: NAMESPACE/NAME.
func (e *edge) pod(req any) string {
	switch r := req.(type) {
	case *runtime.RunPodSandboxRequest:
		return r.GetConfig().GetMetadata().GetNamespace() + "/" + r.GetConfig().GetMetadata().GetName()
	case *runtime.PullImageRequest:
		return r.GetSandboxConfig().GetMetadata().GetNamespace() + "/" + r.GetSandboxConfig().GetMetadata().GetName()
	}
	if e.podOf == nil {
		return ""
	}
	for _, id := range []string{sandboxOf(req), containerOf(req)} {
		if id != "" {
			return e.podOf(id)
		}
	}
	return ""
}

// fields names the pod, the container and the image of a call, as far as the
// request or the answer tells, under the keys that the rest of limpetd's log
// has. Nothing else of a request is ever logged: credentials and environments
// are in there.
func fields(pod string, req, resp any) []slog.Attr {
	var a []slog.Attr
	a = addString(a, "pod", pod)
	a = addString(a, "sandbox", sandboxOf(req), sandboxOf(resp))
	a = addString(a, "container", containerOf(req), containerOf(resp))
	if r, ok := req.(*runtime.CreateContainerRequest); ok {
		a = addString(a, "name", r.GetConfig().GetMetadata().GetName())
		a = addString(a, "image", r.GetConfig().GetImage().GetUserSpecifiedImage(), r.GetConfig().GetImage().GetImage())
	}
	if r, ok := req.(interface{ GetImage() *runtime.ImageSpec }); ok {
		a = addString(a, "image", r.GetImage().GetImage())
	}
	return a
}

// addString adds the first value that says something.
func addString(a []slog.Attr, key string, values ...string) []slog.Attr {
	for _, v := range values {
		if v != "" && v != "/" {
			return append(a, slog.String(key, bounded(v)))
		}
	}
	return a
}

func sandboxOf(m any) string {
	if r, ok := m.(interface{ GetPodSandboxId() string }); ok {
		return r.GetPodSandboxId()
	}
	return ""
}

func containerOf(m any) string {
	if r, ok := m.(interface{ GetContainerId() string }); ok {
		return r.GetContainerId()
	}
	return ""
}
