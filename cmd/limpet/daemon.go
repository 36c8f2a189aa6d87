package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/cri/admin"
)

const (
	// maxMessageBytes is what limpetd may send by default.
	maxMessageBytes = 16 << 20
	// questionTimeout bounds a call that only asks.
	questionTimeout = 30 * time.Second
)

// daemon is a connection to limpetd.
type daemon struct {
	conn    *grpc.ClientConn
	runtime runtime.RuntimeServiceClient
	images  runtime.ImageServiceClient
	admin   *admin.Client
}

// dial connects to limpetd. It tries the socket first, because the reasons
// that gRPC gives are not for people.
func (a *app) dial() (*daemon, error) {
	a.socket = strings.TrimPrefix(a.socket, "unix://") // as crictl and the kubelet write it
	if fi, err := os.Stat(a.socket); a.socket == "" || err == nil && fi.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%q is no socket: say where limpetd listens with --socket or %s", a.socket, socketEnv)
	}
	c, err := net.Dial("unix", a.socket)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("may not talk to limpetd on %s: run limpet as root, or as a member of the socket's group", a.socket)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("no limpetd on %s: start it, or say where it listens with --socket or %s", a.socket, socketEnv)
	case err != nil:
		return nil, fmt.Errorf("limpetd does not answer on %s (%w): see whether it runs", a.socket, err)
	}
	if err := c.Close(); err != nil {
		return nil, fmt.Errorf("connection to limpetd on %s: %w", a.socket, err)
	}
	conn, err := grpc.NewClient("unix:"+a.socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)))
	if err != nil {
		return nil, err
	}
	return &daemon{
		conn: conn, runtime: runtime.NewRuntimeServiceClient(conn),
		images: runtime.NewImageServiceClient(conn), admin: admin.NewClient(conn),
	}, nil
}

func (d *daemon) close() error { return d.conn.Close() }

// ask connects and runs a question with its bound.
func (a *app) ask(ctx context.Context, question func(context.Context, *daemon) error) (err error) {
	d, err := a.dial()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	err = plainError(question(ctx, d))
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("limpetd on %s gave no answer within %s: see its log", a.socket, questionTimeout)
	}
	return err
}

// plainError takes gRPC's wrapping off an error of limpetd: its text was
// written for people already.
func plainError(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	if s.Code() == codes.Unimplemented {
		return fmt.Errorf("this server does not know the call (%s): is it limpetd, and of the same version?", s.Message())
	}
	return errors.New(s.Message())
}
