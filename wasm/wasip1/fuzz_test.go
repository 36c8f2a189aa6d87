package wasip1

import (
	"testing"
	"time"

	"github.com/limpet-cri/limpet/wasm"
	"github.com/limpet-cri/limpet/wasm/wasi"
)

const (
	// fuzzFunctions are the 46 of preview 1 and the 45 of wasi_unstable; each
	// has a seed.
	fuzzFunctions = 46 + 45

	fuzzMemory  = 1 << 16
	fuzzCalls   = 64
	fuzzWait    = 20 * time.Millisecond // how long one input may wait
	fuzzMaxSize = 1 << 20               // of what fd_allocate takes from the disk
)

// script turns fuzz data into calls. It ends with the data.
type script struct{ data []byte }

func (s *script) byte() uint64 {
	if len(s.data) == 0 {
		return 0
	}
	b := s.data[0]
	s.data = s.data[1:]
	return uint64(b)
}

// value is an argument: often a small number (descriptors, flags) or a pointer
// to somewhere useful, sometimes one at an edge.
func (s *script) value() uint64 {
	switch b := s.byte(); b % 8 {
	case 0, 1, 2:
		return b / 8
	case 3:
		return s.byte() << 8
	case 4, 5:
		return s.byte()<<8 | s.byte()
	case 6:
		n := uint64(0)
		for range 8 {
			n = n<<8 | s.byte()
		}
		return n
	default:
		edges := [...]uint64{fuzzMemory - 1, fuzzMemory, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<63 - 1, 1 << 63, 1<<64 - 1}
		return edges[(b/8)%uint64(len(edges))]
	}
}

// FuzzCalls makes calls with arbitrary arguments on arbitrary memory. Nothing
// may panic, and nothing outside of the guest's folder may change.
func FuzzCalls(f *testing.F) {
	f.Add([]byte("\x1f\x18\x08\x03\x10\x28\x08\xff\xff\x00\x03\x20"), []byte("../outside/secret\x00in/up/../outside"))
	f.Add([]byte("\x25\x08\x03\x01\x03\x02\x08\x03\x03"), make([]byte, 256))
	for i := range fuzzFunctions {
		f.Add([]byte{byte(i), 24, 3, 16, 136, 8, 7, 15, 23, 31, 24, 3, 1, 88}, []byte("dir/secret dir/made file absfile ../outside"))
	}
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, calls, memory []byte) {
		w.fresh(t)
		before := w.look(t, w.outside)
		sys, err := wasi.New(wasi.Config{
			Args: []string{"fuzz"}, Stdin: -1, Stdout: &discard{}, WorkingDir: "/in",
			Preopens: []wasi.Preopen{
				{Name: "/", FD: folder(t, w.box), Root: true}, {Name: "/box", FD: folder(t, w.box)},
				{Name: "/ro", FD: folder(t, w.box), ReadOnly: true},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer sys.Close()
		timer := time.AfterFunc(fuzzWait, func() { sys.Interrupt(errStopped) })
		defer timer.Stop()
		mem := make([]byte, fuzzMemory)
		for at := 0; at < len(mem) && len(memory) > 0; {
			at += copy(mem[at:], memory)
		}
		runScript(Imports(sys), &script{calls}, mem)
		if w.look(t, w.outside) != before {
			t.Fatal("something outside has changed")
		}
	})
}

// TestFuzzReaches holds the seeds to the list of functions: each of them, of
// both modules, is called by one.
func TestFuzzReaches(t *testing.T) {
	sys, err := wasi.New(wasi.Config{Stdin: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	imports, called := Imports(sys), map[string]bool{}
	if len(imports) != fuzzFunctions {
		t.Fatalf("%d functions, the seeds are for %d", len(imports), fuzzFunctions)
	}
	for i := range imports {
		name := imports[i].Module + "." + imports[i].Name
		imports[i].Func = func([]byte, []wasm.Raw) error { called[name] = true; return nil }
	}
	for i := range fuzzFunctions {
		runScript(imports, &script{[]byte{byte(i)}}, nil)
	}
	if len(called) != fuzzFunctions {
		t.Errorf("the seeds call %d functions of %d", len(called), fuzzFunctions)
	}
}

func runScript(imports []wasm.Import, s *script, mem []byte) {
	for range fuzzCalls {
		if len(s.data) == 0 {
			return
		}
		imp := imports[s.byte()%uint64(len(imports))]
		stack := make([]wasm.Raw, max(len(imp.Type.Params), 1))
		for i := range imp.Type.Params {
			stack[i][0] = s.value()
			if imp.Type.Params[i] == wasm.I32 {
				stack[i][0] = uint64(uint32(stack[i][0]))
			}
		}
		if imp.Name == "fd_allocate" {
			stack[1][0] %= fuzzMaxSize
			stack[2][0] %= fuzzMaxSize
		}
		_ = imp.Func(mem, stack) // any errno will do
	}
}
