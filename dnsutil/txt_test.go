package dnsutil

import (
	"slices"
	"strings"
	"testing"
)

// TestTXTRecords: strings of a record are one text, escapes are octets, and
// what is too long is not read.
func TestTXTRecords(t *testing.T) {
	c, _ := clientFor(t, `$ORIGIN shop.example.
@ SOA ns.shop.example. a.shop.example. 1 1 1 1 60
two TXT "v=spf1 ip4:192.0.2.1" " -all"
two TXT "other"
odd TXT "a\"b\\c\;d\228"
long TXT `+strings.Repeat(`"`+strings.Repeat("x", 250)+`" `, 17)+`
alias CNAME two
`)
	for name, want := range map[string][]string{
		"two.shop.example": {"v=spf1 ip4:192.0.2.1 -all", "other"}, "alias.shop.example": {"v=spf1 ip4:192.0.2.1 -all", "other"},
		"odd.shop.example": {"a\"b\\c;d\xe4"},
	} {
		for range 2 { // from the server, and from the cache
			a, err := c.TXT(ctxFor(t), name)
			got := slices.Sorted(slices.Values(a.Records))
			slices.Sort(want)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	}
	_, err := c.TXT(ctxFor(t), "long.shop.example")
	wantProblem(t, err, "malformed records")
	_, err = c.TXT(ctxFor(t), "none.shop.example")
	wantNotFound(t, err, true)
}
