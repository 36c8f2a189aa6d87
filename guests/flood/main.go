// Command flood fills a file until it is stopped: on a volume that lives in
// memory that ends with the kernel killing the container.
//
//	flood FILE
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: flood FILE")
		os.Exit(2)
	}
	f, err := os.Create(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("flooding", os.Args[1])
	block := make([]byte, 1<<20)
	for {
		if _, err := f.Write(block); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
