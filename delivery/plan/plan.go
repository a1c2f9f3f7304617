// Package plan composes DNS answers and rules into the plan by which the worker
// delivers and that explain prints: one engine, two callers. It owns the rules
// from a domain to an ordered list of targets, with a reason for each decision.
// It does not know what is stored, which target is up, or how mail is handed
// over.
//
// The steps, in the order in which a domain goes through them:
//
//	domain.go   the one form of a domain, or an address literal
//	planner.go  the walk as a whole, and the verdict
//	sources.go  SRV, else MX, else the domain's own addresses
//	hosts.go    the addresses of the targets
//	choose.go   without ourselves (own.go), what the egress guard refuses
//	            (guard.go, ranges.go, ports.go) and duplicates; in drawn order; cut to size
package plan

import (
	"net/netip"
	"time"

	"srvrelay/queue"
)

// Plan says where mail for a domain is to go now, and why.
type Plan struct {
	Domain string // A-labels, lower case; or an address literal "[192.0.2.1]"
	Source string // what the targets come from: queue.ReasonSRV, ReasonMX, ReasonAddress, ReasonLiteral; "" when nothing was found

	// Verdict is Sent when there is something to try (then Status is zero);
	// else Defer or Fail with the Status for every recipient.
	Verdict queue.Result
	Status  queue.Status
	// Alarm is set when a relay domain of ours (mail we promised to carry
	// home) would have failed or looped: it is deferred, and somebody must look.
	Alarm bool

	Targets []Target  // in the order in which they are to be tried
	Dropped []Dropped // targets and addresses that are not tried, with the reason
	Answers []Lookup  // every DNS answer that was used, in order
	Notes   []string  // what was cut, ignored or followed
}

// Target is a host and a port, and the addresses under which to reach it.
type Target struct {
	Host     string // "" for an address literal
	Port     uint16
	Priority uint16       // SRV priority or MX preference
	Weight   uint16       // SRV only
	Chance   float64      // probability of being drawn first within its priority, 0..1
	Addrs    []netip.Addr // interleaved IPv6, IPv4; at least one
	TLS      TLSRule
}

// AddrPorts returns the addresses with the port, in order.
func (t Target) AddrPorts() []netip.AddrPort {
	aps := make([]netip.AddrPort, len(t.Addrs))
	for i, a := range t.Addrs {
		aps[i] = netip.AddrPortFrom(a, t.Port)
	}
	return aps
}

// Dropped is a target, or one address of it, that is left out.
type Dropped struct {
	Host     string
	Addr     netip.Addr // zero: the whole target
	Port     uint16
	Priority uint16
	Weight   uint16
	Reason   string // queue.Reason...
	Detail   string // in words, with the next step when there is one
}

// Lookup is one DNS question and what came of it.
type Lookup struct {
	Name, Type string
	Records    []string // as text: "10 60 2525 home.example.org"
	TTL        time.Duration
	Secure     bool
	CNAMEs     []string
	Problem    string // "", or NXDOMAIN, NODATA, SERVFAIL, timeout, ...
}

// TLSLevel says what a connection must offer, and is decided before it.
type TLSLevel string

const (
	TLSNone    TLSLevel = "none"    // never
	TLSMay     TLSLevel = "may"     // STARTTLS when offered, unauthenticated
	TLSEncrypt TLSLevel = "encrypt" // required, unauthenticated
	TLSVerify  TLSLevel = "verify"  // required, certificate verified for Names
)

// TLSRule is the rule of one target.
type TLSRule struct {
	Level    TLSLevel
	Implicit bool     // TLS from the first byte
	Names    []string // accepted certificate names, Level TLSVerify
	Why      string
}

// SRVFailed tells whether a look-up of SRV records came to nothing, so that
// nothing is known about them.
func (p Plan) SRVFailed() bool {
	for _, l := range p.Answers {
		if l.Type == "SRV" && l.Problem != "" && l.Problem != "NXDOMAIN" && l.Problem != "NODATA" {
			return true
		}
	}
	return false
}
