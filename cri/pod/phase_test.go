package pod

import (
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write the generated pages instead of comparing them")

// graphs are the two machines, with what the source calls their parts.
func graphs() map[string]struct {
	g              graph
	events         []Event
	start, end     Kind
	marker, prefix string
} {
	type machine = struct {
		g              graph
		events         []Event
		start, end     Kind
		marker, prefix string
	}
	return map[string]machine{
		"container": {containerEdges(), []Event{EventReady, EventStart, EventStarted, EventStop, EventLose, EventExit, EventRemove}, KindPreparing, KindRemoved, "Phase", "becomes"},
		"sandbox":   {sandboxEdges(), []Event{EventSandboxReady, EventSandboxStop, EventSandboxRemove}, KindSandboxPreparing, KindSandboxRemoved, "SandboxPhase", "becomes"},
	}
}

// Each phase says about each event what it does.
func TestPairsAreComplete(t *testing.T) {
	for name, m := range graphs() {
		for k, events := range m.g {
			if got := slices.Sorted(maps.Keys(events)); !slices.Equal(got, sorted(m.events)) {
				t.Errorf("%s: %s has the events %v", name, k, got)
			}
			for e, o := range events {
				ways := 0
				for _, is := range []bool{o.to != "", o.stays, o.err != nil} {
					if is {
						ways++
					}
				}
				if ways != 1 || o.to != "" && m.g[o.to] == nil {
					t.Errorf("%s: %s, %s: %+v", name, k, e, o)
				}
				to, err := m.g.apply(k, e)
				if o.err != nil && (!errors.Is(err, o.err) || to != k) || o.err == nil && err != nil {
					t.Errorf("%s: apply(%s, %s) = %s, %v", name, k, e, to, err)
				}
			}
		}
		if _, err := m.g.apply("Nowhere", m.events[0]); err == nil {
			t.Error("a phase that does not exist has events")
		}
	}
}

// Each phase can be reached, and from each one can reach the end.
func TestReach(t *testing.T) {
	for name, m := range graphs() {
		from := reach(m.g, m.start)
		for k := range m.g {
			if !from[k] {
				t.Errorf("%s: %s cannot be reached", name, k)
			}
			if !reach(m.g, k)[m.end] {
				t.Errorf("%s: %s never ends", name, k)
			}
		}
		for _, o := range m.g[m.end] {
			if o.to != "" {
				t.Errorf("%s: the end leads to %s", name, o.to)
			}
		}
	}
}

func reach(g graph, from Kind) map[Kind]bool {
	seen := map[Kind]bool{from: true}
	for todo := []Kind{from}; len(todo) > 0; todo = todo[1:] {
		for _, o := range g[todo[0]] {
			if o.to != "" && !seen[o.to] {
				seen[o.to] = true
				todo = append(todo, o.to)
			}
		}
	}
	return seen
}

// stub stands in for what the phases' files import of ours, so that they can
// be checked by themselves.
const stub = `package pod
import "time"
type Host interface{ Host() }
type specExit struct{ At time.Time }
`

// importing reads the standard library from source, once: it takes seconds.
var importing = sync.OnceValues(func() (*token.FileSet, types.Importer) {
	fset := token.NewFileSet()
	return fset, importer.ForCompiler(fset, "source", nil)
})

// check type-checks the files of the phases, with more source beside them.
func check(t *testing.T, more string) (*types.Package, error) {
	t.Helper()
	fset, imports := importing()
	var files []*ast.File
	add := func(name string, src any) {
		f, err := parser.ParseFile(fset, name, src, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	for _, name := range []string{"phase.go", "phase_sandbox.go"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		src := strings.ReplaceAll(string(b), "spec.Exit", "specExit")
		add(name, strings.ReplaceAll(src, `"github.com/limpet-cri/limpet/shim/spec"`, ""))
	}
	add("stub.go", stub)
	add("more.go", "package pod\n"+more)
	c := types.Config{Importer: imports}
	return c.Check("pod", fset, files, nil)
}

// The markers say what the tables say.
func TestMarkersAgree(t *testing.T) {
	pkg, err := check(t, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range graphs() {
		for from := range m.g {
			for to := range m.g {
				marker := pkg.Scope().Lookup(m.prefix + string(to))
				if marker == nil {
					if to != m.start {
						t.Errorf("%s: %s has no marker", name, to)
					}
					continue
				}
				typ := pkg.Scope().Lookup(string(from))
				if typ == nil {
					t.Fatalf("%s: %s has no type", name, from)
				}
				has := types.Implements(typ.Type(), marker.Type().Underlying().(*types.Interface))
				if table := m.g.joins(from, to); has != table {
					t.Errorf("%s: %s to %s: the table says %v, the marker %v", name, from, to, table, has)
				}
			}
		}
		// Every type that is a phase is in the table.
		phase := pkg.Scope().Lookup(m.marker).Type().Underlying().(*types.Interface)
		for _, n := range pkg.Scope().Names() {
			typ, ok := pkg.Scope().Lookup(n).(*types.TypeName)
			if ok && !types.IsInterface(typ.Type()) && types.Implements(typ.Type(), phase) && m.g[Kind(n)] == nil {
				t.Errorf("%s: %s is a phase and not in the table", name, n)
			}
		}
	}
}

// Edges outside the graph do not compile; the control does.
func TestForbiddenEdges(t *testing.T) {
	if _, err := check(t, `func use(h Host, p Created) { _ = toStarting(p, h, specExit{}.At) }`); err != nil {
		t.Fatalf("control: %v", err)
	}
	for _, c := range []struct{ src, want string }{
		{`func use(h Host, p Exited) { _ = toRunning(p, h, p.Started) }`, "Exited does not implement becomesRunning"},
		{`func use(h Host, p Created) { _ = toRunning(p, h, specExit{}.At) }`, "Created does not implement becomesRunning"},
		{`func use(p Running) { _ = toRemoved(p) }`, "Running does not implement becomesRemoved"},
		{`func use(h Host, p Removed) { _ = toCreated(p, h) }`, "Removed does not implement becomesCreated"},
		{`func use(p SandboxNotReady) { _ = toSandboxReady(p, "") }`, "SandboxNotReady does not implement becomesSandboxReady"},
		{`func use(p Exited) { _ = p.Host }`, "p.Host undefined"},
		{`func use(p SandboxReady) { _ = toRemoved(p) }`, "SandboxReady does not implement becomesRemoved"},
	} {
		if _, err := check(t, c.src); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.src, err)
		}
	}
}

// Random events in any order never leave the graph, and the end can always be
// reached from where they lead.
func TestRandomEvents(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, m := range graphs() {
		for range 1000 {
			k := m.start
			for range 20 {
				to, err := m.g.apply(k, m.events[r.IntN(len(m.events))])
				if m.g[to] == nil || err != nil && to != k {
					t.Fatalf("%s: %s to %s, %v", name, k, to, err)
				}
				k = to
			}
			if !reach(m.g, k)[m.end] {
				t.Fatalf("%s: no way out of %s", name, k)
			}
		}
	}
}

const (
	lifecyclePage = "../../docs/lifecycle.md"
	generated     = "<!-- generated from cri/pod/edges.go: go test ./cri/pod -run TestLifecyclePage -update -->"
)

// The page shows the tables.
func TestLifecyclePage(t *testing.T) {
	b, err := os.ReadFile(lifecyclePage)
	if err != nil {
		t.Fatal(err)
	}
	head, _, ok := strings.Cut(string(b), generated)
	if !ok {
		t.Fatalf("%s has no line %q", lifecyclePage, generated)
	}
	want := head + generated + "\n" + drawings()
	if *update {
		must(t, "write", os.WriteFile(lifecyclePage, []byte(want), 0o644))
		return
	}
	if string(b) != want {
		t.Errorf("%s does not show the graphs in edges.go; run: go test ./cri/pod -run TestLifecyclePage -update", lifecyclePage)
	}
}

func drawings() string {
	var b strings.Builder
	for _, name := range []string{"sandbox", "container"} {
		m := graphs()[name]
		fmt.Fprintf(&b, "\n## The life of a %s\n\n```mermaid\nstateDiagram-v2\n    [*] --> %s\n", name, m.start)
		var refused [][3]string
		for _, from := range slices.Sorted(maps.Keys(m.g)) {
			for _, e := range sorted(m.events) {
				switch o := m.g[from][e]; {
				case o.to != "":
					fmt.Fprintf(&b, "    %s --> %s: %s\n", from, o.to, e)
				case o.stays:
					refused = append(refused, [3]string{string(from), string(e), "nothing changes"})
				default:
					refused = append(refused, [3]string{string(from), string(e), "refused: " + o.err.Error()})
				}
			}
		}
		fmt.Fprintf(&b, "    %s --> [*]\n```\n\n| in | event | what happens |\n|---|---|---|\n", m.end)
		for _, r := range refused {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", r[0], r[1], r[2])
		}
		fmt.Fprint(&b, "\n| in | what CRI shows |\n|---|---|\n")
		for _, k := range slices.Sorted(maps.Keys(m.g)) {
			fmt.Fprintf(&b, "| %s | %s |\n", k, inCRI(k))
		}
	}
	return b.String()
}

// inCRI is how lists show a phase.
func inCRI(k Kind) string {
	for _, p := range []Phase{Preparing{}, Created{}, Starting{}, Running{}, Stopping{}, Lost{}, Exited{}, Removed{}} {
		if state, listed := stateOf(p); p.Kind() == k && listed {
			return state.String()
		}
	}
	for _, p := range []SandboxPhase{SandboxPreparing{}, SandboxReady{}, SandboxNotReady{}, SandboxRemoved{}} {
		if v := sandboxView(&sandbox{phase: p}); p.Kind() == k && v != nil {
			return v.GetState().String()
		}
	}
	return "it is not listed"
}

func sorted(l []Event) []Event {
	l = slices.Clone(l)
	slices.Sort(l)
	return l
}
