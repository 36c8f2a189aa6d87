(module
  (rec (type $a (sub (struct (field i8) (field (mut i16)) (field (ref null $b)))))
       (type $b (sub $a (struct (field i8) (field (mut i16)) (field (ref null $b)) (field anyref)))))
  (type $arr (array (mut (ref null func))))
  (type $f (func (param (ref $a)) (result (ref null $arr))))
  (type $g (func (param i31ref eqref structref arrayref nullref nullfuncref nullexternref exnref)))
  (import "a" "f" (func (type $f)))
  (import "a" "g" (func (type $g)))
  (func (export "_start")))
