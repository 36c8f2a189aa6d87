package wasmtime

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/limpet-cri/limpet/wasm"
)

var symbols = []struct{ symbol, want string }{
	{"_ZN4core9panicking5panic17h0123456789abcdefE", "core::panicking::panic"},
	{"_ZN4main4main17h0123456789abcdefE.llvm.1234", "main::main"},
	{"_ZN58_$LT$alloc..string..String$u20$as$u20$core..fmt..Debug$GT$3fmt17h0123456789abcdefE",
		"<alloc::string::String as core::fmt::Debug>::fmt"},
	{"_ZN3std2rt10lang_start28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE", "std::rt::lang_start::{{closure}}"},
	{"_RNvCs1234_7mycrate3foo", "mycrate::foo"},
	{"_RNvNtCs1234_4core9panicking9panic_fmt", "core::panicking::panic_fmt"},
	{"_RNCNvCs1234_7mycrate4main0", "mycrate::main::{closure#0}"},
	{"_RNCNvCs1234_7mycrate4mains_0", "mycrate::main::{closure#1}"},
	{"_RNvCs1234_7mycrate3foo.llvm.99", "mycrate::foo"},
	// Not understood, and so left alone.
	{"_ZN3foo3barEv", "_ZN3foo3barEv"},
	{"_ZN3foo3barE", "_ZN3foo3barE"},
	{"_ZN17h0123456789abcdefE", "_ZN17h0123456789abcdefE"},
	{"_ZN99foo17h0123456789abcdefE", "_ZN99foo17h0123456789abcdefE"},
	{"_ZN3foo17h0123456789abcdef", "_ZN3foo17h0123456789abcdef"},
	{"_RINvCs1234_7mycrate3fooiE", "_RINvCs1234_7mycrate3fooiE"},
	{"_RNvCs1234_7mycrateu3foo", "_RNvCs1234_7mycrateu3foo"},
	{"_R", "_R"}, {"_RN", "_RN"}, {"_RNv", "_RNv"}, {"_RC", "_RC"}, {"_RCs", "_RCs"}, {"_ZN", "_ZN"},
	{"_R" + strings.Repeat("Nv", 500), "_R" + strings.Repeat("Nv", 500)},
	{"main.main", "main.main"}, {"_start", "_start"}, {"", ""},
}

func TestDemangle(t *testing.T) {
	for _, c := range symbols {
		if got := demangle(c.symbol); got != c.want {
			t.Errorf("%s: %s, want %s", c.symbol, got, c.want)
		}
	}
	got := Backtrace("app.wasm", &wasm.Trap{Code: wasm.TrapUnreachable, Frames: []wasm.Frame{{Func: symbols[0].symbol, Offset: 16}}})
	if want := "app.wasm!core::panicking::panic"; !strings.HasSuffix(got, want) {
		t.Errorf("backtrace %q, want %q at its end", got, want)
	}
}

func FuzzDemangle(f *testing.F) {
	for _, c := range symbols {
		f.Add(c.symbol)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := demangle(s)
		if len(got) > 4*len(s)+64 {
			t.Errorf("%d bytes become %d", len(s), len(got))
		}
		if utf8.ValidString(s) && len(s) < maxName && strings.ContainsAny(printable(got), "\n\x1b") {
			t.Errorf("%q is not printable", got)
		}
	})
}
