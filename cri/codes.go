package cri

import (
	"context"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/limpet-cri/limpet/cri/network"
	"github.com/limpet-cri/limpet/cri/pod"
	"github.com/limpet-cri/limpet/image"
	"github.com/limpet-cri/limpet/shim"
	"github.com/limpet-cri/limpet/shim/cgroup"
	"github.com/limpet-cri/limpet/shim/record"
)

// rule gives the errors it recognises a code.
type rule struct {
	is   func(error) bool
	code codes.Code
	// prefix goes before the text, where the kubelet looks for one.
	prefix string
}

// rules is the one table of errors and codes; the first rule that fits wins.
// What no rule knows is a fault of ours or of the machine: Internal.
//
// What the kubelet (1.37) does with them:
//
//   - NotFound of a status call means that the thing is gone. Stop and Remove
//     of it succeed before they come here, and an absent image is an answer.
//   - Unimplemented makes it fall back to other calls; that comes from the
//     generated code, for the methods that are not there.
//   - Unknown is the only code its client takes off again, so that it sees the
//     prefix of an error of a pull; behind any other code it looks for it in
//     vain.
//
// The others are for people.
func rules() []rule {
	return slices.Concat([]rule{
		{is: among(errStopping), code: codes.Unavailable},
		// Whatever was being done, this is what is to be seen to.
		{is: among(unix.ENOSPC, unix.EDQUOT), code: codes.ResourceExhausted, prefix: "no room left on the node (limpetd's root or run folder): "},
	}, podRules(), imageRules(), hostRules(), []rule{
		{is: among(context.Canceled), code: codes.Canceled},
		{is: among(context.DeadlineExceeded), code: codes.DeadlineExceeded},
	})
}

func podRules() []rule {
	return []rule{
		{is: among(pod.ErrNotFound), code: codes.NotFound},
		{is: among(pod.ErrAmbiguous, pod.ErrInvalid, pod.ErrUnknownHandler, pod.ErrRefused), code: codes.InvalidArgument},
		{is: as[*pod.FieldError], code: codes.InvalidArgument},
		{is: among(pod.ErrNameInUse), code: codes.AlreadyExists},
		{is: among(pod.ErrBadPhase), code: codes.FailedPrecondition},
		{is: among(pod.ErrStillRunning), code: codes.DeadlineExceeded},
		{is: among(pod.ErrSlow), code: codes.ResourceExhausted},
		{is: among(pod.ErrClosed), code: codes.Unavailable},
	}
}

// imageRules names the errors of package image alone: it declares those of the
// packages below it anew where they are its own promise.
func imageRules() []rule {
	return []rule{
		{is: among(image.ErrUnavailable), code: codes.Unknown, prefix: crierrors.ErrRegistryUnavailable.Error() + ": "},
		{is: among(image.ErrNotFound, image.ErrNoSuchImage), code: codes.NotFound},
		{is: among(image.ErrInvalidReference), code: codes.InvalidArgument},
		{is: among(image.ErrAccess), code: codes.PermissionDenied},
		{is: among(image.ErrHosts, image.ErrCredentials, image.ErrInUse), code: codes.FailedPrecondition},
		{is: among(image.ErrTooLarge), code: codes.ResourceExhausted},
		{is: among(image.ErrNotWasm, image.ErrRefused, image.ErrInvalidImage, image.ErrCompile), code: codes.FailedPrecondition},
		{is: among(shim.ErrNotValid, shim.ErrCompileTime, shim.ErrCompileMemory), code: codes.FailedPrecondition},
		{is: among(image.ErrDamaged), code: codes.DataLoss},
		{is: among(image.ErrClosed), code: codes.Unavailable},
	}
}

// hostRules: what is wrong below a container is never NotFound, since that
// would read as the container being gone.
func hostRules() []rule {
	return []rule{
		{is: among(shim.ErrInvalid, cgroup.ErrPath, cgroup.ErrLimit, network.ErrBadID), code: codes.InvalidArgument},
		{is: among(shim.ErrEnded, cgroup.ErrUnsupported), code: codes.FailedPrecondition},
		{is: among(shim.ErrClosed, cgroup.ErrBusy), code: codes.Unavailable},
		{is: among(record.ErrAbsent, record.ErrNewer, record.ErrTooLarge), code: codes.Internal},
		{is: as[*record.DamagedError], code: codes.DataLoss},
		{is: among(shim.ErrHostFailed, shim.ErrNoHost, shim.ErrExists, cgroup.ErrNotFound, network.ErrCreate), code: codes.Internal},
	}
}

func among(targets ...error) func(error) bool {
	return func(err error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
}

func as[T error](err error) bool {
	var t T
	return errors.As(err, &t)
}

// toStatus gives an error its code. One that has a code keeps it: those come
// from gRPC itself.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	for _, r := range rules() {
		if r.is(err) {
			return status.Error(r.code, bounded(r.prefix+err.Error()))
		}
	}
	return status.Error(codes.Internal, bounded(err.Error()))
}

// maxText bounds the text of an error and of a field of the log, in bytes: an
// event of a pod holds 1024 characters, and a name in a request can be as long
// as the request.
const maxText = 4 << 10

// bounded leaves out the middle of a text that is too long: what was tried
// stands at its beginning, why it failed at its end.
func bounded(s string) string {
	if len(s) <= maxText {
		return s
	}
	half := maxText / 2
	return strings.ToValidUTF8(s[:half], "") + " [...] " + strings.ToValidUTF8(s[len(s)-half:], "")
}
