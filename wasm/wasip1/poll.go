package wasip1

import (
	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/wasm"
	"github.com/limpet-cri/limpet/wasm/wasi"
)

// Sizes and bits of poll_oneoff's records.
const (
	subscriptionSize         = 48
	subscriptionSizeUnstable = 56
	eventSize                = 32
	clockAbsolute            = 1
	eventHangup              = 1
)

func pollOneoff(g *guest, mem []byte, a []wasm.Raw) error {
	n := a[2].I32()
	if n == 0 || n > wasi.MaxSubscriptions {
		return unix.EINVAL
	}
	size := uint32(subscriptionSize)
	if g.unstable {
		size = subscriptionSizeUnstable
	}
	in, err := array(mem, a[0].I32(), n, size)
	if err != nil {
		return err
	}
	events, err := array(mem, a[1].I32(), n, eventSize)
	if err != nil {
		return err
	}
	count, err := out(mem, a[3].I32(), 4)
	if err != nil {
		return err
	}
	subs := g.sys.Subscriptions(int(n))
	for i := range subs {
		if err := g.subscription(&subs[i], in[uint32(i)*size:]); err != nil {
			return err
		}
	}
	if err := g.sys.Poll(subs); err != nil {
		return err
	}
	ready := uint32(0)
	for i := range subs {
		if subs[i].Ready {
			putEvent(events[ready*eventSize:], &subs[i])
			ready++
		}
	}
	le.PutUint32(count, ready)
	return nil
}

// subscription decodes one record. In wasi_unstable a clock has an identifier
// of its own in front.
func (g *guest) subscription(s *wasi.Subscription, p []byte) error {
	s.Userdata, s.Type = le.Uint64(p), wasi.EventType(p[8])
	u := p[16:]
	switch s.Type {
	case wasi.EventClock:
		if g.unstable {
			u = u[8:]
		}
		s.Clock, s.Timeout = wasi.ClockID(le.Uint32(u)), le.Uint64(u[8:])
		s.Absolute = le.Uint16(u[24:])&clockAbsolute != 0
	case wasi.EventRead, wasi.EventWrite:
		s.FD = le.Uint32(u)
	default:
		return unix.EINVAL
	}
	return nil
}

func putEvent(p []byte, s *wasi.Subscription) {
	p = p[:eventSize]
	clear(p)
	le.PutUint64(p, s.Userdata)
	le.PutUint16(p[8:], uint16(ErrnoOf(s.Err)))
	p[10] = uint8(s.Type)
	if s.Type == wasi.EventClock {
		return
	}
	le.PutUint64(p[16:], s.Bytes)
	if s.Hangup {
		le.PutUint16(p[24:], eventHangup)
	}
}
