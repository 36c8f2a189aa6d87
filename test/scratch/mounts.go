package scratch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Mounts returns the lines of the node's mount table, without what is mounted
// in folders of tests: other packages are tested at the same time. Folders that
// are named for t itself count.
func Mounts(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return without(string(b), t.Name())
}

func without(table, name string) string {
	var kept strings.Builder
	for line := range strings.Lines(table) {
		if !ofTests(strings.Fields(line)[4], name) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// ofTests says whether a place lies in a folder of a test, but for the one
// that is named.
func ofTests(place, name string) bool {
	rel, err := filepath.Rel(os.TempDir(), place)
	if err != nil || rel == "." || strings.HasPrefix(rel, "..") {
		return false
	}
	// The testing package names a folder for its test, with a number behind.
	return strings.HasPrefix(rel, prefix) || strings.HasPrefix(rel, "Test") && !strings.HasPrefix(rel, name)
}
