// Command chatty numbers its lines, a hundred a second, until it is stopped:
// what a log rotation may neither lose nor repeat.
package main

import (
	"fmt"
	"strings"
	"time"
)

func main() {
	padding := strings.Repeat(".", 80)
	for i := 0; ; i++ {
		fmt.Printf("line %d %s\n", i, padding)
		time.Sleep(10 * time.Millisecond)
	}
}
