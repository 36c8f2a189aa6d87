package spec

// The control protocol. A host listens on a SOCK_SEQPACKET socket; whoever
// connects (root on the node) is its supervisor, a later one after a restart
// of the daemon. The host speaks first with Hello as soon as it is ready to
// start, then answers each request with one reply, in order. A connection that
// ends without Hello means that the host could not be made ready: the exit
// record or FileDiagnostics says why.

// ProtocolVersion is the version in Hello. A daemon drives hosts of its own
// version and older ones: 1 had no OpBound.
const ProtocolVersion = 2

// VersionBound is the first version with OpBound.
const VersionBound = 2

// MaxControlMessage bounds a message, in bytes.
const MaxControlMessage = 4096

// Op is the first byte of every message.
type Op uint8

// Messages of the host.
const (
	OpHello Op = 1 // version u8, phase u8
	OpDone  Op = 2 // the request was carried out
	OpError Op = 3 // text
)

// Requests to the host.
const (
	OpStart     Op = 16 // run the guest; Done once it is instantiated and about to run
	OpStop      Op = 17 // signal u8: act as Payload.OnStop says; Done at once
	OpReopenLog Op = 18 // a descriptor comes along (SCM_RIGHTS): log there from now on
	OpBound     Op = 19 // bytes u64: Payload.MemoryLimit from now on; Done when growth sees it
)

// Phase is what a host says of itself in Hello.
type Phase uint8

// The phases of a host.
const (
	PhaseReady   Phase = 1 // everything is mapped and linked; waits for OpStart
	PhaseRunning Phase = 2
	PhaseEnding  Phase = 3 // the exit record is being written
)

// Message is one message of the control protocol.
type Message struct {
	Op      Op
	Version uint8  // OpHello
	Phase   Phase  // OpHello
	Signal  uint8  // OpStop
	Bytes   uint64 // OpBound
	Text    string // OpError
}

// Encode returns the wire form.
func (m *Message) Encode() []byte {
	e := encoder{b: make([]byte, 0, 64)}
	e.u8(uint8(m.Op))
	switch m.Op {
	case OpHello:
		e.u8(m.Version)
		e.u8(uint8(m.Phase))
	case OpStop:
		e.u8(m.Signal)
	case OpBound:
		e.u64(m.Bytes)
	case OpError:
		t := m.Text
		if len(t) > MaxControlMessage-16 {
			t = t[:MaxControlMessage-16]
		}
		e.str(t)
	}
	return e.b
}

// DecodeMessage reads the wire form.
func DecodeMessage(b []byte) (*Message, error) {
	d := decoder{b: b}
	m := &Message{Op: Op(d.u8())}
	switch m.Op {
	case OpHello:
		m.Version, m.Phase = d.u8(), Phase(d.u8())
	case OpStop:
		m.Signal = d.u8()
	case OpBound:
		m.Bytes = d.u64()
	case OpError:
		m.Text = d.str()
	case OpDone, OpStart, OpReopenLog:
	default:
		return nil, ErrMalformed
	}
	if err := d.done(); err != nil {
		return nil, err
	}
	return m, nil
}
