package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// size is a number of bytes: in the file a whole number, or text such as
// "512MiB". It is a struct so that the decoder has no way around UnmarshalText.
type size struct{ bytes int64 }

func sizeOf[T int | int64 | uint64](n T) size { return size{int64(n)} }

// valueError is a value that does not read as what its key takes.
type valueError struct{ found, wanted string }

func (e *valueError) Error() string { return fmt.Sprintf("found %q, wanted %s", e.found, e.wanted) }

// units from large to small, so that a size is written with the largest that
// divides it.
func units() []struct {
	name string
	n    int64
} {
	return []struct {
		name string
		n    int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}
}

// UnmarshalText reads a size.
func (s *size) UnmarshalText(b []byte) error {
	text := strings.TrimSpace(string(b))
	number, factor := text, int64(1)
	for _, u := range units() {
		if n, ok := strings.CutSuffix(text, u.name); ok {
			number, factor = strings.TrimSpace(n), u.n
			break
		}
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(number, "_", ""), 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor {
		return &valueError{text, `a number of bytes such as 65536 or "64KiB" (units: KiB, MiB, GiB, TiB)`}
	}
	*s = size{n * factor}
	return nil
}

// String writes a size as people do.
func (s size) String() string {
	for _, u := range units() {
		if s.bytes != 0 && s.bytes%u.n == 0 {
			return strconv.FormatInt(s.bytes/u.n, 10) + u.name
		}
	}
	return strconv.FormatInt(s.bytes, 10)
}

// duration is a time span, in the file text such as "20s" or "1m30s".
type duration struct{ time.Duration }

// UnmarshalText reads a duration.
func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 {
		return &valueError{string(b), `a duration such as "20s" or "1m30s"`}
	}
	*d = duration{v}
	return nil
}

// String writes a duration without the zero parts that time.Duration adds.
func (d duration) String() string {
	s := d.Duration.String()
	if cut, ok := strings.CutSuffix(s, "m0s"); ok {
		s = cut + "m"
	}
	if cut, ok := strings.CutSuffix(s, "h0m"); ok {
		s = cut + "h"
	}
	return s
}
