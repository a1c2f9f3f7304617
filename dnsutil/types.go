// Package dnsutil owns DNS facts: a caching resolver for SRV, MX, address,
// TXT and TLSA records, the three ways in which a look-up can come out, and the order that
// RFC 2782 gives to SRV records. It knows no mail queue, no routes and no SMTP.
// Types of the DNS library do not leave it.
package dnsutil

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// Answer is what a look-up found. The three outcomes of a look-up are never
// confused: records (or a CNAME chain that ends in some), an authoritative
// "nothing" (*NotFound), and a failure that says nothing (*LookupError).
type Answer[R any] struct {
	Records []R
	TTL     time.Duration // what is left of the least TTL of the chain
	Secure  bool          // the AD bit, believed only with Config.TrustAD
	CNAMEs  []string      // the chain followed from the name asked for, if any, in order
	Cut     int           // records beyond the limit that were not read
}

// SRV is one record of RFC 2782. Target "." means that the service is
// decidedly not available. Names are lower case without a trailing dot.
type SRV struct {
	Priority, Weight, Port uint16
	Target                 string
}

// MX is one record of RFC 5321 section 5.1. Host "." is a null MX (RFC 7505).
type MX struct {
	Preference uint16
	Host       string
}

// NotFound is an authoritative "there is no such thing".
type NotFound struct {
	Name, Type string
	NXDomain   bool // false: NODATA, the name exists without such records
	TTL        time.Duration
	Secure     bool
}

func (e *NotFound) Error() string {
	if e.NXDomain {
		return fmt.Sprintf("%s: no such name (NXDOMAIN)", e.Name)
	}
	return fmt.Sprintf("%s: no %s records", e.Name, e.Type)
}

// LookupError is a look-up that came to nothing: a timeout, SERVFAIL, REFUSED,
// a bogus or malformed answer. It says nothing about the name; try later.
type LookupError struct {
	Name, Type string
	Server     string // the last one asked, "" when none was
	Problem    string // "SERVFAIL", "timeout", ...
	Err        error  // the cause, if there is one
}

func (e *LookupError) Error() string {
	s := fmt.Sprintf("looking up %s %s: %s", e.Name, e.Type, e.Problem)
	if e.Server != "" {
		s += " (from " + e.Server + ")"
	}
	return s
}

func (e *LookupError) Unwrap() error { return e.Err }

// Resolver answers the questions that routing asks. Every error is a
// *NotFound or a *LookupError, or the context's.
type Resolver interface {
	SRV(ctx context.Context, name string) (Answer[SRV], error)
	MX(ctx context.Context, name string) (Answer[MX], error)
	// Addrs asks for A and AAAA at once. When one of the two failed and the
	// other has records, those are returned.
	Addrs(ctx context.Context, host string) (Answer[netip.Addr], error)
}
