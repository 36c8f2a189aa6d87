// Package admin owns the small service of our own that limpetd offers beside
// CRI on the same socket, for what CRI has no call for: importing an archive
// without a registry, and asking what an image on the node really is.
//
// Both sides live here, so that they cannot differ. The messages are the
// well-known wrappers of protobuf, with JSON in the answers: no generated code,
// and grpcurl can still be pointed at it. It never touches an image itself; it
// has no locks.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// ServiceName is the service's name on the wire.
const ServiceName = "limpet.admin.v1.Admin"

// The full names of its methods.
const (
	MethodImport  = "/" + ServiceName + "/Import"
	MethodInspect = "/" + ServiceName + "/Inspect"
)

// chunkSize is how many bytes of an archive travel in one message: well below
// any bound on messages, large enough to make the framing free.
const chunkSize = 256 << 10

// ErrMalformed is returned when the other side sent what this version of the
// service does not speak.
var ErrMalformed = errors.New("the answer of the admin service is not understood; limpet and limpetd should be of the same version")

// Image is what an import brought.
type Image struct {
	ID      string   `json:"id"`
	Tags    []string `json:"tags,omitempty"`
	Digests []string `json:"digests,omitempty"`
	Kind    string   `json:"kind"`
	Size    uint64   `json:"size"`
}

// Service is what limpetd implements.
type Service interface {
	// Import takes OCI layouts and archives, as a tar stream.
	Import(ctx context.Context, archive io.Reader) ([]Image, error)
	// Inspect looks into an image, by any name or id; false if it is not
	// there. The answer travels as JSON.
	Inspect(ctx context.Context, ref string) (any, bool, error)
}

// Register adds the service to a server.
func Register(r grpc.ServiceRegistrar, s Service) { r.RegisterService(desc(), s) }

func desc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: ServiceName,
		HandlerType: (*Service)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Inspect", Handler: handleInspect}},
		Streams:     []grpc.StreamDesc{{StreamName: "Import", Handler: handleImport, ClientStreams: true}},
	}
}

func handleInspect(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
	in := new(wrapperspb.StringValue)
	if err := decode(in); err != nil {
		return nil, err
	}
	call := func(ctx context.Context, req any) (any, error) {
		answer, found, err := srv.(Service).Inspect(ctx, req.(*wrapperspb.StringValue).GetValue())
		if err != nil {
			return nil, err
		}
		if !found {
			return wrapperspb.String(""), nil
		}
		return reply(answer)
	}
	if interceptor == nil {
		return call(ctx, in)
	}
	return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: MethodInspect}, call)
}

func handleImport(srv any, stream grpc.ServerStream) error {
	images, err := srv.(Service).Import(stream.Context(), &chunks{stream: stream})
	if err != nil {
		return err
	}
	out, err := reply(images)
	if err != nil {
		return err
	}
	return stream.SendMsg(out)
}

func reply(v any) (*wrapperspb.StringValue, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return wrapperspb.String(string(b)), nil
}

// chunks reads the bytes of an incoming stream; the client's half-close is the
// end.
type chunks struct {
	stream grpc.ServerStream
	rest   []byte
}

func (c *chunks) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		m := new(wrapperspb.BytesValue)
		if err := c.stream.RecvMsg(m); err != nil {
			return 0, err // io.EOF after the half-close
		}
		c.rest = m.GetValue()
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// Client calls the service.
type Client struct{ conn grpc.ClientConnInterface }

// NewClient returns a client over a connection to limpetd's socket.
func NewClient(conn grpc.ClientConnInterface) *Client { return &Client{conn: conn} }

// Inspect asks what limpetd holds under a name or id, and reads the answer
// into what into points to; false if there is nothing.
func (c *Client) Inspect(ctx context.Context, ref string, into any) (bool, error) {
	out := new(wrapperspb.StringValue)
	if err := c.conn.Invoke(ctx, MethodInspect, wrapperspb.String(ref), out); err != nil {
		return false, err
	}
	if out.GetValue() == "" {
		return false, nil
	}
	if err := json.Unmarshal([]byte(out.GetValue()), into); err != nil {
		return false, fmt.Errorf("%w (%v)", ErrMalformed, err)
	}
	return true, nil
}

// Import streams an archive to limpetd and returns what came of it.
func (c *Client) Import(ctx context.Context, archive io.Reader) ([]Image, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a failed read must not leave the server waiting for more
	stream, err := c.conn.NewStream(ctx, &grpc.StreamDesc{StreamName: "Import", ClientStreams: true}, MethodImport)
	if err != nil {
		return nil, err
	}
	if err := send(stream, archive); err != nil {
		return nil, err
	}
	out := new(wrapperspb.StringValue)
	if err := stream.RecvMsg(out); err != nil {
		return nil, err
	}
	var images []Image
	if err := json.Unmarshal([]byte(out.GetValue()), &images); err != nil {
		return nil, fmt.Errorf("%w (%v)", ErrMalformed, err)
	}
	return images, nil
}

// send copies the archive into the stream. When the server has ended the call
// already, SendMsg says io.EOF and the reason comes with RecvMsg.
func send(stream grpc.ClientStream, archive io.Reader) error {
	buf := make([]byte, chunkSize)
	for {
		n, err := io.ReadFull(archive, buf)
		if n > 0 {
			if e := stream.SendMsg(wrapperspb.Bytes(buf[:n])); errors.Is(e, io.EOF) {
				return nil
			} else if e != nil {
				return e
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return stream.CloseSend()
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
	}
}
