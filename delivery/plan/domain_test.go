package plan

import (
	"strings"
	"testing"
)

func TestNormalizeDomain(t *testing.T) {
	long := strings.Repeat("a", 63)
	for in, want := range map[string]string{
		"example.org":                   "example.org",
		"EXAMPLE.Org.":                  "example.org",
		"bücher.example":                "xn--bcher-kva.example",
		"BÜCHER.example":                "xn--bcher-kva.example",
		"xn--bcher-kva.example":         "xn--bcher-kva.example",
		"straße.example":                "xn--strae-oqa.example",
		"例え。テスト":                        "xn--r8jz45g.xn--zckzah",
		"example。":                      "example",
		"r3---sn.example":               "r3---sn.example",
		"localhost":                     "localhost",
		long + ".example":               long + ".example",
		"[192.0.2.1]":                   "[192.0.2.1]",
		"[IPv6:2001:DB8:0::1]":          "[IPv6:2001:db8::1]",
		"[ipv6:::FFFF:192.0.2.1]":       "[IPv6:::ffff:192.0.2.1]",
		"":                              "",
		".":                             "",
		"a..b":                          "",
		".example.org":                  "",
		"example.org..":                 "",
		"-a.example":                    "",
		"a-.example":                    "",
		"a_b.example":                   "",
		"a b.example":                   "",
		"a\x00.example":                 "",
		"a\r\n.example":                 "",
		"a@b.example":                   "",
		"192.0.2.1":                     "",
		"example.123":                   "",
		long + "a.example":              "",
		strings.Repeat("a.", 128):       "",
		strings.Repeat("ü", 2000):       "",
		"\xff.example":                  "",
		"a\u202e.example":               "",
		"[]":                            "",
		"[192.0.2]":                     "",
		"[192.0.2.01]":                  "",
		"[192.0.2.1":                    "",
		"[2001:db8::1]":                 "",
		"[IPv6:192.0.2.1]":              "",
		"[IPv6:fe80::1%eth0]":           "",
		"[IPv6:" + long + "]":           "",
		"[x-tag:192.0.2.1]":             "",
		"[192.0.2.1].example":           "",
		strings.Repeat("a.", 126) + "a": strings.Repeat("a.", 126) + "a",
	} {
		got, err := NormalizeDomain(in)
		if want == "" {
			if err == nil {
				t.Errorf("%q was taken, as %q", in, got)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

func FuzzNormalizeDomain(f *testing.F) {
	for _, s := range []string{"example.org", "Bücher.example.", "[192.0.2.1]", "[IPv6:::1]", "例え。テスト", "xn--a.b", "a\x00b", "ﬀ．example", "１.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := NormalizeDomain(s)
		if err != nil {
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("the error repeats what came in: %q", err)
			}
			return
		}
		if again, err := NormalizeDomain(d); err != nil || again != d {
			t.Errorf("%q became %q, which becomes %q, %v", s, d, again, err)
		}
		if len(d) > maxDomain || d != strings.ToLower(d) && d[0] != '[' {
			t.Errorf("%q became %q", s, d)
		}
		if strings.ContainsFunc(d, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`@<>"\/;,()_`, r) }) {
			t.Errorf("%q became %q", s, d)
		}
	})
}
