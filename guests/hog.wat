;; Takes memory, one MiB after the other, and touches every page of it. When
;; memory.grow is refused it says how much it had and ends with 1.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "memory.grow was refused after ") ;; 30 bytes
  (data (i32.const 62) " MiB\0a")
  ;; $write prints $len bytes at $at.
  (func $write (param $at i32) (param $len i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $len))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  ;; $decimal prints $n.
  (func $decimal (param $n i32)
    (local $at i32)
    (local.set $at (i32.const 96))
    (loop $digit
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10))))
      (local.set $n (i32.div_u (local.get $n) (i32.const 10)))
      (br_if $digit (local.get $n)))
    (call $write (local.get $at) (i32.sub (i32.const 96) (local.get $at))))
  ;; $touch writes to every page of the MiB at $at.
  (func $touch (param $at i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $at) (i32.const 1048576)))
    (loop $page
      (i32.store8 (local.get $at) (i32.const 1))
      (local.set $at (i32.add (local.get $at) (i32.const 4096)))
      (br_if $page (i32.lt_u (local.get $at) (local.get $end)))))
  (func (export "_start")
    (local $pages i32) (local $mib i32)
    (block $refused
      (loop $more
        (local.set $pages (memory.grow (i32.const 16)))
        (br_if $refused (i32.eq (local.get $pages) (i32.const -1)))
        (call $touch (i32.shl (local.get $pages) (i32.const 16)))
        (local.set $mib (i32.add (local.get $mib) (i32.const 1)))
        (br $more)))
    (call $write (i32.const 16) (i32.const 30))
    (call $decimal (local.get $mib))
    (call $write (i32.const 62) (i32.const 5))
    (call $proc_exit (i32.const 1))))
