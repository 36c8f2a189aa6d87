//go:build e2e

package e2e

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func (k *kubelet) terminationMessage(t *testing.T) {
	p := k.await(t, "message", patience, phase("Succeeded"))
	if e := ended(t, p, 0, "Completed"); e.Message != "from the node\n" {
		t.Errorf("message %q", e.Message)
	}
	f := k.await(t, "fallback", patience, phase("Failed"))
	if e := ended(t, f, 3, "Error"); !strings.Contains(e.Message, "exit code 3") {
		t.Errorf("message from the log: %q", e.Message)
	}
}

// rotation reads all files of a rotated log and wants every line once: from the
// first on, unless the kubelet has removed files already, as it is told to.
func (k *kubelet) rotation(t *testing.T) {
	pattern := filepath.Join(k.dir, "logs", "default_rotation-*", "rotation", "0.log*")
	var lines []string
	eventually(t, patience, func() error {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		if len(files) < 3 {
			return fmt.Errorf("only %v so far", files)
		}
		if lines, err = rotated(slices.Clone(files)); err != nil {
			return err
		}
		if after, err := filepath.Glob(pattern); err != nil || !slices.Equal(files, after) {
			return fmt.Errorf("rotated while it was read: %v, then %v, %v", files, after, err)
		}
		return nil
	})
	if len(lines) < 100 {
		t.Fatalf("only %d lines", len(lines))
	}
	var first int
	if _, err := fmt.Sscanf(lines[0], "line %d ", &first); err != nil {
		t.Fatalf("the rotated logs begin with %q", lines[0])
	}
	for i, l := range lines[:len(lines)-1] {
		if want := fmt.Sprintf("line %d ", first+i); !strings.HasPrefix(l, want) {
			t.Fatalf("line %d of the rotated logs is %q, want %s", i, l, want)
		}
	}
}

// rotated joins a log's files in their order: the rotated by their time, then
// the one in use.
func rotated(files []string) ([]string, error) {
	slices.SortFunc(files, func(a, b string) int {
		if strings.HasSuffix(a, "0.log") {
			return 1
		}
		if strings.HasSuffix(b, "0.log") {
			return -1
		}
		return strings.Compare(a, b)
	})
	var all strings.Builder
	for _, p := range files {
		f, err := os.Open(p)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		var r io.Reader = f
		if strings.HasSuffix(p, ".gz") {
			if r, err = gzip.NewReader(f); err != nil {
				return nil, err
			}
		} else if strings.HasSuffix(p, ".tmp") {
			return nil, fmt.Errorf("%s is being compressed", p)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		all.WriteString(logText(string(b)))
	}
	return strings.Split(strings.TrimSuffix(all.String(), "\n"), "\n"), nil
}
