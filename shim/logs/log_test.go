package logs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limpet-cri/limpet/shim/logs"
)

// open returns a new log and its path.
func open(t testing.TB, path string) *logs.Log {
	t.Helper()
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_APPEND|syscall.O_CREAT|syscall.O_CLOEXEC, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	return logs.New(fd)
}

// shown returns the lines of a log as "stream tag text".
func shown(t testing.TB, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var l []string
	for len(b) > 0 {
		e, rest, err := logs.Parse(b)
		if err != nil {
			t.Fatalf("%v: %q", err, b[:min(len(b), 200)])
		}
		tag := "F"
		if e.Partial {
			tag = "P"
		}
		l = append(l, e.Stream.String()+" "+tag+" "+string(e.Text))
		b = rest
	}
	return l
}

func same(t *testing.T, got, want []string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %.300q\nwant %.300q", got, want)
	}
}

func TestLines(t *testing.T) {
	k16 := strings.Repeat("x", logs.MaxText)
	for _, c := range []struct {
		name   string
		writes []string // "2:" in front means stderr, "!" is a flush
		want   []string
	}{
		{"one line", []string{"hello\n"}, []string{"stdout F hello"}},
		{"empty lines", []string{"\n\n"}, []string{"stdout F ", "stdout F "}},
		{"nothing", []string{"", "!"}, nil},
		{"pieces of a line", []string{"a", "b", "c\nd\n"}, []string{"stdout F abc", "stdout F d"}},
		{"two streams", []string{"a", "2:b\n", "c\n"}, []string{"stderr F b", "stdout F ac"}},
		{"a prompt", []string{"name? ", "!", "thanks\n"}, []string{"stdout P name? ", "stdout F thanks"}},
		{"flush of nothing", []string{"a\n", "!"}, []string{"stdout F a"}},
		{"no newline at the end", []string{"a\nb", "!"}, []string{"stdout F a", "stdout P b"}},
		{"carriage return stays", []string{"a\r\n"}, []string{"stdout F a\r"}},
		{"bytes that are no text", []string{"a\x00b\xff\xfe\n", "\x00", "\n"}, []string{"stdout F a\x00b\xff\xfe", "stdout F \x00"}},
		{"a character cut in two", []string{k16[1:] + "\u00e9\n"}, []string{"stdout P " + k16[1:] + "\xc3", "stdout F \xa9"}},
		{"just fits", []string{k16 + "\n"}, []string{"stdout F " + k16}},
		{"just fits, in two", []string{k16, "\n"}, []string{"stdout F " + k16}},
		{"one too many", []string{k16 + "y\n"}, []string{"stdout P " + k16, "stdout F y"}},
		{"one too many, in two", []string{k16, "y", "\n"}, []string{"stdout P " + k16, "stdout F y"}},
		{"held and long", []string{"ab", k16 + k16 + "\n"},
			[]string{"stdout P ab" + k16[2:], "stdout P " + k16, "stdout F xx"}},
		{"held and long, no end", []string{"ab", k16 + k16 + "z", "!"},
			[]string{"stdout P ab" + k16[2:], "stdout P " + k16, "stdout P xxz"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			l := open(t, path)
			out, err := l.Stream(logs.Stdout), l.Stream(logs.Stderr)
			for _, w := range c.writes {
				s, isErr := strings.CutPrefix(w, "2:")
				switch {
				case w == "!":
					l.Flush()
				case isErr:
					err.Write([]byte(s))
				default:
					out.Write([]byte(s))
				}
			}
			same(t, shown(t, path), c.want)
		})
	}
}

// More lines in one write than a batch holds, all of them in order.
func TestManyLinesInOneWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, path)
	want := make([]string, 1000)
	var in bytes.Buffer
	for i := range want {
		s := strings.Repeat("z", i)
		in.WriteString(s + "\n")
		want[i] = "stdout F " + s
	}
	l.Stream(logs.Stdout).Write(in.Bytes())
	same(t, shown(t, path), want)
}

func TestTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, path)
	before := time.Now()
	l.Stream(logs.Stdout).Write([]byte("x\n"))
	after := time.Now()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := logs.Parse(b)
	if err != nil || e.Time.Before(before.Truncate(0)) || e.Time.After(after) {
		t.Fatalf("%v, %v: not between %v and %v", err, e.Time, before, after)
	}
	if stamp := string(b[:30]); stamp != e.Time.UTC().Format("2006-01-02T15:04:05.000000000Z") {
		t.Errorf("time %q is not RFC 3339 with nine digits, in UTC", stamp)
	}
}

// Rotation as the kubelet does it: rename, then reopen. No line may be torn or
// missing.
func TestReopenLosesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	l := open(t, path)
	var wg sync.WaitGroup
	wg.Go(func() {
		w := l.Stream(logs.Stdout)
		for i := range 5000 {
			w.Write([]byte(strings.Repeat("a", i%50)))
			w.Write([]byte("\n"))
		}
	})
	for i := range 5 {
		if err := os.Rename(path, path+"."+string(rune('a'+i))); err != nil {
			t.Fatal(err)
		}
		fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_APPEND|syscall.O_CREAT, 0o640)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Reopen(fd); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	var all []string
	for _, f := range []string{".a", ".b", ".c", ".d", ".e", ""} {
		all = append(all, shown(t, path+f)...)
	}
	if len(all) != 5000 {
		t.Fatalf("%d lines, want 5000", len(all))
	}
	for i, got := range all {
		if want := "stdout F " + strings.Repeat("a", i%50); got != want {
			t.Fatalf("line %d: %q, want %q", i, got, want)
		}
	}
}

// Rotated in the middle of a line, short or so long that a part of it is in the
// former file already: what comes after continues it, nothing is twice.
func TestReopenInTheMiddleOfALine(t *testing.T) {
	k16 := strings.Repeat("x", logs.MaxText)
	for _, c := range []struct {
		first       string
		former, new []string
	}{
		{"ab", nil, []string{"stdout F abcd"}},
		{k16 + "ab", []string{"stdout P " + k16}, []string{"stdout F abcd"}},
	} {
		former, next := filepath.Join(t.TempDir(), "0.log"), filepath.Join(t.TempDir(), "0.log")
		l := open(t, former)
		w := l.Stream(logs.Stdout)
		w.Write([]byte(c.first))
		fd, err := syscall.Open(next, syscall.O_WRONLY|syscall.O_APPEND|syscall.O_CREAT, 0o640)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Reopen(fd); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte("cd\n"))
		same(t, shown(t, former), c.former)
		same(t, shown(t, next), c.new)
	}
}

// A log that cannot be written costs lines, never the guest; the next file
// tells how much.
func TestFullDiskIsToldLater(t *testing.T) {
	fd, err := syscall.Open("/dev/full", syscall.O_WRONLY, 0)
	if err != nil {
		t.Skip("needs /dev/full")
	}
	l := logs.New(fd)
	w := l.Stream(logs.Stdout)
	for range 3 {
		if n, err := w.Write([]byte("lost\n")); n != 5 || err != nil {
			t.Fatalf("the guest saw %d, %v", n, err)
		}
	}
	path := filepath.Join(t.TempDir(), "log")
	next, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_APPEND|syscall.O_CREAT, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(next); err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("here\n"))
	got := shown(t, path)
	if len(got) != 2 || !strings.Contains(got[0], "no space left on device") || got[1] != "stdout F here" {
		t.Errorf("got %q", got)
	}
}

