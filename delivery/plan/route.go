package plan

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"srvrelay/queue"
)

// Route is one entry of the operator's list: whose mail it is for, and what
// becomes of it.
type Route struct {
	Name    string   // for people; unique; "" takes the first next hop's
	Domains []string // normalised: exact, ".x.example" for all below it, or "*"; none: every domain
	Senders []string // "user@x.example", "@x.example", "@.x.example", "<>" (null sender); none: every sender
	Action  Action
	Text    string    // Reject: for the sender
	To      []NextHop // Deliver: in order of preference; none: by the rules
	Times   Times     // filled in; without a schedule: those of all mail
}

// Times say when mail is tried again and given up: what we carry home for a
// relay domain may wait for a machine that is away, other mail has a sender who
// waits for an answer.
type Times struct{ Home, Other queue.Retry }

// of is the times of a domain's mail.
func (t Times) of(home bool) queue.Retry {
	if home {
		return t.Home
	}
	return t.Other
}

// Action says what becomes of mail that a route matches.
type Action string

const (
	Deliver Action = "deliver" // "" too
	Hold    Action = "hold"
	Reject  Action = "reject"
)

// setsAside tells whether nothing is delivered.
func (a Action) setsAside() bool { return a == Hold || a == Reject }

// NextHop is one way that a route names.
type NextHop struct {
	URL string // as the operator wrote it, for people

	Kind    Kind
	Host    string // Host: a name or an address; Service: the domain that has the SRV records
	Port    uint16 // Host
	Path    string // Host, LMTP: a Unix socket instead of Host and Port
	Service string // Service: "_submission._tcp"
	LMTP    bool

	Level    TLSLevel
	Implicit bool
	Names    []string       // accepted in certificates beside what the rules say; Level verify
	Roots    *x509.CertPool // nil: the system's
	Login    *Login         // nil: no AUTH
	Origin   Origin

	// SRVAbsent takes a failed SRV look-up for "no SRV records" at once, so that
	// MX is asked (the key srv_errors). ByRules only.
	SRVAbsent bool
}

// Kind says where the targets of a next hop come from.
type Kind uint8

const (
	ByRules   Kind = iota // "dns:": SRV, MX, addresses of the recipient's domain
	ByMX                  // "mx:": without SRV
	ByHost                // the addresses of a host that the operator wrote
	ByService             // SRV records of a domain that the operator wrote
	ByCaller              // "atrn:": who has connected to us for the mail of the recipient's domain
)

// perDomain tells whether the next hop depends on the recipient's domain.
func (k Kind) perDomain() bool { return k == ByRules || k == ByMX || k == ByCaller }

// ours tells whether the operator, and not the recipient's domain, says where
// the next hop leads: what it lacks is his to mend.
func (k Kind) ours() bool { return k == ByHost || k == ByService || k == ByCaller }

// Home is a machine that may call for its mail.
type Home struct {
	User    string
	Domains []string // normalised: exact, or ".x.example" for all below it
}

// homeOf is the user who may call for the mail of a domain (A-labels, lower
// case); false: nobody. Of several the one whose entry says most of it: the domain
// itself, else the longest that it is below.
func homeOf(homes []Home, domain string) (user string, ok bool) {
	most := 0
	for _, h := range homes {
		for _, d := range h.Domains {
			says := len(d)
			if d == domain {
				says++
			}
			if inDomains(domain, []string{d}) && says > most {
				user, most = h.User, says
			}
		}
	}
	return user, most > 0
}

// Origin is how a server is told from whom a message is.
type Origin string

const (
	OriginNone    Origin = ""        // not at all
	OriginXClient Origin = "xclient" // by XCLIENT, if it offers that to us
	OriginProxy   Origin = "proxy"   // by a PROXY protocol header, which it demands of us
)

// Login is an account at a next hop. It shows itself without the password.
type Login struct {
	User     string
	Password string
	Ways     string // how it may be proved: a smtpclient.Ways
	Tokens   Tokens // instead of a password; nil: none
}

