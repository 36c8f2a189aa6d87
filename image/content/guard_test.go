package content

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/leases"
)

// A database that is damaged while it is in use, as on a disk that fails, is an
// error of those who use it: at once, every time, and whichever lock the first
// fault left taken. The next start looks at all of it.
func TestDamagedInUse(t *testing.T) {
	for name, size := range map[string]int64{"nothing left": 0, "a header": 4096, "the headers": 2 * 4096} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			var j journal
			s := opened(t, root, j.logger())
			addNames(t, s, put(t, s, "blob"), 400)
			if err := os.Truncate(filepath.Join(root, "meta.db"), size); err != nil {
				t.Fatal(err)
			}
			ctx := Context(context.Background())
			for range 2 {
				if _, err := s.Names().List(ctx); !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), "restart limpetd") {
					t.Errorf("list: %v", err)
				}
				if _, err := s.Leases().Create(ctx, leases.WithID("new")); !errors.Is(err, errDamaged) {
					t.Errorf("create: %v", err)
				}
			}
			for range 2 { // as it stands, and as a store that ends says it
				boot, err := os.ReadFile(filepath.Join(root, bootFile))
				if err != nil {
					t.Fatal(err)
				}
				id, err := bootID()
				if err != nil || !mustVerify(string(boot), id) {
					t.Errorf("the next start would look at nothing: %q, %v", boot, err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			if n := strings.Count(j.String(), "level=ERROR"); n != 1 || !strings.Contains(j.String(), "stack=") {
				t.Errorf("told %d times:\n%s", n, j.String())
			}
		})
	}
}
