package admin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// recorder takes what comes in, and stops reading after limit bytes.
type recorder struct {
	got   []byte
	limit int64
	fail  error
}

func (r *recorder) Import(_ context.Context, archive io.Reader) ([]Image, error) {
	var err error
	if r.limit > 0 {
		archive = io.LimitReader(archive, r.limit)
	}
	if r.got, err = io.ReadAll(archive); err != nil {
		return nil, err
	}
	if r.fail != nil {
		return nil, r.fail
	}
	return []Image{{ID: "sha256:aa", Tags: []string{"a:1"}, Kind: "artifact", Size: uint64(len(r.got))}}, nil
}

func (r *recorder) Inspect(_ context.Context, ref string) (any, bool, error) {
	if ref != "a:1" {
		return nil, false, r.fail
	}
	return Image{ID: "sha256:aa", Tags: []string{"a:1"}}, true, nil
}

func client(t *testing.T, s Service) *Client {
	t.Helper()
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	Register(server, s)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	conn, err := grpc.NewClient("unix:"+sock, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); server.Stop(); <-done })
	return NewClient(conn)
}

func TestImport(t *testing.T) {
	for _, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 5*chunkSize + 17} {
		want := make([]byte, size)
		rng := rand.NewChaCha8([32]byte{})
		_, _ = rng.Read(want)
		r := &recorder{}
		images, err := client(t, r).Import(t.Context(), bytes.NewReader(want))
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if !bytes.Equal(r.got, want) {
			t.Errorf("%d bytes: the server got %d other ones", size, len(r.got))
		}
		if len(images) != 1 || images[0].Size != uint64(size) || images[0].Tags[0] != "a:1" {
			t.Errorf("%d bytes: answer %+v", size, images)
		}
	}
}

// A server that refuses half-way ends the client, which still learns why.
func TestImportRefused(t *testing.T) {
	r := &recorder{limit: 10, fail: errors.New("no index.json in it")}
	_, err := client(t, r).Import(t.Context(), io.LimitReader(zeros{}, 64*chunkSize))
	if err == nil || !strings.Contains(err.Error(), "no index.json in it") {
		t.Errorf("got %v", err)
	}
}

// An archive that cannot be read ends the call instead of leaving the server
// with a half that looks whole.
func TestImportBrokenReader(t *testing.T) {
	broken := io.MultiReader(strings.NewReader("abc"), failing{})
	_, err := client(t, &recorder{}).Import(t.Context(), broken)
	if err == nil || !strings.Contains(err.Error(), "bad disk") {
		t.Errorf("got %v", err)
	}
}

func TestInspect(t *testing.T) {
	c := client(t, &recorder{})
	var img Image
	found, err := c.Inspect(t.Context(), "a:1", &img)
	if err != nil || !found {
		t.Fatalf("found %v, %v", found, err)
	}
	if want := (Image{ID: "sha256:aa", Tags: []string{"a:1"}}); !reflect.DeepEqual(img, want) {
		t.Errorf("got %v, want %v", img, want)
	}
	if found, err = c.Inspect(t.Context(), "b:1", &img); found || err != nil {
		t.Errorf("an absent one: found %v, %v", found, err)
	}
	var other []int
	if _, err = c.Inspect(t.Context(), "a:1", &other); !errors.Is(err, ErrMalformed) {
		t.Errorf("an answer of another form: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("bad disk") }
