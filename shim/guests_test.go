package shim_test

import (
	"fmt"
	"strings"
)

// Guests in text form, as small as their purpose allows.

// wat wraps a body of functions in a module with the usual imports.
func wat(body string, more ...string) string {
	return `(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_readdir" (func $fd_readdir (param i32 i32 i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  ;; iovec at 0, result at 8, scratch from 1024 on
  (func $print (param $fd i32) (param $at i32) (param $len i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $len))
    (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
  ;; sleep in poll_oneoff for the nanoseconds given
  (func $sleep (param $ns i64)
    (i32.store8 (i32.const 1032) (i32.const 0))
    (i32.store (i32.const 1040) (i32.const 1))
    (i64.store (i32.const 1048) (local.get $ns))
    (drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1) (i32.const 8))))
` + strings.Join(more, "\n") + `
  (func (export "_start") ` + body + `))`
}

// text is a data segment, say prints it.
func text(s string) string { return fmt.Sprintf("(data (i32.const 4096) %q)", s) }

func say(fd int, s string) string {
	return fmt.Sprintf("(call $print (i32.const %d) (i32.const 4096) (i32.const %d))", fd, len(s))
}

var (
	guestHello = wat(say(1, "Hello\n"), text("Hello\n"))
	guestExit3 = wat(say(2, "bad\n")+"(call $proc_exit (i32.const 3))", text("bad\n"))
	guestTrap  = wat(say(1, "half")+"(call $deep)", text("half"), "(func $deep unreachable)")
	guestSpin  = wat(say(1, "spin\n")+"(loop (br 0))", text("spin\n"))
	guestSleep = wat(say(1, "wait\n")+"(call $sleep (i64.const 3600000000000))", text("wait\n"))
	guestRead  = wat(say(1, "read\n")+`
	  (i32.store (i32.const 0) (i32.const 2048)) (i32.store (i32.const 4) (i32.const 16))
	  (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
	  (call $proc_exit (i32.add (i32.const 40) (i32.load (i32.const 8))))`, text("read\n"))
	// guestGrow exits with 1 if memory grew beyond 64 MiB, with 2 if less than
	// 60 MiB were possible.
	guestGrow = wat(`
	  (if (i32.ne (memory.grow (i32.const 959)) (i32.const 1)) (then (call $proc_exit (i32.const 2))))
	  (if (i32.ne (memory.grow (i32.const 65)) (i32.const -1)) (then (call $proc_exit (i32.const 1))))
	  `+say(1, "grow refused\n"), text("grow refused\n"))
	// guestEat touches all of 64 MiB.
	guestEat = wat(`(local $at i32)
	  (drop (memory.grow (i32.const 1000)))
	  (loop
	    (i32.store (local.get $at) (i32.const 1))
	    (local.set $at (i32.add (local.get $at) (i32.const 4096)))
	    (br_if 0 (i32.lt_u (local.get $at) (i32.const 64000000))))`)
	// guestCount prints a line every millisecond.
	guestCount = wat(`(loop `+say(1, "tick\n")+`(call $sleep (i64.const 1000000)) (br 0))`, text("tick\n"))
)