// A real file system that fills up in the middle of a line and is emptied
// again: the torn line is ended, the note follows, and lines go on.
func TestTornLineIsMended(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("limpet-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 32<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "log")
	l := open(t, path)
	w := l.Stream(logs.Stdout)
	line := []byte(strings.Repeat("q", 9999) + "\n")
	for range 10 {
		w.Write(line)
	}
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("after\n"))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if n := len(lines); n < 3 || !strings.HasSuffix(lines[n-1], " stdout F after") || !strings.Contains(lines[n-2], "could not be written: no space left") {
		t.Fatalf("ends with %.100q", lines[max(0, len(lines)-3):])
	}
}

func TestWriteAllocatesNothing(t *testing.T) {
	l := open(t, "/dev/null")
	w := l.Stream(logs.Stdout)
	in := []byte("a line\nand another\n")
	if n := testing.AllocsPerRun(1000, func() { w.Write(in) }); n != 0 {
		t.Errorf("%v allocations per write", n)
	}
}

func TestParseRefuses(t *testing.T) {
	const stamp = "2026-01-02T03:04:05.000000006Z"
	for _, s := range []string{
		"", "x", "\n", stamp + "\n", stamp + " stdout F x", stamp + " stdin F x\n", stamp + " stdout X x\n",
		stamp + " stdout F\n", "yesterday stdout F x\n", stamp + " stdout F " + strings.Repeat("x", logs.MaxLine) + "\n",
	} {
		if e, _, err := logs.Parse([]byte(s)); err == nil {
			t.Errorf("%.80q was taken as %+v", s, e)
		}
	}
}

// FuzzParse: any bytes are either a line that says the same when it is written
// again, or refused; the reader always advances or stops.
func FuzzParse(f *testing.F) {
	f.Add([]byte("2026-01-02T03:04:05.000000006Z stdout F hello\n"))
	f.Add([]byte("2026-01-02T03:04:05.6+02:00 stderr P \nrest"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, rest, err := logs.Parse(b)
		if err != nil {
			return
		}
		if len(rest) >= len(b) || bytes.IndexByte(e.Text, '\n') >= 0 {
			t.Fatalf("%q: text %q, rest %q", b, e.Text, rest)
		}
	})
}

// FuzzWrite: whatever a guest writes, in whatever pieces, the log gives it back.
func FuzzWrite(f *testing.F) {
	f.Add([]byte("hello\nworld"), uint16(3))
	f.Add(bytes.Repeat([]byte("x"), 3*logs.MaxText), uint16(5000))
	f.Fuzz(func(t *testing.T, in []byte, step uint16) {
		fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
		if err != nil {
			t.Skip("needs memfd_create")
		}
		dup, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(dup), "log")
		defer file.Close()
		l := logs.New(fd)
		w := l.Stream(logs.Stderr)
		for rest := in; len(rest) > 0; {
			n := min(len(rest), int(step)+1)
			w.Write(rest[:n])
			rest = rest[n:]
		}
		l.Flush()
		fi, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, fi.Size())
		if _, err := file.ReadAt(b, 0); err != nil && len(b) > 0 {
			t.Fatal(err)
		}
		var out []byte
		for len(b) > 0 {
			e, rest, err := logs.Parse(b)
			if err != nil || len(e.Text) > logs.MaxText {
				t.Fatalf("%v, %d bytes: %.100q", err, len(e.Text), b)
			}
			out = append(out, e.Text...)
			if !e.Partial {
				out = append(out, '\n')
			}
			b = rest
		}
		if !bytes.Equal(out, in) {
			t.Fatalf("in %.100q\nout %.100q", in, out)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkLine(b *testing.B) {
	l := open(b, "/dev/null")
	w := l.Stream(logs.Stdout)
	in := []byte("a line of an ordinary length, as programs write them\n")
	b.ReportAllocs()
	for b.Loop() {
		w.Write(in)
	}
}

func BenchmarkLineToFile(b *testing.B) {
	l := open(b, filepath.Join(b.TempDir(), "log"))
	w := l.Stream(logs.Stdout)
	in := []byte("a line of an ordinary length, as programs write them\n")
	b.ReportAllocs()
	for b.Loop() {
		w.Write(in)
	}
}