// Tokens has the OAuth access tokens of an account (RFC 6749 1.4).
type Tokens interface {
	// Token returns one that may be taken. Its errors tell no secret.
	Token(context.Context) (string, error)
	// Refused says that a server did not take a token: it is not to come again.
	Refused(token string)
}

func (l Login) String() string       { return l.User }
func (l Login) GoString() string     { return fmt.Sprintf("plan.Login{%q}", l.User) }
func (l Login) LogValue() slog.Value { return slog.StringValue(l.User) }

// Routes is the operator's list. It does not change, and its answers depend on
// nothing else. A nil *Routes has no routes.
type Routes struct {
	list  []Route
	hops  []string // of each route
	index map[string]int
	relay []string // relay_domains, which "*" leaves out
	times Times
}

// NewRoutes makes a list. relayDomains and times are those of the
// configuration; a route's own times come filled in.
func NewRoutes(list []Route, relayDomains []string, times Times) *Routes {
	rs := &Routes{list: list, relay: relayDomains, times: times, index: map[string]int{}}
	for i, r := range list {
		h := r.label()
		if _, taken := rs.index[h]; taken {
			h = fmt.Sprintf("%s (route %d)", h, i+1)
		}
		rs.index[h] = i
		rs.hops = append(rs.hops, h)
	}
	return rs
}

// label is what people see of a route. It is never a domain, nor what another
// route could be called for its name.
func (r Route) label() string {
	switch {
	case r.Name != "":
		return "route " + r.Name
	case r.Action.setsAside():
		return "route " + string(r.Action)
	case len(r.To) > 0:
		return r.To[0].URL
	}
	return "dns:"
}

// nextHops are the ways of a route; without any it delivers by the rules.
func (r *Route) nextHops() []NextHop {
	if r == nil || len(r.To) == 0 {
		return byRules
	}
	return r.To
}

var byRules = []NextHop{{URL: "dns:", Kind: ByRules, Level: TLSMay}}

// via stands between a domain and a route in the name of a hop.
const via = " via "

// perDomain tells whether each domain that the route matches is a hop of its own.
func (r *Route) perDomain() bool {
	if r.Action.setsAside() {
		return false
	}
	for _, n := range r.nextHops() {
		if n.Kind.perDomain() {
			return true
		}
	}
	return false
}

// HopOf says who is asked to take the mail: the recipient's domain itself, or
// the route that it matches. A recipient that somebody has released is not
// held again: routes that hold are passed over for it.
func (rs *Routes) HopOf(sender, domain string, released bool) string {
	i := rs.match(sender, domain, released)
	switch {
	case i < 0:
		return domain
	case rs.list[i].perDomain():
		return domain + via + rs.hops[i]
	}
	return rs.hops[i]
}

// match returns the index of the first route that matches, -1 for none.
func (rs *Routes) match(sender, domain string, released bool) int {
	if rs == nil {
		return -1
	}
	for i := range rs.list {
		if rs.matches(&rs.list[i], sender, domain, released) {
			return i
		}
	}
	return -1
}

func (rs *Routes) matches(r *Route, sender, domain string, released bool) bool {
	return rs.hasDomain(r, domain) && hasSender(r.Senders, sender) && !(r.Action == Hold && released)
}

// whyNot says why a route does not match, for people.
func (rs *Routes) whyNot(r *Route, sender, domain string) string {
	switch {
	case !rs.hasDomain(r, domain) && inDomains(domain, rs.relay) && slices.Contains(r.Domains, "*"):
		return "* does not include relay_domains"
	case !rs.hasDomain(r, domain):
		return "only for " + fewOf(r.Domains)
	case !hasSender(r.Senders, sender):
		return "only from " + fewOf(r.Senders)
	}
	return "released: not held again"
}

// fewOf names the first few of a list.
func fewOf(list []string) string {
	const few = 3
	if len(list) <= few {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:few], ", "), len(list)-few)
}

func (rs *Routes) hasDomain(r *Route, domain string) bool {
	return len(r.Domains) == 0 || inDomains(domain, r.Domains) ||
		slices.Contains(r.Domains, "*") && !inDomains(domain, rs.relay)
}

