package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// result is one line of build/bench/pods.json.
type result struct {
	Metric string  `json:"metric"`
	Unit   string  `json:"unit"`
	Ours   float64 `json:"ours"`
	Theirs float64 `json:"theirs"`
	Ratio  float64 `json:"ratio"`

	ours, theirs []float64
}

// compare makes a result of two series where less is better.
func compare(metric, unit string, ours, theirs []float64) result {
	r := result{Metric: metric, Unit: unit, Ours: quantile(ours, 0.5), Theirs: quantile(theirs, 0.5), ours: ours, theirs: theirs}
	if r.Ours > 0 {
		r.Ratio = round(r.Theirs/r.Ours, 2)
	}
	r.Ours, r.Theirs = round(r.Ours, 3), round(r.Theirs, 3)
	return r
}

func round(v float64, digits int) float64 {
	p := 1.0
	for range digits {
		p *= 10
	}
	return float64(int64(v*p+0.5)) / p
}

// quantile of a series, between neighbours by their distance.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	at := q * float64(len(s)-1)
	i := int(at)
	if i+1 == len(s) {
		return s[i]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}

// report prints the table and writes the file.
func report(results []result, ours, theirs *side) error {
	fmt.Printf("\nMedians (quartiles); a ratio above 1: %s is better.\n\n%-22s %-4s %24s %28s %8s  %s\n", ours.name, "METRIC", "UNIT", ours.name, theirs.name, "RATIO", "WANTED")
	for _, r := range results {
		fmt.Printf("%-22s %-4s %24s %28s %7.1fx  %s\n", r.Metric, r.Unit, spread(r.ours), spread(r.theirs), r.Ratio, r.judged())
	}
	b, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	dir := "build/bench"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(dir, "pods.json")
	fmt.Printf("\nwritten to %s\n", file)
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// wanted is how many times better than the peer each metric is to be. Those of
// a shortened run have other names, and no goal.
func wanted(metric string) (ratio float64, ok bool) {
	switch metric {
	case "pod_start":
		return 15, true
	case "burst_50":
		return 12, true
	case "memory_per_idle_pod":
		return 4, true
	}
	return 0, false
}

// judged says what is wanted of a metric, and whether it is reached.
func (r result) judged() string {
	want, ok := wanted(r.Metric)
	switch {
	case !ok:
		return ""
	case r.Ratio < want:
		return fmt.Sprintf("%gx: MISSED", want)
	}
	return fmt.Sprintf("%gx: reached", want)
}

func spread(v []float64) string {
	if len(v) == 1 {
		return fmt.Sprintf("%.1f", v[0])
	}
	return fmt.Sprintf("%.1f (%.1f-%.1f)", quantile(v, 0.5), quantile(v, 0.25), quantile(v, 0.75))
}
