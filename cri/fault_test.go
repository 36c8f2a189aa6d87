package cri

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A file that is mapped and gets shorter, as a database on a disk that fails,
// is a fault of the call that reads it and not the end of the daemon.
func TestFaultOfMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b) //nolint:errcheck // the test's own
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	e, log, _ := newEdge(t, time.Hour)
	_, err = e.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/s/Read"}, func(context.Context, any) (any, error) { return b[4096], nil })
	if status.Code(err) != codes.Internal {
		t.Errorf("unary: %v", err)
	}
	err = e.stream(nil, &fakeStream{ctx: t.Context()}, &grpc.StreamServerInfo{FullMethod: "/s/Read"}, func(any, grpc.ServerStream) error {
		return status.Error(codes.OK, string(b[4096:4097]))
	})
	if status.Code(err) != codes.Internal {
		t.Errorf("stream: %v", err)
	}
	inOrderOf(t, "log", log.String(), []string{"panic in a call", "fault_test.go"})
}
