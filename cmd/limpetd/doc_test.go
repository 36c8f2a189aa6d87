package main

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the end of docs/configuration.md instead of comparing it")

// docs/configuration.md ends with what "config default" prints: go test
// ./cmd/limpetd -run Doc -update.
func TestDoc(t *testing.T) {
	const path, mark = "../../docs/configuration.md", "## All keys\n\nWhat `limpetd config default` prints:\n\n"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, _, ok := strings.Cut(string(doc), mark)
	if !ok {
		t.Fatalf("%s has no part %q", path, mark)
	}
	var printed bytes.Buffer
	if err := writeDefault(&printed); err != nil {
		t.Fatal(err)
	}
	want := head + mark + "```toml\n" + printed.String() + "```\n"
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(doc) != want {
		t.Errorf("%s is not what config default prints; write it anew with: go test ./cmd/limpetd -run TestDoc -update", path)
	}
}

// The example of the documentation is a good configuration.
func TestDocExample(t *testing.T) {
	doc, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```toml\n")
	example, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("no example")
	}
	s, err := parse("example", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if s.log.Format != "json" || s.pods.Handlers["wasm"].AllowRoot {
		t.Errorf("the example reads as %+v", s)
	}
}
