// Package record owns how small facts survive on a node's disk: one versioned,
// checksummed file per fact, replaced as a whole.
//
// A writer may be killed between any two instructions, and the machine may
// lose power. Killing loses nothing that was written, synced or not; after a
// power loss an unsynced file can be there under its final name with no bytes
// in it, and a synced one can be there under its temporary name only. So a
// reader takes an empty, short or damaged file as absent, and a whole temporary
// file as the record when the final name holds none.
//
// The package knows nothing of what it keeps. It takes no locks: one file has
// one writer at a time, which is the caller's promise.
package record

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// MaxSize bounds the body of a record, in bytes: a record holds at most one
// request, and requests are bounded to the same size where they come in.
const MaxSize = 16 << 20

// MaxEntries bounds what List returns: far more than a node can run.
const MaxEntries = 1 << 17

// A file is this header, each part 32 bits little-endian (the magic as it
// stands): magic, version, length of the body, CRC-32 (IEEE) of everything
// else; then the body, which is JSON.
const headerSize = 16

// tempSuffix marks a record that is being written.
const tempSuffix = ".t"

// Kind tells records of one subject from others.
type Kind struct {
	Magic [4]byte
	// Version is the newest version that the caller understands. Records of
	// older ones are read as well; a newer one is refused with ErrNewer,
	// since leaving out what it says would be worse.
	Version uint32
}

// Durability says what a written record survives.
type Durability bool

// A Killed record survives the end of the writing process at any moment; a
// PowerLoss record the end of the machine too, for two flushes of the disk.
const (
	Killed    Durability = false
	PowerLoss Durability = true
)

var (
	// ErrAbsent is returned when there is no record, or none that is whole.
	ErrAbsent = errors.New("no record")
	// ErrNewer is returned for a record of a newer version than Kind names,
	// or with fields that this version does not know.
	ErrNewer = errors.New("record of a newer version")
	// ErrTooLarge is returned by Write for a body beyond MaxSize.
	ErrTooLarge = errors.New("record too large")
)

// DamagedError tells what is wrong with a file that should hold a record. It
// is an ErrAbsent: nothing can be read from the file, but somebody should hear
// of it.
type DamagedError struct {
	Path, Found string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("record %s is damaged (%s) and taken as absent", e.Path, e.Found)
}

// Is makes the error an ErrAbsent.
func (e *DamagedError) Is(target error) bool { return target == ErrAbsent }

// Write replaces the record at path by v. When it returns, the record has the
// durability asked for; when it fails, the old record stands.
func Write(path string, k Kind, v any, d Durability) error {
	b, err := encode(k, v)
	if err != nil {
		return fmt.Errorf("write record %s: %w", path, err)
	}
	if err := replace(path, b, d); err != nil {
		return fmt.Errorf("write record %s: %w", path, err)
	}
	return nil
}

func replace(path string, b []byte, d Durability) error {
	temp := path + tempSuffix
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil && d == PowerLoss {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	if d == PowerLoss {
		return syncFolder(filepath.Dir(path))
	}
	return nil
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Read fills v from the record at path. Without a whole record it returns
// ErrAbsent, as a *DamagedError when there is a file; v is then unspecified.
func Read(path string, k Kind, v any) error {
	err := readFile(path, k, v)
	if !errors.Is(err, ErrAbsent) {
		return err
	}
	switch temp := readFile(path+tempSuffix, k, v); {
	case temp == nil || errors.Is(temp, ErrNewer):
		return temp
	case err == ErrAbsent:
		return temp // says more, or the same
	}
	return err
}

func readFile(path string, k Kind, v any) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrAbsent
	}
	if err != nil {
		return fmt.Errorf("read record: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, headerSize+MaxSize+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read record: %w", err)
	}
	found, err := decode(b, k, v)
	if found != "" {
		return &DamagedError{Path: path, Found: found}
	}
	if err != nil {
		return fmt.Errorf("record %s: %w", path, err)
	}
	return nil
}

func encode(k Kind, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(body) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(body), MaxSize)
	}
	b := make([]byte, headerSize, headerSize+len(body))
	copy(b, k.Magic[:])
	binary.LittleEndian.PutUint32(b[4:], k.Version)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(body)))
	b = append(b, body...)
	binary.LittleEndian.PutUint32(b[12:], checksum(b))
	return b, nil
}

// checksum covers everything but itself.
func checksum(b []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE(b[:12]), crc32.IEEETable, b[headerSize:])
}

// decode returns in found what makes b no record of kind k.
func decode(b []byte, k Kind, v any) (found string, err error) {
	switch {
	case len(b) == 0:
		return "empty", nil
	case len(b) < headerSize:
		return fmt.Sprintf("%d bytes, shorter than a header", len(b)), nil
	case !bytes.Equal(b[:4], k.Magic[:]):
		return fmt.Sprintf("magic %q, want %q", b[:4], k.Magic[:]), nil
	}
	body := b[headerSize:]
	if want := binary.LittleEndian.Uint32(b[8:]); uint64(want) != uint64(len(body)) {
		return fmt.Sprintf("%d bytes of body, want %d", len(body), want), nil
	}
	if sum := checksum(b); sum != binary.LittleEndian.Uint32(b[12:]) {
		return "wrong checksum", nil
	}
	if version := binary.LittleEndian.Uint32(b[4:]); version > k.Version {
		return "", fmt.Errorf("%w: version %d, this program knows up to %d: use the newer program", ErrNewer, version, k.Version)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		// The checksum holds, so this is what a writer meant to write.
		return "", fmt.Errorf("%w: %w", ErrNewer, err)
	}
	return "", nil
}

// Remove removes the record at path; removing an absent one succeeds.
func Remove(path string) error {
	for _, p := range []string{path + tempSuffix, path} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove record: %w", err)
		}
	}
	return nil
}

// List returns the names of the folders in dir, sorted: a folder per object,
// with its records in it. A missing dir has none.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	if len(names) > MaxEntries {
		return nil, fmt.Errorf("list records: %d folders in %s, at most %d: remove what does not belong there", len(names), dir, MaxEntries)
	}
	return names, nil
}
