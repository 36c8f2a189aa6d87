package wasmtime

import (
	"strconv"
	"strings"
)

// demangle makes a symbol of Rust's readable: its compiler tells the linker to
// leave names as they are, while those of C++ are demangled in the module. The
// two schemes are understood as far as paths of plain names go; what else
// there is (generic arguments, implementations and constants of the newer
// scheme, names in punycode) leaves the symbol as it is: whoever needs it has
// tools for it.
func demangle(s string) string {
	var parts []string
	ok := false
	if rest, legacy := strings.CutPrefix(s, "_ZN"); legacy {
		parts, ok = legacyPath(rest)
	} else if rest, v0 := strings.CutPrefix(s, "_R"); v0 {
		if parts, rest, ok = v0Path(rest, maxDepth); rest != "" && rest[0] != '.' {
			ok = false
		}
	}
	if !ok {
		return s
	}
	return strings.Join(parts, "::")
}

// maxDepth bounds how deeply paths of the newer scheme are nested.
const maxDepth = 32

// legacyPath reads "4core9panicking5panic17h0123456789abcdefE": names with
// their lengths, the last one a hash. A suffix of the compiler's may follow.
func legacyPath(s string) ([]string, bool) {
	var parts []string
	for s != "" && s[0] != 'E' {
		name, rest, ok := counted(s)
		if !ok {
			return nil, false
		}
		parts, s = append(parts, name), rest
	}
	n := len(parts) - 1
	if n < 1 || s == "" || len(s) > 1 && s[1] != '.' || !isHash(parts[n]) {
		return nil, false // C++ has no hash
	}
	parts = parts[:n]
	for i := range parts {
		parts[i] = unescape(parts[i])
	}
	return parts, true
}

func isHash(s string) bool {
	return len(s) == 17 && s[0] == 'h' && strings.Trim(s[1:], "0123456789abcdef") == ""
}

// counted reads a decimal length and as many bytes.
func counted(s string) (name, rest string, ok bool) {
	i := 0
	for i < len(s) && i < 4 && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	n, err := strconv.Atoi(s[:i])
	if err != nil || n == 0 || n > len(s)-i {
		return "", "", false
	}
	return s[i : i+n], s[i+n:], true
}

// unescape puts back the signs of the older scheme that names cannot hold.
func unescape(s string) string {
	if strings.HasPrefix(s, "_$") {
		s = s[1:]
	}
	return strings.NewReplacer("..", "::", "$SP$", "@", "$BP$", "*", "$RF$", "&", "$LT$", "<", "$GT$", ">",
		"$LP$", "(", "$RP$", ")", "$C$", ",", "$u20$", " ", "$u27$", "'", "$u3d$", "=", "$u5b$", "[", "$u5d$", "]",
		"$u7b$", "{", "$u7d$", "}", "$u3b$", ";", "$u2b$", "+", "$u22$", "\"").Replace(s)
}

// v0Path reads "NvCs1234_4main3run" (RFC 2603): a crate, or a name in a path.
func v0Path(s string, depth int) (parts []string, rest string, ok bool) {
	if s == "" || depth == 0 {
		return nil, s, false
	}
	switch s[0] {
	case 'C':
		s = s[1:]
	case 'N':
		if len(s) < 2 {
			return nil, s, false
		}
		kind := s[1]
		if parts, s, ok = v0Path(s[2:], depth-1); !ok {
			return nil, s, false
		}
		n, rest, ok := disambiguator(s)
		if !ok {
			return nil, s, false
		}
		if kind == 'C' && rest != "" && rest[0] == '0' { // a closure has no name
			return append(parts, "{closure#"+strconv.FormatUint(n, 10)+"}"), rest[1:], true
		}
		if kind < 'a' || kind > 'z' {
			return nil, s, false
		}
	default:
		return nil, s, false
	}
	_, s, ok = disambiguator(s)
	if !ok {
		return nil, s, false
	}
	name, rest, ok := v0Name(s)
	return append(parts, name), rest, ok
}

// v0Name reads a length and a name; "_" between them keeps digits apart.
func v0Name(s string) (name, rest string, ok bool) {
	i := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if i > 0 && s[i] == '_' {
		s = s[:i] + s[i+1:]
		n, err := strconv.Atoi(s[:i])
		if err != nil || n == 0 || n > len(s)-i {
			return "", "", false
		}
		return s[i : i+n], s[i+n:], true
	}
	return counted(s)
}

// disambiguator reads "s_" (1), "s0_" (2) and so on in base 62; none is 0.
func disambiguator(s string) (n uint64, rest string, ok bool) {
	if s == "" || s[0] != 's' {
		return 0, s, true
	}
	digits, rest, ok := strings.Cut(s[1:], "_")
	if !ok || len(digits) > 11 {
		return 0, s, false
	}
	if digits == "" {
		return 1, rest, true
	}
	for _, c := range []byte(digits) {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'z':
			c -= 'a' - 10
		case c >= 'A' && c <= 'Z':
			c -= 'A' - 36
		default:
			return 0, s, false
		}
		n = n*62 + uint64(c)
	}
	return n + 2, rest, true
}
