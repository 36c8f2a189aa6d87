package main

import (
	"bytes"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// What "config default" prints is what a limpetd without a file does.
func TestDefaultIsTheDefault(t *testing.T) {
	var b bytes.Buffer
	if err := writeDefault(&b); err != nil {
		t.Fatal(err)
	}
	printed, err := parse("printed", b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	none, err := parse("none", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(printed, none) {
		t.Errorf("printed: %+v\nwithout a file: %+v", printed, none)
	}
}

// Every key of the file is in the printed configuration, with a comment above
// its group.
func TestDefaultIsComplete(t *testing.T) {
	var b bytes.Buffer
	if err := writeDefault(&b); err != nil {
		t.Fatal(err)
	}
	at := keysOf(b.Bytes())
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for f := range typ.Fields() {
			key, of := prefix+f.Tag.Get("toml"), f.Type
			if of.Kind() == reflect.Map {
				key, of = key+".limpet", of.Elem()
			}
			if at[key].line == 0 {
				t.Errorf("%s is not in the printed configuration", key)
			}
			if of.Kind() == reflect.Struct && of != reflect.TypeFor[size]() && of != reflect.TypeFor[duration]() {
				walk(key+".", of)
			}
		}
	}
	walk("", reflect.TypeFor[file]())
}

// Each fault says file, line, key, what was found and what is wanted.
func TestFaults(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"syntax", "[server\n", `^f.toml:1: .*expected`},
		{"unknown key", "root = \"/a\"\n[images]\nparalel = 3\n", `^f.toml:3: images.paralel: there is no such key; \[images\] has hosts_dir, .*parallel`},
		{"unknown table", "\n[imagez]\nparallel = 3\n", `^f.toml:2: imagez: there is no such key; the top level has root, run, server`},
		{"unknown key of a handler", "[pods.handlers.wasm]\nmemory = 3\n", `^f.toml:2: pods.handlers.wasm.memory: there is no such key; \[pods.handlers.wasm\] has memory_default`},
		{"twice", "root = \"/a\"\nroot = \"/b\"\n", `^f.toml:2: root: .*already defined`},
		{"kind of value", "[images]\n\nparallel = \"many\"\n", `^f.toml:3: images.parallel: found a string \(parallel = "many"\), wanted a whole number$`},
		{"kind of value in a handler", "[pods.handlers.x]\nallow_root = 1\n", `^f.toml:2: pods.handlers.x.allow_root: found an integer \(allow_root = 1\), wanted true or false$`},
		{"value for a table", "server = 1\n", `^f.toml:1: server: found an integer .*, wanted a table: \[server\]$`},
		{"size", "[images]\nstall_bytes = \"4 kB\"\n", `^f.toml:2: images.stall_bytes: found "4 kB", wanted a number of bytes`},
		{"size too large", "[images]\nstall_bytes = \"99999999999TiB\"\n", `^f.toml:2: images.stall_bytes: found`},
		{"duration", "[images]\nstall_window = 20\n", `^f.toml:2: images.stall_window: found "20", wanted a duration such as "20s"`},
		{"negative size", "[pods.handlers.x]\nmemory_max = -1\n", `^f.toml:2: pods.handlers.x.memory_max: found "-1", wanted a number of bytes`},
		{"negative duration", "[images]\nstall_window = \"-20s\"\n", `^f.toml:2: images.stall_window: found "-20s"`},
		{"relative", "run = \"here\"\n", `^f.toml:1: run is "here"; it must be an absolute path`},
		{"contradiction", "root = \"/x\"\nrun = \"/x\"\n", `^f.toml:2: run is "/x", the same as root`},
		{"socket", "[server]\nsocket = \"x\"\n", `^f.toml:2: server: socket is "x"`},
		{"message bound", "[server]\nmax_message_bytes = 1\n", `^f.toml:2: server: max_message_bytes is 1; it must be between`},
		{"calls", "[server]\nmax_calls = 0\n", `^f.toml:2: server: max_calls is 0`},
		{"shutdown", "[server]\nshutdown_timeout = \"1h\"\n", `^f.toml:2: server: shutdown_timeout is 1h0m0s; it must be between`},
		{"level", "[log]\nlevel = \"loud\"\n", `^f.toml:2: log: level is "loud"; it must be debug, info, warn or error`},
		{"format", "[log]\nlevel = \"info\"\nformat = \"xml\"\n", `^f.toml:3: log: format is "xml"`},
		{"address", "[metrics]\naddress = \"0.0.0.0:80\"\n", `^f.toml:2: metrics: address is "0.0.0.0:80"; it must be a loopback address`},
		{"port", "[metrics]\naddress = \"[::1]:0\"\n", `^f.toml:2: metrics: address .*port must be between`},
		{"images", "[images]\nsnapshotter = \"zfs\"\n", `^f.toml:2: images: snapshotter "zfs" is unknown`},
		{"images path", "[images]\nhosts_dir = \"x\"\n", `^f.toml:2: images: hosts_dir "x" is not an absolute path`},
		{"host binary", "[hosts]\npath = \"x\"\n", `^f.toml:2: hosts: path is "x"`},
		{"compile memory", "[hosts]\ncompile_memory = \"1MiB\"\n", `^f.toml:2: hosts: compile_memory is 1MiB; it must be at least 64MiB`},
		{"default handler", "[pods]\ndefault_handler = \"no\"\n", `^f.toml:2: pods: the default handler "no" is not among`},
		{"root by default", "[images]\ndefault_uid = 0\n", `^f.toml:2: images: default_uid is 0; it must be more`},
		{"user beyond the kernel's", "[images]\ndefault_uid = 4294967295\n", `^f.toml:2: images: default_uid is 4294967295; the kernel's users end at 4294967294`},
		{"no window", "[images]\nstall_window = \"0s\"\n", `^f.toml:2: images: stall_window is 0; it must be more`},
		{"layer above image", "[images]\nmax_layer_bytes = \"9GiB\"\n", `^f.toml:2: images: max_layer_bytes is 9GiB, above max_unpacked_bytes, 8GiB`},
		{"layer's entries above image's", "[images]\nmax_entries = 10\n", `^f.toml:2: images: max_layer_entries is 200000, above max_entries, 10`},
		{"negative number", "[server]\nmax_calls = -1\n", `^f.toml:2: server.max_calls: found max_calls = -1, wanted a whole number from 0 to 4294967295$`},
		{"huge number", "[hosts]\ncompilers = 99999999999999999999\n", `^f.toml:2: hosts.compilers: found compilers = 9+, wanted a whole number of at most`},
		{"threads", "[pods.handlers.x]\npids_limit = 5000000\n", `^f.toml:2: pods: handler "x": pids_limit is 5000000; the kernel counts up to 4194304`},
		{"proposal", "[pods.handlers.x]\nproposals = [\"thraeds\"]\n", `^f.toml:2: pods: handler "x": proposals has "thraeds"; known .*memory64`},
		{"handler's name", "[pods.handlers.\"sp ace\"]\n", `^f.toml:1: pods: handlers: "sp ace" is no name that a RuntimeClass can have`},
		{"empty handler's name", "[pods.handlers.\"\"]\n", `^f.toml:1: pods: handlers: "" is no name`},
		{"handler", "[pods.handlers.limpet]\n[pods.handlers.x]\nmemory_default = \"2GiB\"\nmemory_max = \"1GiB\"\n", `^f.toml:[34]: pods: handler "x": memory_default`},
	} {
		_, err := parse("f.toml", []byte(c.text))
		if err == nil {
			t.Errorf("%s: accepted", c.name)
		} else if ok, _ := regexp.MatchString(c.want, strings.ReplaceAll(err.Error(), ": f.toml", "")); !ok {
			t.Errorf("%s: got %q, want %s", c.name, err, c.want)
		}
	}
}

