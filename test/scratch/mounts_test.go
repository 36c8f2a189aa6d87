package scratch

import (
	"os"
	"strings"
	"testing"
)

func TestMountsOfOthers(t *testing.T) {
	tmp := os.TempDir()
	const line = "22 27 0:21 / PLACE rw - tmpfs tmpfs rw\n"
	for place, kept := range map[string]bool{
		"/":                                  true,
		"/guest":                             true,
		tmp:                                  true,
		tmp + "/containerd-mount1/x":         true,
		tmp + "/TestMine1234/001/rw":         true,
		tmp + "/TestMinesub_case1234/001":    true,
		tmp + "/TestOther1234/001":           false,
		tmp + "/" + prefix + "77/netns/abc":  false,
		"/somewhere/" + prefix + "77":        true,
		tmp + "x/TestOther1234":              true,
		"/run/TestOther1234":                 true,
		tmp + "/TestMine1234/001/TestOther1": true,
	} {
		text := strings.Replace(line, "PLACE", place, 1)
		if got := without(text, "TestMine"); (got == text) != kept || got != "" && got != text {
			t.Errorf("%s: %q, kept %v wanted", place, got, kept)
		}
	}
	if !strings.Contains(Mounts(t), " /proc ") { // from where it was read
		t.Error("/proc is not among the mounts")
	}
}
