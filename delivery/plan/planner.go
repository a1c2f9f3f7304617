package plan

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"

	"srvrelay/dnsutil"
	"srvrelay/queue"
)

// Config is what the rules depend on beside DNS.
type Config struct {
	Services     []string // SRV services in order of preference; default _smtp._tcp
	MXFallback   bool     // without SRV records, use MX and then the domain's own addresses
	MXPort       uint16   // default 25
	RelayDomains []string // ours, normalised: "home.example.org", or ".example.org" for all below it
	Routes       *Routes  // nil: none
	Homes        []Home   // who may call for the mail of which domains
	Own          Own
	Egress       Egress
	// Rand returns a uniform number in [0, n); nil is math/rand/v2.
	Rand func(n uint32) uint32
}

// Memory is what earlier attempts have learned about a domain.
type Memory interface {
	// SawSRV tells whether the domain was ever seen with SRV records.
	SawSRV(domain string) bool
	// DNSFailures tells how many attempts in a row got no SRV answer (see
	// Plan.SRVFailed), and when the first of them was.
	DNSFailures(domain string) (n int, since time.Time)
}

// Planner makes plans, and may be used concurrently. What it keeps lives no longer
// than DNS allows: plans until an answer's TTL ends, the machine's addresses for
// some seconds.
type Planner struct {
	cfg      Config
	resolver dnsutil.Resolver
	memory   Memory
	own      *own
	guard    *Guard
	recall   recall
}

// New makes a Planner. Without a memory (nil) a domain whose SRV look-ups fail
// is deferred however long that lasts.
func New(cfg Config, r dnsutil.Resolver, mem Memory) *Planner {
	if len(cfg.Services) == 0 {
		cfg.Services = []string{"_smtp._tcp"}
	}
	if cfg.MXPort == 0 {
		cfg.MXPort = 25
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Uint32N
	}
	o := newOwn(cfg.Own)
	return &Planner{
		cfg: cfg, resolver: r, memory: mem, own: o, guard: newGuard(cfg.Egress, cfg.MXPort, o),
		recall: recall{plans: map[asked]*kept{}},
	}
}

// Plan says where the mail of a hop is to go now. The hop is what Routes.HopOf
// says: a domain, in any form, or an address literal, or the name of a route.
// There is no error: what fails is a verdict. When ctx ends, the plan is a
// deferral that says nothing about the domain.
func (p *Planner) Plan(ctx context.Context, hop string) Plan { return p.recalled(ctx, hop, false) }

// PlanMX is Plan without SRV: for a domain whose SRV targets all want
// authentication, so that its records are for submission, not for mail transfer.
func (p *Planner) PlanMX(ctx context.Context, hop string) Plan { return p.recalled(ctx, hop, true) }

// recalled is the plan that is kept for a hop, or a new one.
func (p *Planner) recalled(ctx context.Context, hop string, withoutSRV bool) Plan {
	now, q := time.Now(), asked{hop, withoutSRV}
	own := p.own.now(now)
	if ctx.Err() == nil {
		if pl, ok := p.recall.get(q, own, now, p.cfg.Rand); ok {
			return pl
		}
	}
	pl := p.plan(ctx, hop, withoutSRV)
	p.recall.put(q, &pl, own, now)
	return pl
}

// Routes are the routes that the planner knows.
func (p *Planner) Routes() *Routes { return p.cfg.Routes }

// HopOf is that of the planner's routes.
func (p *Planner) HopOf(sender, domain string, released bool) string {
	return p.cfg.Routes.HopOf(sender, domain, released)
}

// Home tells whether a domain is one that we carry mail home for.
func (p *Planner) Home(domain string) bool { return inDomains(domain, p.cfg.RelayDomains) }

// Refused asks the guard right before ap is dialled for mail to a domain; ""
// allows it, else it is the reason code.
func (p *Planner) Refused(domain string, ap netip.AddrPort) string {
	if r := p.guard.Check(ap, p.Home(domain)); r != nil {
		return r.Reason
	}
	return ""
}

// Guard returns the guard that the plans are made with.
func (p *Planner) Guard() *Guard { return p.guard }

// draft is a plan in the making.
type draft struct {
	*Planner
	plan  Plan
	route *Route // nil: none matched
	relay bool   // the domain is one of ours: nothing fails for good
	// ours: what stands in the way is what the operator wrote, and nothing that
	// the recipient or his domain could help.
	ours bool
}

