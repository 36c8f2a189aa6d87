package main

import (
	_ "embed"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/limpet-cri/limpet/cri/pod"
)

//go:embed default.toml.tmpl
var defaultText string

// writeDefault writes the commented configuration with every default. The
// values are the packages' own, so that the comments are all that can age.
func writeDefault(w io.Writer) error {
	t, err := template.New("default").Funcs(template.FuncMap{
		"size":   sizeOf[uint64],
		"quoted": quoted,
	}).Parse(defaultText)
	if err != nil {
		return err
	}
	return t.Execute(w, struct {
		file
		Profile pod.Profile
		Names   string
	}{defaults(), pod.DefaultProfile(), strings.Join(slices.Sorted(maps.Keys(pod.DefaultConfig().Handlers)), ", ")})
}

func quoted(l []string) string {
	q := make([]string, 0, len(l))
	for _, s := range l {
		q = append(q, strconv.Quote(s))
	}
	return strings.Join(q, ", ")
}
