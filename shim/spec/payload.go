package spec

// PayloadVersion is the first byte of an encoded Payload; a host refuses
// another one.
const PayloadVersion = 1

// Payload is what the host's Go half is told, derived from a Container: all it
// needs to run the guest, once the constructor has done its part.
type Payload struct {
	Args, Env   []string
	Cwd         string // absolute path in the guest's root
	Module      string
	MemoryLimit uint64
	Proposals   []string
	Listen      []Listen
	OnStop      OnStop
	Stdin       bool
	// ReadonlyRoot is true when the guest may not write outside its mounts;
	// Readonly are the mount points below which it may not, Writable those
	// below which it may. The longest match wins. The kernel enforces the
	// same; this half is for the answer a guest gets.
	ReadonlyRoot       bool
	Readonly, Writable []string
}

// Encode returns the wire form.
func (p *Payload) Encode() []byte {
	e := encoder{b: make([]byte, 0, 1024)}
	e.u8(PayloadVersion)
	e.strs(p.Args)
	e.strs(p.Env)
	e.str(p.Cwd)
	e.str(p.Module)
	e.u64(p.MemoryLimit)
	e.strs(p.Proposals)
	e.u32(uint32(len(p.Listen)))
	for _, l := range p.Listen {
		e.str(l.Address)
	}
	e.u8(uint8(p.OnStop))
	e.bool(p.Stdin)
	e.bool(p.ReadonlyRoot)
	e.strs(p.Readonly)
	e.strs(p.Writable)
	return e.b
}

// DecodePayload reads the wire form.
func DecodePayload(b []byte) (*Payload, error) {
	d := decoder{b: b}
	if d.u8() != PayloadVersion {
		return nil, ErrMalformed
	}
	p := &Payload{
		Args: d.strs(), Env: d.strs(), Cwd: d.str(), Module: d.str(),
		MemoryLimit: d.u64(), Proposals: d.strs(),
	}
	for range d.count() {
		p.Listen = append(p.Listen, Listen{Address: d.str()})
	}
	p.OnStop = OnStop(d.u8())
	p.Stdin = d.bool()
	p.ReadonlyRoot = d.bool()
	p.Readonly, p.Writable = d.strs(), d.strs()
	if err := d.done(); err != nil {
		return nil, err
	}
	return p, nil
}
