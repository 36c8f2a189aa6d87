package wasmtime

import (
	"testing"
	"unsafe"

	"github.com/limpet-cri/limpet/wasm"
)

const page = 64 << 10

// growing grows its memory page by page for as long as "more" says so, and
// tells each result.
const growing = `(module
	(import "h" "grew" (func $grew (param i32) (result i32)))
	(memory (export "memory") 1)
	(func (export "_start") (loop (br_if 0 (call $grew (memory.grow (i32.const 1)))))))`

func grew(f func(at int32, now int) bool) []wasm.Import {
	return []wasm.Import{{Module: "h", Name: "grew", Type: wasm.FuncType{Params: []wasm.ValType{wasm.I32}, Results: []wasm.ValType{wasm.I32}},
		Func: func(mem []byte, s []wasm.Raw) error {
			more := uint32(0)
			if f(int32(s[0].I32()), len(mem)) {
				more = 1
			}
			s[0].SetI32(more)
			return nil
		}}}
}

// A bound that rises lets a running guest grow again; one that falls below what
// the guest has leaves it that, and no more.
func TestBoundMemory(t *testing.T) {
	for _, c := range []struct {
		name              string
		first, then, want uint64
	}{
		{"rises", 4 * page, 9 * page, 9 * page},
		{"falls below what is in use", 4 * page, 2 * page, 4 * page},
		{"from none to one", 0, 16 * page, 16 * page},
		{"from one to none", 2 * page, 0, 32 * page},
	} {
		t.Run(c.name, func(t *testing.T) {
			var i *Instance
			changed, size := false, 0
			imports := grew(func(at int32, now int) bool {
				size = now
				if !changed && (at < 0 || uint64(now) >= 4*page) {
					changed = true
					done := make(chan struct{})
					go func() { defer close(done); i.BoundMemory(c.then) }() // from another thread than the guest's
					<-done
					return true
				}
				return at >= 0 && now < 32*page
			})
			i = start(t, engine(t, Config{}), growing, imports, wasm.Limits{Memory: c.first})
			if err := i.Call("_start"); err != nil {
				t.Fatal(err)
			}
			if uint64(size) != c.want {
				t.Errorf("it grew to %d pages, want %d", size/page, c.want/page)
			}
		})
	}
}

// While the guest grows without a pause, the bound changes without one: each
// attempt sees one of the two.
func TestBoundMemoryMeanwhile(t *testing.T) {
	const low, high, attempts = 8 * page, 4096 * page, 100_000
	n := 0
	imports := grew(func(at int32, now int) bool {
		n++
		if now > high {
			t.Errorf("%d bytes of memory", now)
		}
		return n < attempts
	})
	i := start(t, engine(t, Config{}), growing, imports, wasm.Limits{Memory: low})
	ended := make(chan error)
	go func() { ended <- i.Call("_start") }()
	changes := 0
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			t.Logf("%d attempts to grow beside %d changes of the bound", n, changes)
			return
		default:
			i.BoundMemory([2]uint64{low, high}[changes&1])
			changes++
		}
	}
}

// That BoundMemory may be called beside a running guest rests on what the engine
// writes: one word of the store, whole. The store is a block of malloc, whose
// size stands before it.
func TestBoundMemoryIsOneWord(t *testing.T) {
	i := start(t, engine(t, Config{}), `(module (memory 1) (table 1 funcref))`, nil, wasm.Limits{Memory: 5 * page, TableElements: 7})
	store := unsafe.Pointer(i.c.cx)
	size := int(*(*uint64)(unsafe.Add(store, -8))&^15) - 16
	if size < 256 || size > 1<<16 {
		t.Fatalf("a block of %d bytes is no store", size)
	}
	words := unsafe.Slice((*uint64)(store), size/8)
	for _, bound := range []uint64{6 * page, 1, 0, 5 * page} {
		before := append([]uint64(nil), words...)
		i.BoundMemory(bound)
		var changed []int
		for at := range words {
			if words[at] != before[at] {
				changed = append(changed, at)
			}
		}
		if len(changed) != 1 || words[changed[0]] != uint64(limit(bound)) {
			t.Errorf("bound %d: words %v of %d changed", bound, changed, len(words))
		}
	}
}
