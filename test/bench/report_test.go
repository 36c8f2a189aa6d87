package main

import "testing"

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
