;; Divides by zero three calls deep, so that the backtrace has something to say.
(module $shop
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\1c\00\00\00") ;; one buffer: at 16, 28 bytes
  (data (i32.const 16) "sharing 7 apples among none\0a")
  (func $share (param $apples i32) (param $guests i32) (result i32)
    (i32.div_u (local.get $apples) (local.get $guests)))
  (func $lunch (result i32)
    (call $share (i32.const 7) (i32.const 0)))
  (func $main (export "_start")
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64)))
    (drop (call $lunch))))
