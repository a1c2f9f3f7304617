package relay

import (
	"errors"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for _, tc := range []struct {
		in            string
		utf8          bool
		local, domain string
	}{
		{"a@b.example", false, "a", "b.example"},
		{"A.b+c@B.Example", false, "A.b+c", "b.example"},
		{`"a\"b\\c @"@b.example`, false, `a"b\c @`, "b.example"},
		{"a@localhost", false, "a", "localhost"},
		{"a@1.2.3.example", false, "a", "1.2.3.example"},
		{"a@r3---sn.example", false, "a", "r3---sn.example"},
		{"a@[192.0.2.1]", false, "a", "[192.0.2.1]"},
		{"a@[ipv6:2001:DB8:0:0:0:0:0:1]", false, "a", "[IPv6:2001:db8::1]"},
		{"ä@bücher.example", true, "ä", "xn--bcher-kva.example"},
		{`"ä b"@b.example`, true, "ä b", "b.example"},
		{strings.Repeat("l", 64) + "@b.example", false, strings.Repeat("l", 64), "b.example"},
	} {
		a, err := ParseAddress(tc.in, tc.utf8)
		if err != nil || a.Local != tc.local || a.Domain != tc.domain {
			t.Errorf("%q: %+v, %v", tc.in, a, err)
		}
	}
	for _, in := range []string{"ä@b.example", "a@bücher.example"} {
		if _, err := ParseAddress(in, false); !errors.Is(err, ErrNeedsUTF8) {
			t.Errorf("%q: %v", in, err)
		}
	}
	// What must not parse is in forms_test.go.
}

func TestDomainSet(t *testing.T) {
	set, err := newDomainSet([]string{"Home.Example", ".sub.example", "bücher.example"})
	if err != nil {
		t.Fatal(err)
	}
	for d, want := range map[string]bool{
		"home.example": true, "a.home.example": false, "sub.example": false, "a.sub.example": true,
		"a.b.sub.example": true, "asub.example": false, "xn--bcher-kva.example": true, "": false, "example": false,
	} {
		if set.has(d) != want {
			t.Errorf("has(%q) = %v", d, !want)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, x := range append(forms, utf8Forms...) {
		f.Add(strings.Trim(x.rcpt, "<>"), true)
		f.Add(x.rcpt, false)
	}
	f.Fuzz(func(t *testing.T, s string, utf8 bool) {
		a, err := ParseAddress(s, utf8)
		if err != nil {
			return
		}
		if a.Local == "" || a.Domain == "" || len(s) > 64+1+4*maxDomain || printable(s) != nil || !isASCII(a.Domain) ||
			a.Domain != strings.ToLower(a.Domain) && !a.IsLiteral() || strings.ContainsAny(a.Domain, "@%!<> \"\\") {
			t.Errorf("%q: %+v", s, a)
		}
		// One reading only: the last @ is the one, and the path is the same in a command.
		if i := strings.LastIndexByte(s, '@'); len(s[:i]) > maxLocal {
			t.Errorf("%q: %+v", s, a)
		}
		again, err := ParseAddress(s[:strings.LastIndexByte(s, '@')+1]+a.Domain, utf8)
		if err != nil || again != a {
			t.Errorf("%q: %+v, with its own domain %+v, %v", s, a, again, err)
		}
		raw, params, ok := cutPath("TO:<"+s+"> X=y", "TO:")
		if !ok || raw != s || params != " X=y" {
			t.Errorf("%q in a command: %q %q %v", s, raw, params, ok)
		}
	})
}

func FuzzCommand(f *testing.F) {
	f.Add([]byte("MAIL FROM:<a@b.example> SIZE=1\r\n"))
	f.Add([]byte("RCPT TO:<\"a>b\"@c.example> NOTIFY=NEVER\r\n"))
	f.Add([]byte("BDAT 12 LAST\r\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		cmd, r := parseCommand(line)
		if r != nil {
			return
		}
		if strings.ContainsAny(cmd.verb+cmd.arg, "\r\n\x00") {
			t.Errorf("%q: %q", line, cmd)
		}
		if from, opts, r := parseMail(cmd.arg, 1000); r == nil {
			if p, err := parsePath(from, opts.UTF8); err == nil && (printable(p.text) != nil || !isASCII(p.addr.Domain)) {
				t.Errorf("%q: %+v", line, p)
			}
			if !isPrintableASCII(opts.EnvelopeID) || opts.Size < 0 || opts.Size > 1000 {
				t.Errorf("%q: %+v", line, opts)
			}
			if again, _, r := parseMail("FROM:<"+from+">", 1000); r != nil || again != from {
				t.Errorf("%q: %q on its own is %q, %v", line, from, again, r)
			}
		}
		if to, opts, r := parseRcpt(cmd.arg); r == nil {
			if printable(opts.OriginalRecipient) != nil || len(opts.OriginalRecipient) > maxORcpt || len(opts.Notify) > 3 {
				t.Errorf("%q: %+v", line, opts)
			}
			if again, _, r := parseRcpt("TO:<" + to + ">"); r != nil || again != to {
				t.Errorf("%q: %q on its own is %q, %v", line, to, again, r)
			}
		}
		_, _, _ = parseChunk(cmd.arg)
		_, _ = vetHello(cmd.arg)
	})
}
