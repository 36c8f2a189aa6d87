package content

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// overlayWorks makes an overlay on the store's file system and throws it away.
// It is never attached to a mount table: a kill in between leaves nothing but
// empty folders, which the next start uses again.
func overlayWorks(root string) error {
	dir := filepath.Join(root, "overlay-check")
	for _, d := range []string{"lower", "upper", "work"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	defer os.RemoveAll(dir)
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	for k, d := range map[string]string{"lowerdir": "lower", "upperdir": "upper", "workdir": "work"} {
		if err := unix.FsconfigSetString(fs, k, filepath.Join(dir, d)); err != nil {
			return fmt.Errorf("overlay %s: %w", k, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("make overlay: %w", err)
	}
	return nil
}
