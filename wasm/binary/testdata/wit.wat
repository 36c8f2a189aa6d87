(component
  (type (component
    (type (instance (export "t" (type (sub resource))) (export "f" (func))))
    (export "my:pkg/api@1.0.0" (instance (type 0)))))
  (export "api" (type 0)))
