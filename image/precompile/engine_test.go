package precompile

import (
	"context"
	"os"
	"testing"

	"github.com/limpet-cri/limpet/image/content"
)

// TestKey: code is told apart by the module's digest, the engine's build and
// the proposals, and by nothing else.
func TestKey(t *testing.T) {
	root := t.TempDir()
	n := opened(t, root, &fake{engine: "44"})
	owner, other := n.owner("manifest"), n.owner("another")
	m := n.module("module")
	path := n.code(owner, m)
	for what, same := range map[string]string{
		"asked again":                    n.code(owner, m),
		"of another image":               n.code(other, m),
		"opened from elsewhere":          n.code(owner, n.module("module")),
		"with an empty set of proposals": n.code(owner, m, []string{}...),
	} {
		if same != path {
			t.Errorf("%s, the code is another", what)
		}
	}
	ab := n.code(owner, m, "a", "b")
	if n.code(owner, m, "b", "a") != ab || n.code(owner, m, "a", "b", "a") != ab {
		t.Error("the order of proposals matters")
	}
	seen := map[string]string{path: "default", ab: "a b"}
	for what, p := range map[string]string{"other module": n.code(owner, n.module("module 2")), "a": n.code(owner, m, "a")} {
		if was, ok := seen[p]; ok {
			t.Errorf("%s has the code of %s", what, was)
		}
		seen[p] = what
	}
	if got := n.comp.runs.Load(); got != 4 {
		t.Errorf("compiled %d times, want 4", got)
	}
	if got := n.comp.keys.Load(); got != 3 {
		t.Errorf("asked the engine %d times, want once for each set", got)
	}
	if err := n.store.Close(); err != nil {
		t.Fatal(err)
	}
	n = opened(t, root, &fake{engine: "48"})
	if p := n.code(owner, m); seen[p] != "" || n.comp.runs.Load() != 1 {
		t.Error("another build loads the code of the one before")
	}
	if err := n.store.Close(); err != nil {
		t.Fatal(err)
	}
	n = opened(t, root, &fake{engine: "44"})
	if p := n.code(owner, m); p != path || n.comp.runs.Load() != 0 {
		t.Error("the same build compiles again after a restart")
	}
}

// TestRetire: code of an engine that is gone, or of proposals that nobody
// names any more, goes at the next start; what is in use stays, and the next
// use of the rest costs a compilation.
func TestRetire(t *testing.T) {
	root := t.TempDir()
	n := opened(t, root, &fake{engine: "44"})
	owner, m := n.owner("manifest"), n.module("module")
	// A label as an earlier build wrote it.
	if err := n.relabel(content.Context(context.Background()), owner, map[string]string{labelCode + ".0123456789abcdef": "0123456789abcdef"}); err != nil {
		t.Fatal(err)
	}
	old, oldThreads := n.code(owner, m), n.code(owner, m, "threads")
	restart := func(engine string) {
		t.Helper()
		if err := n.store.Close(); err != nil {
			t.Fatal(err)
		}
		n = opened(t, root, &fake{engine: engine})
	}
	retire := func(want int, sets ...[]string) {
		t.Helper()
		got, err := n.Retire(context.Background(), sets)
		if err != nil || got != want {
			t.Errorf("retired %d, %v; want %d", got, err, want)
		}
		n.collect()
	}
	there := func(want bool, paths ...string) {
		t.Helper()
		for _, p := range paths {
			for _, f := range []string{p, p + sumSuffix} {
				if _, err := os.Lstat(f); (err == nil) != want {
					t.Errorf("%s: %v, want there: %v", f, err, want)
				}
			}
		}
	}
	restart("44")
	retire(1, []string{"threads"})
	there(true, old, oldThreads)
	retire(0, []string{"threads"})
	restart("") // the engine does not answer
	if _, err := n.Retire(context.Background(), nil); err == nil {
		t.Error("no error without an engine")
	}
	n.collect()
	there(true, old, oldThreads)

	restart("48")
	young := n.code(owner, m) // compiled before the old code is looked for
	retire(2, []string{"threads"})
	there(false, old, oldThreads)
	there(true, young)
	runs := n.comp.runs.Load()
	n.code(owner, m)
	youngThreads := n.code(owner, m, "threads")
	if got := n.comp.runs.Load() - runs; got != 1 {
		t.Errorf("compiled %d times, want once for the proposals", got)
	}
	restart("48")
	retire(1) // the profile is gone
	there(true, young)
	there(false, youngThreads)
}

// TestRetireAsksNobody: an empty cache starts no process for a key.
func TestRetireAsksNobody(t *testing.T) {
	n := opened(t, t.TempDir(), &fake{engine: "44"})
	n.owner("manifest")
	if k, err := n.Retire(context.Background(), [][]string{{"threads"}}); k != 0 || err != nil || n.comp.keys.Load() != 0 {
		t.Errorf("%d, %v, asked %d times", k, err, n.comp.keys.Load())
	}
}
