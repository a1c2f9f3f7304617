// Package plan composes DNS answers and rules into the plan by which the worker
// delivers and that explain prints: one engine, two callers. It owns the rules
// from a domain to an ordered list of targets, with a reason for each decision.
// It does not know what is stored, which target is up, or how mail is handed
// over.
//
// The steps, in the order in which a domain goes through them:
//
//	domain.go   the one form of a domain, or an address literal
//	route.go    the operator's routes: which one matches
//	planner.go  the walk as a whole, and the verdict
//	sources.go  SRV, else MX, else the domain's own addresses; or what a route names
//	hosts.go    the addresses of the targets
//	choose.go   without ourselves (own.go), what the egress guard refuses
//	            (guard.go, ranges.go, ports.go) and duplicates; in drawn order; cut to size
//	recall.go   the plan of the hop's message before, while its answers hold
package plan

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"srvrelay/queue"
)

// Plan says where the mail of a hop is to go now, and why.
type Plan struct {
	Hop    string
	Domain string // A-labels, lower case; or an address literal "[192.0.2.1]"; "" for a route's own hosts, whatever the domain
	Source string // what the first target comes from: queue.ReasonSRV, ReasonMX, ReasonAddress, ReasonLiteral, ReasonRoute; "" when nothing was found

	// Verdict is Sent when there is something to try (then Status is zero);
	// else Defer, Fail or Hold with the Status for every recipient.
	Verdict queue.Result
	Status  queue.Status
	// Alarm is set when a relay domain of ours (mail we promised to carry
	// home) would have failed or looped: it is deferred, and somebody must look.
	Alarm bool

	// Partial is set when a next hop of the route is left out that may be there
	// the next time: then what the others refuse is not the last word.
	Partial bool

	Targets []Target  // in the order in which they are to be tried
	Dropped []Dropped // targets and addresses that are not tried, with the reason
	Answers []Lookup  // every DNS answer that was used, in order
	Notes   []string  // what was cut, ignored or followed

	print string // Fingerprint of a plan that is kept, see recall.go
}

// Target is a host and a port, and the addresses under which to reach it.
type Target struct {
	Host     string // "" for an address literal
	Port     uint16
	Path     string       // of a Unix socket, or Caller of a user, instead of port and addresses
	Way      int          // index of the route's next hop that names it; 0 without a route
	Priority uint16       // SRV priority or MX preference
	Weight   uint16       // SRV only
	Chance   float64      // probability of being drawn first within its priority, 0..1
	Addrs    []netip.Addr // interleaved IPv6, IPv4; at least one
	Named    bool         // a route names it, or the domain whose SRV records do: what it lacks is the operator's to mend
	Written  bool         // a route names the host itself: the egress guard has no say
	Calls    string       // the domain, of a target that connects to us for its mail; see Caller
	LMTP     bool
	TLS      TLSRule
	Login    *Login // nil: no AUTH
	Origin   Origin
}

// Endpoints returns what to connect to, in order.
func (t Target) Endpoints() []Endpoint {
	terms := t.terms()
	if t.Path != "" {
		return []Endpoint{{Path: t.Path, Terms: terms}}
	}
	eps := make([]Endpoint, len(t.Addrs))
	for i, a := range t.Addrs {
		eps[i] = Endpoint{AddrPort: netip.AddrPortFrom(a, t.Port), Terms: terms}
	}
	return eps
}

// terms is Endpoint.Terms.
func (t Target) terms() string {
	if t.Calls != "" {
		return t.Calls
	}
	if t.TLS.Level == TLSMay && !t.TLS.Implicit && !t.LMTP && t.Login == nil && t.Origin == OriginNone {
		return ""
	}
	s := string(t.TLS.Level)
	if t.TLS.Level == TLSVerify {
		s += fmt.Sprintf(" %q %q %p", t.TLS.Names, t.TLS.Services, t.TLS.Roots)
	}
	if t.TLS.Implicit {
		s += " implicit"
	}
	if t.LMTP {
		s += " LMTP"
	}
	if t.Login != nil {
		s += " as " + t.Login.User + " " + t.Login.Ways
		if t.Login.Tokens != nil {
			s += " token"
		}
	}
	if t.Origin != OriginNone {
		s += " " + string(t.Origin)
	}
	return s
}

