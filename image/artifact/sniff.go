package artifact

import (
	"encoding/binary"
	"io"
)

// sniffWasm tells modules, components and interface packages apart.
func sniffWasm(head []byte, r io.ReaderAt, size int64) Content {
	if len(head) < 8 {
		return Unknown
	}
	switch version, layer := binary.LittleEndian.Uint16(head[4:]), binary.LittleEndian.Uint16(head[6:]); {
	case layer == 0 && version == 1:
		return Module
	case layer == 1:
		if onlyInterfaces(r, size) {
			return Interface
		}
		return Component
	}
	return Unknown
}

// Sections of a component that hold something to run.
const (
	sectionCoreModule   = 1
	sectionCoreInstance = 2
	sectionComponent    = 4
	sectionInstance     = 5
	sectionCanon        = 8
	sectionStart        = 9
	// maxSections bounds the headers looked at.
	maxSections = 10_000
)

// onlyInterfaces reads the headers of a component's sections and says whether
// they only declare types.
func onlyInterfaces(r io.ReaderAt, size int64) bool {
	at := int64(8)
	for range maxSections {
		if at >= size {
			return at == size
		}
		var h [11]byte
		n, err := r.ReadAt(h[:], at)
		if err != nil && err != io.EOF || n < 2 {
			return false
		}
		length, w := binary.Uvarint(h[1:n])
		if w <= 0 || length > uint64(size-at) {
			return false
		}
		switch h[0] {
		case sectionCoreModule, sectionCoreInstance, sectionComponent, sectionInstance, sectionCanon, sectionStart:
			return false
		}
		at += 1 + int64(w) + int64(length)
	}
	return false
}
