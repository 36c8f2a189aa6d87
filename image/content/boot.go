package content

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The boot file says under which boot of the machine the store was last open,
// whether it was closed, and whether blobs are still to be verified: "BOOTID
// open", "BOOTID closed", either with " unverified" behind it. Open under
// another boot means that the machine stopped beneath us, and that what the
// page cache had not written yet is lost. The last word outlives this process:
// it goes when every blob was looked at, and not when the machine is up again.
const bootFile = "boot"

const unverified = "unverified"

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// beginBoot writes that the store is open, and says whether its blobs must be
// verified: since it ended uncleanly under another boot, or since that was so
// before and the work is not done.
func beginBoot(root string) (unclean bool, err error) {
	id, err := bootID()
	if err != nil {
		return false, err
	}
	old, err := os.ReadFile(filepath.Join(root, bootFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("read boot file: %w", err)
	}
	if err == nil { // else a new store
		unclean = mustVerify(string(old), id)
	}
	return unclean, writeBoot(root, id, "open", unclean)
}

// mustVerify reads what the last process wrote. What cannot be read was torn
// when the machine stopped.
func mustVerify(text, id string) bool {
	w := strings.Fields(text)
	switch {
	case len(w) < 2 || len(w) > 3 || w[1] != "open" && w[1] != "closed":
		return true
	case len(w) == 3:
		return true
	}
	return w[0] != id && w[1] == "open"
}

func endBoot(root string, unclean bool) error {
	id, err := bootID()
	if err != nil {
		return err
	}
	return writeBoot(root, id, "closed", unclean)
}

// writeBoot replaces the boot file. The folder is synced too: were the old
// file still there after the machine stopped, it could say "closed".
func writeBoot(root, id, state string, unclean bool) error {
	text := id + " " + state
	if unclean {
		text += " " + unverified
	}
	tmp := filepath.Join(root, bootFile+".new")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write boot file: %w", err)
	}
	_, err = f.WriteString(text + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, filepath.Join(root, bootFile))
	}
	if err == nil {
		err = syncFolder(root)
	}
	if err != nil {
		return fmt.Errorf("write boot file: %w", err)
	}
	return nil
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
