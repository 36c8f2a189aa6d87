(module
  (func $init (export "_initialize"))
  (func (export "add") (param i32 i64) (result f32 f64) unreachable)
  (start $init)
  (@custom "version" "1.2.3")
  (@custom "description" "adds numbers"))
