package queue

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// newLines reads header fields, with the empty line that ends them.
func newLines(b []byte) *bufio.Reader {
	return bufio.NewReader(bytes.NewReader(append(bytes.Clone(b), "\r\n\r\n"...)))
}

func TestSafe(t *testing.T) {
	for _, c := range []struct {
		in   string
		max  int
		want string
	}{
		{"550 5.1.1 no such user", 100, "550 5.1.1 no such user"},
		{"two\r\nlines\tand  spaces", 100, "two lines and  spaces"},
		{"\x1b[31mred\x1b[0m\x07\x7f", 100, "?[31mred?[0m??"},
		{"a\u202egnp.exe\u200b\u2066", 100, "a?gnp.exe??"},
		{"\u0085\u2028x\u009b", 100, " x?"},
		{"bad \xff\xc3 utf-8", 100, "bad \ufffd\ufffd utf-8"},
		{"grüße", 100, "grüße"},
		{"0123456789", 8, "01234..."},
		{"üüüü", 7, "üü..."},
		{"abc", 2, "ab"},
		{"abc", 0, ""},
		{"", 10, ""},
	} {
		if got := Safe(c.in, c.max); got != c.want {
			t.Errorf("Safe(%q, %d) = %q, want %q", c.in, c.max, got, c.want)
		}
	}
}

func FuzzSafe(f *testing.F) {
	f.Add("plain", 10)
	f.Add("\x1b\r\n\u202e\xff", 3)
	f.Fuzz(func(t *testing.T, s string, max int) {
		max = min(max, 1<<16)
		if max < 0 {
			max = -max & 0xffff
		}
		got := Safe(s, max)
		if len(got) > max || !utf8.ValidString(got) {
			t.Fatalf("Safe(%q, %d) = %q", s, max, got)
		}
		for _, r := range got {
			if !unicode.IsPrint(r) && r != utf8.RuneError {
				t.Fatalf("Safe(%q, %d) holds %U", s, max, r)
			}
		}
		if Safe(got, max) != got {
			t.Fatalf("Safe(%q) is not stable: %q", got, Safe(got, max))
		}
		if a := ascii(s, max); !sevenBit([]byte(a)) || strings.ContainsAny(a, "\r\n") {
			t.Fatalf("ascii(%q) = %q", s, a)
		}
	})
}