func (p *Planner) plan(ctx context.Context, hop string, withoutSRV bool) Plan {
	route, domain, known := p.cfg.Routes.find(hop)
	d := &draft{Planner: p, plan: Plan{Hop: hop}, route: route}
	if !known {
		d.conclude(failure("4.3.5", queue.ReasonRouteGone, "the route has changed"))
		return d.plan
	}
	if domain != "" || route == nil {
		name, err := NormalizeDomain(domain)
		if err != nil {
			d.plan.Domain = strconv.QuoteToASCII(domain[:min(len(domain), maxDomain)])
			d.conclude(failure("5.1.2", queue.ReasonBadDomain, "%v", err))
			return d.plan
		}
		d.plan.Domain, d.relay = name, p.Home(name)
	}
	if route != nil && route.Action.setsAside() {
		d.setAside(route)
		return d.plan
	}
	d.conclude(d.build(ctx, withoutSRV))
	return d.plan
}

// setAside is the verdict of a route that does not deliver.
func (d *draft) setAside(r *Route) {
	d.plan.Verdict = queue.Hold
	d.plan.Status = *failure("4.7.1", queue.ReasonRouteHold, "held by the operator's route")
	if r.Action == Reject {
		d.plan.Verdict = queue.Fail
		d.plan.Status = *failure("5.7.1", queue.ReasonRouteReject, "%s", r.Text)
	}
}

// build walks the next hops: one, the rules, without a route. It returns the
// status that stands in the way, or nil when there are targets.
func (d *draft) build(ctx context.Context, withoutSRV bool) *queue.Status {
	var targets []Target
	var why *queue.Status
	for i, n := range d.route.nextHops() {
		found, st, last := d.way(ctx, i, n, withoutSRV)
		targets = append(targets, found...)
		ours := n.Kind.ours()
		if st != nil && (why == nil || d.final(why, d.ours) && !d.final(st, ours)) {
			why, d.ours = st, ours
		}
		if last || !ours && decided(st) {
			break
		}
	}
	d.plan.Partial = why != nil && !d.final(why, d.ours)
	d.plan.Targets = d.limited(d.withoutDuplicates(targets))
	if len(d.plan.Targets) > 0 {
		return nil
	}
	return why
}

// final tells whether a next hop that is left out will be so the next time: as
// long as the recipient's domain says so itself.
func (d *draft) final(st *queue.Status, ours bool) bool {
	return st.Code[0] == '5' && !ours && !d.relay
}

// decided tells whether a status is the domain's own word that it takes no
// mail: then no other way is asked.
func decided(st *queue.Status) bool {
	if st == nil {
		return false
	}
	switch st.Reason {
	case queue.ReasonNullSRV, queue.ReasonNullMX, queue.ReasonNoSuchDomain:
		return true
	}
	return false
}

// way is one next hop: its targets in the order to try, or what stands in the
// way. last is set when no way after it may be used.
func (d *draft) way(ctx context.Context, index int, n NextHop, withoutSRV bool) (targets []Target, st *queue.Status, last bool) {
	before := len(d.plan.Dropped)
	f, st := d.find(ctx, n, withoutSRV)
	if d.plan.Source == "" {
		d.plan.Source = f.source
	}
	if st != nil {
		return nil, st, false
	}
	targets = d.choose(f, n)
	for i := range targets {
		targets[i].Way = index
	}
	dropped := d.plan.Dropped[before:]
	for i := range dropped {
		dropped[i].Way = index
		last = last || dropped[i].Reason == queue.ReasonSelf
	}
	if len(targets) == 0 {
		return nil, d.nothingLeft(n, dropped), last
	}
	return targets, nil, last
}

// conclude sets the verdict. Mail for a relay domain of ours was promised to
// be carried home: a hiccup of its DNS must not bounce it. Nor must a mistake
// in a route.
func (d *draft) conclude(st *queue.Status) {
	if st == nil {
		d.plan.Verdict = queue.Sent
		return
	}
	d.plan.Targets = nil
	d.plan.Status = *st
	d.plan.Verdict = queue.Defer
	if st.Code[0] != '5' {
		return
	}
	switch {
	case d.relay:
		d.note("%s is one of relay_domains: its mail waits instead of failing", d.plan.Domain)
	case d.ours:
		d.note("the route leads nowhere: its mail waits until the configuration, or the DNS of what it names, is mended")
	default:
		d.plan.Verdict = queue.Fail
		return
	}
	d.plan.Status.Code = "4" + st.Code[1:]
	d.plan.Alarm = true
}

func (d *draft) note(format string, args ...any) {
	d.plan.Notes = append(d.plan.Notes, fmt.Sprintf(format, args...))
}

// failure makes a status in words for the sender of a message: it must not
// show internal addresses.
func failure(code, reason, format string, args ...any) *queue.Status {
	return &queue.Status{Code: code, Reason: reason, Text: fmt.Sprintf(format, args...)}
}
