package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDetect(t *testing.T) {
	if _, err := Detect("/nonexistent"); !errors.Is(err, ErrUnsupported) {
		t.Errorf("no such folder: %v", err)
	}
	if _, err := Detect(t.TempDir()); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "memory, cpu, cpuacct, pids") {
		t.Errorf("an empty folder: %v", err)
	}
	hybrid := filepath.Join(Root, "unified")
	if _, err := os.Stat(hybrid); err != nil {
		t.Skip("needs a version 2 mount without controllers")
	}
	if _, err := Detect(hybrid); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "no controller memory, cpu, pids") {
		t.Errorf("a version 2 without controllers: %v", err)
	}
}
