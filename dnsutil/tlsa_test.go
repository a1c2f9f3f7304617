package dnsutil

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"
	"time"
)

// TestTLSARecords: they are read whatever they say, once each, and are remembered.
func TestTLSARecords(t *testing.T) {
	const digest = "a0e78cb6da349638abbb670a802f10b9f84f7075df0d74e627bb1d86e6ec0902"
	c, _ := clientFor(t, `$ORIGIN shop.example.
@ SOA ns.shop.example. a.shop.example. 1 1 1 1 60
_25._tcp.mx TLSA 3 1 1 `+digest+`
_25._tcp.mx TLSA 0 0 9 00
`)
	for range 2 { // from the server, and from the cache
		a, err := c.TLSA(ctxFor(t), "_25._tcp.mx.shop.example")
		if err != nil || len(a.Records) != 2 || a.Records[0].String() != "3 1 1 "+digest && a.Records[1].String() != "3 1 1 "+digest {
			t.Errorf("%v, %v", a.Records, err)
		}
	}
	_, err := c.TLSA(ctxFor(t), "_26._tcp.mx.shop.example")
	wantNotFound(t, err, true)
}

// TestTLSAMatches goes by RFC 7672 3.1: the authority's certificate in the chain, with
// names and dates, or the server's own without.
func TestTLSAMatches(t *testing.T) {
	now := time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
	caKey, key := ed25519.NewKeyFromSeed(make([]byte, 32)), ed25519.NewKeyFromSeed([]byte(strings.Repeat("k", 32)))
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), DNSNames: []string{"mx.example"}}
	var chain []*x509.Certificate
	for _, c := range []struct {
		of  *x509.Certificate
		pub any
	}{{leaf, key.Public()}, {ca, caKey.Public()}} {
		der, err := x509.CreateCertificate(rand.Reader, c.of, ca, c.pub, caKey)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, parsed)
	}
	sum := func(b []byte) string { s := sha256.Sum256(b); return string(s[:]) }
	sum512 := func(b []byte) string { s := sha512.Sum512(b); return string(s[:]) }
	names := []string{"d.example", "mx.example"}
	for _, c := range []struct {
		what  string
		r     TLSA
		chain []*x509.Certificate
		names []string
		now   time.Time
		want  bool
	}{
		{"3 1 1", TLSA{3, 1, 1, sum(chain[0].RawSubjectPublicKeyInfo)}, chain, names, now, true},
		{"3 0 2", TLSA{3, 0, 2, sum512(chain[0].Raw)}, chain, names, now, true},
		{"3 1 0", TLSA{3, 1, 0, string(chain[0].RawSubjectPublicKeyInfo)}, chain, names, now, true},
		{"3 1 1, another name, expired", TLSA{3, 1, 1, sum(chain[0].RawSubjectPublicKeyInfo)}, chain, nil, now.Add(9 * time.Hour), true},
		{"3 1 1 of the authority", TLSA{3, 1, 1, sum(chain[1].RawSubjectPublicKeyInfo)}, chain, names, now, false},
		{"3 0 1 of the key", TLSA{3, 0, 1, sum(chain[0].RawSubjectPublicKeyInfo)}, chain, names, now, false},
		{"2 1 1", TLSA{2, 1, 1, sum(chain[1].RawSubjectPublicKeyInfo)}, chain, names, now, true},
		{"2 1 1, another name", TLSA{2, 1, 1, sum(chain[1].RawSubjectPublicKeyInfo)}, chain, []string{"x.example"}, now, false},
		{"2 1 1, expired", TLSA{2, 1, 1, sum(chain[1].RawSubjectPublicKeyInfo)}, chain, names, now.Add(9 * time.Hour), false},
		{"2 1 1, authority not sent", TLSA{2, 1, 1, sum(chain[1].RawSubjectPublicKeyInfo)}, chain[:1], names, now, false},
		{"2 1 1, of another's signature", TLSA{2, 1, 1, sum(chain[0].RawSubjectPublicKeyInfo)}, []*x509.Certificate{chain[1], chain[0]}, names, now, false},
		{"1 1 1", TLSA{1, 1, 1, sum(chain[0].RawSubjectPublicKeyInfo)}, chain, names, now, false},
		{"no certificate", TLSA{3, 1, 1, sum(chain[0].RawSubjectPublicKeyInfo)}, nil, names, now, false},
	} {
		if got := c.r.Matches(c.chain, c.names, c.now); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
	for want, r := range map[string]TLSA{
		"":                               {3, 1, 1, sum(nil)},
		"usage 0 is not for SMTP":        {0, 0, 1, sum(nil)},
		"usage 9 is not defined":         {9, 0, 1, sum(nil)},
		"selector 2 is not defined":      {3, 2, 1, sum(nil)},
		"matching type 3 is not defined": {3, 1, 3, sum(nil)},
		"a SHA-256 digest has 32 bytes, and not 64": {3, 1, 1, sum512(nil)},
		"a SHA-512 digest has 64 bytes, and not 32": {3, 1, 2, sum(nil)},
	} {
		if got := r.Unusable(); got != want {
			t.Errorf("%s: %q, want %q", hex.EncodeToString([]byte{r.Usage}), got, want)
		}
	}
}