// hasSender tells whether a list of sender patterns, or none, includes a sender.
func hasSender(patterns []string, sender string) bool {
	if len(patterns) == 0 {
		return true
	}
	local, domain := "", ""
	if i := strings.LastIndexByte(sender, '@'); i >= 0 {
		local, domain = sender[:i], sender[i+1:]
		if name, err := NormalizeDomain(domain); err == nil {
			domain = name
		}
	}
	for _, p := range patterns {
		user, of, address := strings.Cut(p, "@")
		switch {
		case p == "<>":
			if sender == "" {
				return true
			}
		case !address || sender == "":
		case (user == "" || strings.EqualFold(user, local)) && inDomains(domain, []string{of}):
			return true
		}
	}
	return false
}

// find is the route and the domain that a hop stands for. ok is false for the
// hop of a route that is not there any more.
func (rs *Routes) find(hop string) (r *Route, domain string, ok bool) {
	if r = rs.labelled(hop); r != nil && !r.perDomain() { // first: the path of a socket may say anything
		return r, "", true
	}
	domain, label, below := strings.Cut(hop, via)
	if r = rs.labelled(label); below && r != nil && r.perDomain() {
		return r, domain, true
	}
	return nil, hop, !below && !isLabel(hop)
}

// DomainOf is the domain that a hop is of; "" for that of a route, which carries
// the mail of many.
func (rs *Routes) DomainOf(hop string) string {
	_, domain, _ := rs.find(hop)
	return domain
}

// Ours tells whether the operator says where a hop leads, by a route or as it is
// of a relay domain: what is wrong there is his to mend.
func (rs *Routes) Ours(hop string) bool {
	r, domain, _ := rs.find(hop)
	if rs != nil && domain != "" && inDomains(domain, rs.relay) {
		return true
	}
	return r != nil && slices.ContainsFunc(r.nextHops(), func(n NextHop) bool { return n.Kind.ours() })
}

// labelled is the route with a label; nil when there is none.
func (rs *Routes) labelled(label string) *Route {
	if rs == nil {
		return nil
	}
	i, there := rs.index[label]
	if !there {
		return nil
	}
	return &rs.list[i]
}

// isLabel tells whether a hop is called as Route.label calls routes.
func isLabel(hop string) bool {
	return strings.HasPrefix(hop, "route ") || strings.Contains(hop, "://") || hop == "dns:" || hop == "mx:" || hop == "atrn:"
}

// Retry returns the times of mail to a domain that waits for a hop.
func (rs *Routes) Retry(hop, domain string) queue.Retry {
	times := rs.times
	if r, _, ok := rs.find(hop); ok && r != nil && len(r.Times.Other.Schedule) > 0 {
		times = r.Times
	}
	return times.of(inDomains(domain, rs.relay))
}

// Refused is the text of the route that rejects mail, as the doors ask.
func (rs *Routes) Refused(sender, domain string) (text string, refused bool) {
	i := rs.match(sender, domain, false)
	if i < 0 || rs.list[i].Action != Reject {
		return "", false
	}
	return rs.list[i].Text, true
}

// Looked is one route that was looked at on the way to the one that matches.
type Looked struct {
	Number  int    // in the list, from 1
	Route   string // its label
	Matched bool
	Why     string // why not
}

// Look goes through the routes as HopOf does, for people.
func (rs *Routes) Look(sender, domain string, released bool) (looked []Looked) {
	if rs == nil {
		return nil
	}
	for i := range rs.list {
		r := &rs.list[i]
		l := Looked{Number: i + 1, Route: rs.hops[i], Matched: rs.matches(r, sender, domain, released)}
		if !l.Matched {
			l.Why = rs.whyNot(r, sender, domain)
		}
		looked = append(looked, l)
		if l.Matched {
			break
		}
	}
	return looked
}

// Fingerprint is equal for lists that name hops, and times, alike. Passwords
// have no part in it.
func (rs *Routes) Fingerprint() string {
	if rs == nil {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "relay %q; %v", rs.relay, rs.times)
	for i, r := range rs.list {
		fmt.Fprintf(&b, "; %q %q %q %q %v %v", rs.hops[i], r.Domains, r.Senders, r.Action, r.perDomain(), r.Times)
	}
	return b.String()
}
