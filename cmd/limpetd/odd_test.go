package main

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// Each key with values that it cannot have: the fault names the file, the line
// and the key, and says what is wanted.
func TestEveryKeyRefuses(t *testing.T) {
	good := map[reflect.Kind][]string{ // what a value of the kind is no fault for by its kind alone
		reflect.String: {`"`}, reflect.Bool: {`true`}, reflect.Slice: {`[`},
	}
	var walk func(table string, typ reflect.Type)
	walk = func(table string, typ reflect.Type) {
		for f := range typ.Fields() {
			key, ft := f.Tag.Get("toml"), f.Type
			for ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			name := strings.TrimPrefix(table+"."+key, ".")
			switch {
			case ft.Kind() == reflect.Map:
				walk(name+".wasm", ft.Elem())
				continue
			case ft.Kind() == reflect.Struct && ft != reflect.TypeFor[size]() && ft != reflect.TypeFor[duration]():
				walk(name, ft)
				continue
			}
			bad := []string{`"\u0000"`, `1.5`, `true`, `[1]`, `[[1]]`, `{a = 1}`, `1979-05-27`, `inf`, `-9223372036854775808`, `99999999999999999999`, `"\u0000/x"`, `"/x\u0000"`, `[""]`}
			if ft.Kind() == reflect.Int || ft.Kind() == reflect.Int64 || ft.Kind() == reflect.Uint32 {
				bad = append(bad, `-1`)
			}
			for _, v := range bad {
				skip := false
				for _, g := range good[ft.Kind()] {
					skip = skip || strings.HasPrefix(v, g) && !strings.Contains(v, `\u0000`) && !strings.Contains(v, "[")
				}
				if skip {
					continue
				}
				text := fmt.Sprintf("# a file\n[%s]\n%s = %s\n", table, key, v)
				if table == "" {
					text = fmt.Sprintf("# a file\n\n%s = %s\n", key, v)
				}
				_, err := parse("f.toml", []byte(text))
				if err == nil {
					t.Errorf("%s = %s is accepted", name, v)
					continue
				}
				if line, _, _ := strings.Cut(err.Error(), "\n"); !strings.HasPrefix(line, "f.toml:3: ") || !strings.Contains(strings.ReplaceAll(line, " ", "_"), key) {
					t.Errorf("%s = %s: %q", name, v, err)
				}
			}
		}
	}
	walk("", reflect.TypeFor[file]())
}

// A file of nothing but faults is not read once for each of them.
func TestFaultsAreBounded(t *testing.T) {
	_, err := parse("f.toml", []byte(strings.Repeat("root = 1\n", 1000)))
	if n := strings.Count(err.Error(), "f.toml:"); n != maxFaults {
		t.Errorf("%d faults are told", n)
	}
}
