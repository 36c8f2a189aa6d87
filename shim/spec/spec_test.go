package spec_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/limpet-cri/limpet/shim/spec"
)

func payload() *spec.Payload {
	return &spec.Payload{
		Args: []string{"app", "", "--x=ü"}, Env: []string{"A=1", "PATH=/bin"},
		Cwd: "/srv", Module: "app.wasm", MemoryLimit: 1 << 33,
		Proposals: []string{"threads"},
		Listen:    []spec.Listen{{Address: "[::1]:80"}, {Address: ":8080"}},
		OnStop:    spec.OnStopCloseStdin, Stdin: true, ReadonlyRoot: true,
		Readonly: []string{"/etc/config"}, Writable: []string{"/data", "/data/x"},
	}
}

func TestPayloadRoundTrip(t *testing.T) {
	for _, p := range []*spec.Payload{{}, payload()} {
		got, err := spec.DecodePayload(p.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, p) {
			t.Errorf("got %+v, want %+v", got, p)
		}
	}
}

func TestPayloadRefusesDamage(t *testing.T) {
	whole := payload().Encode()
	for n := range whole {
		if _, err := spec.DecodePayload(whole[:n]); !errors.Is(err, spec.ErrMalformed) {
			t.Fatalf("cut after %d bytes: %v, want ErrMalformed", n, err)
		}
	}
	if _, err := spec.DecodePayload(append(whole, 0)); !errors.Is(err, spec.ErrMalformed) {
		t.Errorf("a byte too many: %v", err)
	}
	other := bytes.Clone(whole)
	other[0]++
	if _, err := spec.DecodePayload(other); !errors.Is(err, spec.ErrMalformed) {
		t.Errorf("another version: %v", err)
	}
	// A count that the message cannot hold must not be believed.
	if _, err := spec.DecodePayload([]byte{spec.PayloadVersion, 0xff, 0xff, 0xff, 0xff}); !errors.Is(err, spec.ErrMalformed) {
		t.Errorf("a huge count: %v", err)
	}
}

func TestMessageRoundTrip(t *testing.T) {
	for _, m := range []spec.Message{
		{Op: spec.OpHello, Version: spec.ProtocolVersion, Phase: spec.PhaseReady},
		{Op: spec.OpDone}, {Op: spec.OpStart}, {Op: spec.OpReopenLog},
		{Op: spec.OpError, Text: "no such thing"},
		{Op: spec.OpStop, Signal: 15},
		{Op: spec.OpBound, Bytes: 1<<63 + 5},
	} {
		got, err := spec.DecodeMessage(m.Encode())
		if err != nil || *got != m {
			t.Errorf("%+v became %+v, %v", m, got, err)
		}
	}
}

func TestMessageBounds(t *testing.T) {
	m := spec.Message{Op: spec.OpError, Text: strings.Repeat("x", 2*spec.MaxControlMessage)}
	if n := len(m.Encode()); n > spec.MaxControlMessage {
		t.Errorf("an error message of %d bytes, at most %d fit", n, spec.MaxControlMessage)
	}
	for _, b := range [][]byte{nil, {0}, {99}, {byte(spec.OpHello)}, {byte(spec.OpStop)}, {byte(spec.OpStart), 0}, {byte(spec.OpBound), 1, 2, 3, 4, 5, 6, 7}} {
		if _, err := spec.DecodeMessage(b); !errors.Is(err, spec.ErrMalformed) {
			t.Errorf("% x: %v, want ErrMalformed", b, err)
		}
	}
}

