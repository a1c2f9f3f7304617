package smtpclient

import (
	"bufio"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func parse(s string) (Reply, error) {
	return readReply(bufio.NewReaderSize(strings.NewReader(s), maxRawLine), maxLines)
}

func TestReply(t *testing.T) {
	long := strings.Repeat("x", 2000)
	for in, want := range map[string]Reply{
		"250 ok\r\n":                           {Code: 250, Lines: []string{"ok"}},
		"250\r\n":                              {Code: 250, Lines: []string{""}},
		"250 \r\n":                             {Code: 250, Lines: []string{""}},
		"250 ok\n":                             {Code: 250, Lines: []string{"ok"}},
		"250-a\r\n250-b\r\n250 c\r\n":          {Code: 250, Lines: []string{"a", "b", "c"}},
		"250-a\r\n250\r\n":                     {Code: 250, Lines: []string{"a", ""}},
		"451 4.7.1 greylisted\r\n":             {Code: 451, Enhanced: "4.7.1", Lines: []string{"4.7.1 greylisted"}},
		"550-5.1.1 no\r\n550 5.1.1 user\r\n":   {Code: 550, Enhanced: "5.1.1", Lines: []string{"5.1.1 no", "5.1.1 user"}},
		"250 2.1.5\r\n":                        {Code: 250, Enhanced: "2.1.5", Lines: []string{"2.1.5"}},
		"451 5.7.1 liar\r\n":                   {Code: 451, Lines: []string{"5.7.1 liar"}},
		"354 3.0.0 go\r\n":                     {Code: 354, Lines: []string{"3.0.0 go"}},
		"550 5.1 x\r\n":                        {Code: 550, Lines: []string{"5.1 x"}},
		"550 5.1.1000 x\r\n":                   {Code: 550, Lines: []string{"5.1.1000 x"}},
		"550 5.1.1x\r\n":                       {Code: 550, Lines: []string{"5.1.1x"}},
		"550 a\tb\r\n":                         {Code: 550, Lines: []string{"a b"}},
		"550 a\x1b[31mb\x00\x7f\rc\r\n":        {Code: 550, Lines: []string{"a?[31mb???c"}},
		"550 a\u202eb\u200fc\u0085\u2028d\r\n": {Code: 550, Lines: []string{"a?b?c??d"}},
		"550 \xff\xfeü\r\n":                    {Code: 550, Lines: []string{"??ü"}},
		"550 " + long + "\r\n":                 {Code: 550, Lines: []string{long[:maxKeptLine]}},
	} {
		got, err := parse(in)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%.60q:\ngot  %+v (%v)\nwant %+v", in, got, err, want)
		}
	}
}

func TestMalformedReply(t *testing.T) {
	for _, in := range []string{
		"\r\n", "ok\r\n", "25 ok\r\n", "2500 ok\r\n", "250_ok\r\n", "2x0 ok\r\n", " 250 ok\r\n",
		"000 x\r\n", "150 x\r\n", "199 x\r\n", "600 x\r\n", "999 x\r\n",
		"250-a\r\n251 b\r\n", "250-a\r\n550 b\r\n", "250-a\r\nb\r\n",
		"250 " + strings.Repeat("x", maxRawLine) + "\r\n",
		strings.Repeat("250-x\r\n", maxLines) + "250 x\r\n",
	} {
		if r, err := parse(in); !errors.Is(err, ErrProtocol) {
			t.Errorf("%.40q: got %v (%v), want a protocol violation", in, r, err)
		}
	}
	if r, err := parse(strings.Repeat("250-x\r\n", maxLines-1) + "250 x\r\n"); err != nil || len(r.Lines) != maxLines {
		t.Errorf("%d lines: %v", maxLines, err)
	}
	if _, err := parse("250 ok"); err != io.EOF {
		t.Errorf("half a line: %v", err)
	}
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "250-a\r\n250 b\r\n", "451 4.7.1 \x1b\u202e\xff\r\n", "354\n", "250-a\r\n251 b\r\n", "2500\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := parse(string(in))
		if err != nil {
			if !errors.Is(err, ErrProtocol) && err != io.EOF {
				t.Fatalf("unexpected error %v", err)
			}
			return
		}
		if r.Code < 200 || r.Code > 599 || len(r.Lines) < 1 || len(r.Lines) > maxLines {
			t.Fatalf("reply %+v", r)
		}
		for _, l := range r.Lines {
			if len(l) > maxKeptLine || !utf8.ValidString(l) || strings.ContainsFunc(l, func(c rune) bool { return !unicode.IsPrint(c) }) {
				t.Fatalf("unsafe line %q", l)
			}
		}
		if r.Enhanced != "" && (int(r.Enhanced[0]-'0') != r.Code/100 || !strings.HasPrefix(r.Lines[0], r.Enhanced)) {
			t.Fatalf("enhanced code %q in %+v", r.Enhanced, r)
		}
	})
}
