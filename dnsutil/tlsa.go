package dnsutil

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// TLSA is one record of RFC 6698: which certificate or key a server has.
type TLSA struct {
	Usage, Selector, Matching uint8
	Data                      string // octets: a digest, or for matching type 0 the whole
}

// Usages that count for SMTP (RFC 7672 3.1).
const (
	DANETA = 2 // an authority, in the chain that the server sends
	DANEEE = 3 // the server's own
)

// TLSA returns the TLSA records of a name such as _25._tcp.mx.example.
func (c *Client) TLSA(ctx context.Context, name string) (Answer[TLSA], error) {
	f, err := c.lookup(ctx, name, dns.TypeTLSA)
	return answer(f.tlsa, f), err
}

func (f *facts) readTLSA(rr *dns.TLSA) bool {
	data, err := hex.DecodeString(rr.Certificate)
	ok := err == nil && len(data) > 0 && len(data) <= maxText
	if ok {
		f.tlsa = appendNew(f.tlsa, TLSA{rr.Usage, rr.Selector, rr.MatchingType, string(data)}, maxTLSA, &f.cut)
	}
	return ok
}

// String is the record's data as a zone has it.
func (r TLSA) String() string {
	return fmt.Sprintf("%d %d %d %x", r.Usage, r.Selector, r.Matching, r.Data)
}

// Unusable is why a sender of mail makes nothing of the record, "" if it does.
func (r TLSA) Unusable() string {
	switch {
	case r.Usage == 0 || r.Usage == 1:
		return fmt.Sprintf("usage %d is not for SMTP", r.Usage) // RFC 7672 3.1.3
	case r.Usage > DANEEE:
		return fmt.Sprintf("usage %d is not defined", r.Usage)
	case r.Selector > 1:
		return fmt.Sprintf("selector %d is not defined", r.Selector)
	case r.Matching > 2:
		return fmt.Sprintf("matching type %d is not defined", r.Matching)
	case r.Matching == 1 && len(r.Data) != sha256.Size:
		return fmt.Sprintf("a SHA-256 digest has 32 bytes, and not %d", len(r.Data))
	case r.Matching == 2 && len(r.Data) != sha512.Size:
		return fmt.Sprintf("a SHA-512 digest has 64 bytes, and not %d", len(r.Data))
	}
	return ""
}

// names tells whether the record is of this certificate.
func (r TLSA) names(c *x509.Certificate) bool {
	data := c.Raw
	if r.Selector == 1 {
		data = c.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return string(data) == r.Data
}

// Matches tells whether a server that shows this chain, its own certificate first,
// is the one of the record. Of usage 3 neither names nor dates count (RFC 7672 3.1.1);
// of usage 2 both do, and the authority must be in the chain (3.1.2).
func (r TLSA) Matches(chain []*x509.Certificate, names []string, now time.Time) bool {
	if len(chain) == 0 || r.Unusable() != "" {
		return false
	}
	if r.Usage == DANEEE {
		return r.names(chain[0])
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	named := slices.ContainsFunc(names, func(n string) bool { return chain[0].VerifyHostname(n) == nil })
	return named && slices.ContainsFunc(chain[1:], func(c *x509.Certificate) bool {
		if !r.names(c) {
			return false
		}
		root := x509.NewCertPool()
		root.AddCert(c)
		_, err := chain[0].Verify(x509.VerifyOptions{Roots: root, Intermediates: between, CurrentTime: now})
		return err == nil
	})
}
