// Command hello is the smallest guest one would write in Go: it prints and ends.
package main

import (
	"fmt"
	"runtime"
)

func main() {
	fmt.Printf("Hello from WebAssembly (%s/%s)\n", runtime.GOOS, runtime.GOARCH)
}
