// Package thread owns the one trick by which a Go program does something to a
// thread that cannot be undone, such as moving it into another namespace.
//
// It holds no state and no lock, and never gives a changed thread back to the
// runtime.
package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Own runs f on a thread that ends with it: its goroutine never unlocks it, so
// that no other one finds itself where f went. The process's first thread is
// never taken, because it would not end, and /proc/self would show its
// namespaces as the process's.
func Own(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			err := Own(f) // this goroutine holds the first thread: another one is found
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}
