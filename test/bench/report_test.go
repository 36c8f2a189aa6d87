package main

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
)

func TestCompare(t *testing.T) {
	r := compare("m", "ms", []float64{3, 1, 2}, []float64{30, 50, 40, 20})
	if r.Ours != 2 || r.Theirs != 35 || r.Ratio != 17.5 {
		t.Errorf("got %+v", r)
	}
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct{ q, want float64 }{{0, 1}, {0.25, 2}, {0.5, 3}, {1, 5}} {
		if got := quantile([]float64{5, 1, 4, 2, 3}, c.q); got != c.want {
			t.Errorf("quantile %v is %v, want %v", c.q, got, c.want)
		}
	}
}

// The file is a list of objects with these five fields and no others, and the
// table says which goals are reached.
func TestReport(t *testing.T) {
	t.Chdir(t.TempDir())
	results := []result{compare("pod_start", "ms", []float64{10}, []float64{149}), compare("burst_50", "ms", []float64{10}, []float64{120}), compare("pod_stop", "ms", []float64{5}, []float64{100})}
	if err := report(results, &side{name: "limpet"}, &side{name: "containerd"}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("build/bench/pods.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []map[string]any
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	for i, m := range list {
		for _, k := range []string{"metric", "unit", "ours", "theirs", "ratio"} {
			if _, ok := m[k]; !ok {
				t.Errorf("entry %d has no %s", i, k)
			}
		}
		if len(m) != 5 {
			t.Errorf("entry %d has %d fields: %v", i, len(m), m)
		}
	}
	if list[0]["ratio"] != 14.9 || len(list) != 3 {
		t.Errorf("wrote %v", list)
	}
	var got []string
	for _, r := range results {
		got = append(got, r.judged())
	}
	if want := []string{"15x: MISSED", "12x: reached", ""}; !slices.Equal(got, want) {
		t.Errorf("judged %q, want %q", got, want)
	}
}
