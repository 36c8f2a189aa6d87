// Command http serves HTTP with Go's net/http over the listening socket that a
// pod asks for with the annotation limpet.dev/listen.CONTAINER.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "http:", err)
		os.Exit(1)
	}
}

func serve() error {
	text := os.Getenv("LIMPET_LISTEN_FD")
	fd, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("LIMPET_LISTEN_FD is %q: the pod needs the annotation limpet.dev/listen.CONTAINER", text)
	}
	l, err := net.FileListener(os.NewFile(uintptr(fd), "listener"))
	if err != nil {
		return err
	}
	fmt.Println("serving")
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s, from WebAssembly\n", r.URL.Path)
	}))
}