// Several faults are told at once.
func TestFaultsTogether(t *testing.T) {
	_, err := parse("f.toml", []byte("[log]\nlevel = \"x\"\n[metrics]\naddress = \"y\"\n"))
	if err == nil || !strings.Contains(err.Error(), "f.toml:2:") || !strings.Contains(err.Error(), "f.toml:4:") {
		t.Errorf("got %v", err)
	}
}

// A handler in the file starts from the default profile, and the handlers that
// exist by default stay.
func TestHandlers(t *testing.T) {
	s, err := parse("f.toml", []byte("[pods.handlers.batch]\nmemory_max = \"256MiB\"\n[pods.handlers.wasm]\nallow_root = false\n"))
	if err != nil {
		t.Fatal(err)
	}
	h := s.pods.Handlers
	if len(h) != 4 || h["batch"].MemoryMax != 256<<20 || h["batch"].PidsLimit != h["limpet"].PidsLimit || h["wasm"].AllowRoot || !h["batch"].AllowRoot {
		t.Errorf("handlers %+v", h)
	}
}

func TestValues(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "7": 7, "1_000": 1000, "64KiB": 64 << 10, "3 MiB": 3 << 20, "2GiB": 2 << 30, "1TiB": 1 << 40} {
		var got, again size
		if err := got.UnmarshalText([]byte(text)); err != nil || got.bytes != want {
			t.Errorf("%q: %d, %v, want %d", text, got.bytes, err, want)
		}
		if err := again.UnmarshalText([]byte(got.String())); err != nil || again != got {
			t.Errorf("%q written as %q reads as %d, %v", text, got, again.bytes, err)
		}
	}
	for text, want := range map[string]string{"60s": "1m", "90s": "1m30s", "1h": "1h", "250ms": "250ms", "3600s": "1h"} {
		var got duration
		if err := got.UnmarshalText([]byte(text)); err != nil || got.String() != want {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
}

// Whatever a file holds, the answer is settings or an error that names the
// file.
func FuzzParse(f *testing.F) {
	var b bytes.Buffer
	if err := writeDefault(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("[pods.handlers.\"a.b\"]\nproposals = [\"x\"]\n"))
	f.Add([]byte("a.b.c = 1\n[[x]]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parse("f.toml", data)
		if err == nil && s.pods.Root == "" {
			t.Error("settings without a root")
		}
		if err != nil && !strings.HasPrefix(err.Error(), "f.toml") {
			t.Errorf("%v does not begin with the file", err)
		}
		var any map[string]any
		if toml.Unmarshal(data, &any) == nil {
			keysOf(data)
		}
	})
}

// All that does not read is told at once, whatever its kind.
func TestEveryFault(t *testing.T) {
	_, err := parse("x", []byte("[images]\nstall_window = \"20\"\nparalel = 4\nparallel = \"x\"\nstall_bytes = \"20 B\"\nmax_entries = 3.5\n\n[logs]\n"))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"x:2: images.stall_window", "x:3: images.paralel", "x:4: images.parallel", "x:5: images.stall_bytes", "x:6: images.max_entries", "x:8: logs"} {
		if n := strings.Count(err.Error(), want); n != 1 {
			t.Errorf("%q is told %d times in\n%v", want, n, err)
		}
	}
	// What is left of a value over several lines is no fault of the file's.
	_, err = parse("x", []byte("[images]\nparallel = [\n  1,\n]\n"))
	if err == nil || strings.Count(err.Error(), "\n") > 0 {
		t.Errorf("want one fault: %v", err)
	}
}