func TestExitRoundTrip(t *testing.T) {
	at := time.Unix(1700000000, 123456789)
	for _, x := range []spec.Exit{
		{Code: 0, Reason: spec.ReasonCompleted, At: at},
		{Code: 255, Reason: spec.ReasonError, At: at},
		{Code: spec.CodeTrap, Reason: spec.ReasonTrap, Message: "unreachable executed\n  0: main", At: at},
	} {
		got, err := spec.DecodeExit(x.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if !got.At.Equal(x.At) || got.Code != x.Code || got.Reason != x.Reason || got.Message != x.Message {
			t.Errorf("got %+v, want %+v", got, x)
		}
	}
}

// A record is believed only as a whole: cut at any place, with any bit
// changed, or twice in a row it is as good as absent.
func TestExitRefusesDamage(t *testing.T) {
	x := spec.Exit{Code: 3, Reason: spec.ReasonError, Message: "said so", At: time.Unix(1, 2)}
	whole := x.Encode()
	for n := range whole {
		if _, err := spec.DecodeExit(whole[:n]); !errors.Is(err, spec.ErrMalformed) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
	for i := range len(whole) * 8 {
		b := bytes.Clone(whole)
		b[i/8] ^= 1 << (i % 8)
		if _, err := spec.DecodeExit(b); !errors.Is(err, spec.ErrMalformed) {
			t.Fatalf("bit %d changed: %v", i, err)
		}
	}
	if _, err := spec.DecodeExit(append(bytes.Clone(whole), whole...)); !errors.Is(err, spec.ErrMalformed) {
		t.Errorf("two records: %v", err)
	}
}

func TestExitCutsMessage(t *testing.T) {
	x := spec.Exit{Code: 1, Reason: spec.ReasonError, Message: strings.Repeat("x", 3*spec.MaxMessage), At: time.Unix(1, 0)}
	got, err := spec.DecodeExit(x.Encode())
	if err != nil || len(got.Message) != spec.MaxMessage {
		t.Fatalf("%v, message of %d bytes, want %d", err, len(got.Message), spec.MaxMessage)
	}
}

// A message that is not UTF-8 would make every status of the container fail:
// none is written, and none is believed.
func TestExitIsText(t *testing.T) {
	for in, want := range map[string]string{
		"caf\xc3": "caf",
		"x" + strings.Repeat("\u00e9", spec.MaxMessage): "x" + strings.Repeat("\u00e9", spec.MaxMessage/2-1),
	} {
		x := spec.Exit{Code: 134, Reason: spec.ReasonTrap, Message: in, At: time.Unix(1, 0)}
		if got, err := spec.DecodeExit(x.Encode()); err != nil || got.Message != want {
			t.Errorf("%.10q: %v, %+v", in, err, got)
		}
	}
	x := spec.Exit{Code: 1, Reason: spec.ReasonError, Message: "said", At: time.Unix(1, 0)}
	for _, text := range []string{"Error", "said"} {
		forged := bytes.Replace(x.Encode(), []byte(text), append([]byte("\xff"), text[1:]...), 1)
		binary.LittleEndian.PutUint32(forged[8:], crc32.ChecksumIEEE(forged[12:]))
		if got, err := spec.DecodeExit(forged); !errors.Is(err, spec.ErrMalformed) {
			t.Errorf("forged %s: %v, %+v", text, err, got)
		}
	}
}

func FuzzPayload(f *testing.F) {
	f.Add(payload().Encode())
	f.Add((&spec.Payload{}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := spec.DecodePayload(b)
		if err != nil {
			return
		}
		again, err := spec.DecodePayload(p.Encode())
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Fatalf("%+v became %+v, %v", p, again, err)
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add((&spec.Message{Op: spec.OpHello, Version: 1, Phase: 1}).Encode())
	f.Add((&spec.Message{Op: spec.OpError, Text: "x"}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := spec.DecodeMessage(b)
		if err != nil || len(b) > spec.MaxControlMessage {
			return
		}
		again, err := spec.DecodeMessage(m.Encode())
		if err != nil || again.Op != m.Op {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
	})
}

func FuzzExit(f *testing.F) {
	x := spec.Exit{Code: 3, Reason: spec.ReasonError, Message: "m", At: time.Unix(5, 6)}
	f.Add(x.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := spec.DecodeExit(b)
		if err != nil {
			return
		}
		if x.Code < 0 || x.Code > 255 || len(x.Message) > spec.MaxMessage {
			t.Fatalf("out of bounds: %+v", x)
		}
		if again := x.Encode(); !bytes.Equal(again, b) {
			t.Fatalf("% x was taken for % x", b, again)
		}
	})
}
