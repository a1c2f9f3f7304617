package mailauth

import (
	"strings"
	"testing"
)

// FuzzCheck: whatever comes, the process lives, and the results are text that may
// stand in a field of the header. go-msgauth verifies several signatures in
// goroutines of its own, where nobody could catch a panic.
func FuzzCheck(f *testing.F) {
	f.Add("x@sub.a.example", "From: a@sub.a.example\r\nDKIM-Signature: v=1; a=ed25519-sha256; d=a.example; s=s; h=From; bh=AAAA; b=AAAA\r\nDKIM-Signature: v=1; l=-1; x=9999999999999; t=1; c=x/y; q=z; i=@; d=b.example; s=s; h=:; bh=; b=\r\n\r\nbody", 7)
	f.Add("", "DKIM-Signature: \r\nDKIM-Signature:;;=;\r\nFrom: =?x?y?z?=\r\n\r\n", 1)
	r := zone{
		"TXT s._domainkey.a.example": {"v=DKIM1; k=ed25519; p=AAAA"}, "TXT s._domainkey.b.example": {"v=DKIM1; k=rsa; p=MAA="},
		"TXT sub.a.example": {"v=spf1 include:sub.a.example exists:%{i}.%{l}.%{d} ptr a mx -all"}, "TXT _dmarc.a.example": {"v=DMARC1; p=reject; pct=-1; aspf=x"},
	}
	f.Fuzz(func(t *testing.T, sender, message string, n int) {
		for _, line := range strings.Split(results(r, 1+n&1023, "203.0.113.7", "h.example", sender, message), "; ") {
			if strings.ContainsAny(line, "\r\n") || strings.ContainsFunc(line, func(c rune) bool { return c < ' ' || c > '~' }) {
				t.Errorf("%q", line)
			}
		}
	})
}
