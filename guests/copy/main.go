// Command copy shows what a guest gets of its pod: it prints its arguments and
// the variable GREETING, then copies a file from one volume to another.
//
//	copy FROM TO
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Printf("arguments %q, GREETING=%q\n", os.Args[1:], os.Getenv("GREETING"))
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: copy FROM TO")
		os.Exit(2)
	}
	from, to := os.Args[1], os.Args[2]
	b, err := os.ReadFile(from)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := os.WriteFile(to, b, 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("copied %d bytes from %s to %s\n", len(b), from, to)
	// The volume it read from is read-only: writing back has to fail.
	if err := os.WriteFile(from, []byte("changed"), 0o644); err != nil {
		fmt.Printf("writing to %s was refused: %v\n", from, err)
		return
	}
	fmt.Fprintf(os.Stderr, "%s could be written\n", from)
	os.Exit(1)
}