// callerPrefix begins the path of who calls; no socket's path, which is absolute, does.
const callerPrefix = "atrn:"

// Caller is the path that stands for the connections which a user makes to us,
// to be given mail over them (RFC 2645).
func Caller(user string) string { return callerPrefix + user }

// Calls tells whether nothing is connected to: the server there connects to us.
func (e Endpoint) Calls() bool { return strings.HasPrefix(e.Path, callerPrefix) }

// Endpoint is what a connection is made to, an address and port or a Unix
// socket, or who makes it, and on what terms.
type Endpoint struct {
	netip.AddrPort
	Path string
	// Terms are what a route asks for: an account, a stricter TLS rule, the origin. A server
	// that does not meet them serves others all the same, so that its health and
	// its connections are kept apart. Names matter only where they are verified:
	// domains that share a server share its connections.
	Terms string
}

// IsValid tells whether there is something to connect to.
func (e Endpoint) IsValid() bool { return e.Path != "" || e.AddrPort.IsValid() }

// String is the address and port, or the path.
func (e Endpoint) String() string {
	if e.Path != "" {
		return e.Path
	}
	return e.AddrPort.String()
}

// Dropped is a target, or one address of it, that is left out.
type Dropped struct {
	Host     string
	Addr     netip.Addr // zero: the whole target
	Port     uint16
	Way      int
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

// failed tells whether a look-up came to nothing, so that it says nothing.
func (l Lookup) failed() bool {
	return l.Problem != "" && l.Problem != problemNXDomain && l.Problem != problemNoData
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
	Implicit bool // TLS from the first byte
	// For level TLSVerify: the certificate is for one of these names, or for one
	// of these services (SRV-ID, "_submission.example.org", RFC 4985).
	Names      []string
	Services   []string
	Roots      *x509.CertPool // nil: the system's
	ServerName string         // SNI
	Why        string

	secure bool // the answer that names the host is secure
}

// SRVFailed tells whether a look-up of SRV records came to nothing, so that
// nothing is known about them.
func (p Plan) SRVFailed() bool {
	for _, l := range p.Answers {
		if l.Type == "SRV" && l.failed() {
			return true
		}
	}
	return false
}

// Words is the plan in a line for people: where to, in which order, and what is
// left out, why.
func (p Plan) Words() string {
	var parts []string
	for _, t := range p.Targets {
		to := []string{}
		for _, ep := range t.Endpoints() {
			to = append(to, ep.String())
		}
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%d %s %s (TLS: %s)", t.Priority, t.Host, strings.Join(to, ", "), t.TLS.Level)))
	}
	if p.Verdict != queue.Sent {
		parts = append(parts, strings.TrimSpace(p.Verdict.String()+": "+p.Status.Text))
	}
	for _, d := range p.Dropped {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("not %s:%d: %s", d.Host, d.Port, cmp.Or(d.Detail, d.Reason))))
	}
	if p.Source != "" {
		return "by " + p.Source + ": " + strings.Join(parts, "; ")
	}
	return strings.Join(parts, "; ")
}

// Fingerprint is equal for plans that decide alike: the same targets with the
// same rules in the same priorities, whatever order was drawn among equals, or
// the same verdict. It ties an attempt in the log to what explain shows.
func (p Plan) Fingerprint() string {
	if p.print != "" {
		return p.print
	}
	lines := []string{fmt.Sprintf("%s %s %v %v %s", p.Hop, p.Verdict, p.Alarm, p.Partial, p.Status.Reason)}
	for _, t := range p.Targets {
		for _, ep := range t.Endpoints() {
			lines = append(lines, string(t.Origin)+fmt.Sprintf("%d %d %d %s %s %s %v %q", t.Way, t.Priority, t.Weight, t.Host, ep, t.TLS.Level, t.TLS.Implicit, t.TLS.Names))
		}
	}
	for _, d := range p.Dropped {
		lines = append(lines, fmt.Sprintf("- %d %s %s %d %s", d.Way, d.Host, d.Addr, d.Port, d.Reason))
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:6])
}
