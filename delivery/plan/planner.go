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

// Planner makes plans. It keeps no state of its own, but for a short-lived list
// of the machine's addresses, and may be used concurrently.
type Planner struct {
	cfg      Config
	resolver dnsutil.Resolver
	memory   Memory
	own      *own
	guard    *Guard
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
	return &Planner{cfg: cfg, resolver: r, memory: mem, own: o, guard: newGuard(cfg.Egress, cfg.MXPort, o)}
}

// Plan says where mail for a domain is to go now. The domain may be a name in
// any form or an address literal. There is no error: what fails is a verdict.
// When ctx ends, the plan is a deferral that says nothing about the domain.
func (p *Planner) Plan(ctx context.Context, domain string) Plan {
	return p.plan(ctx, domain, false)
}

// PlanMX is Plan without SRV: for a domain whose SRV targets all want
// authentication, so that its records are for submission, not for mail transfer.
func (p *Planner) PlanMX(ctx context.Context, domain string) Plan {
	return p.plan(ctx, domain, true)
}

// Refused asks the guard right before ap is dialled for mail to a domain; ""
// allows it, else it is the reason code.
func (p *Planner) Refused(domain string, ap netip.AddrPort) string {
	if r := p.guard.Check(ap, inDomains(domain, p.cfg.RelayDomains)); r != nil {
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
	relay bool // the domain is one of ours: nothing fails for good
}

func (p *Planner) plan(ctx context.Context, domain string, withoutSRV bool) Plan {
	name, err := NormalizeDomain(domain)
	if err != nil {
		shown := strconv.QuoteToASCII(domain[:min(len(domain), maxDomain)])
		return Plan{Domain: shown, Verdict: queue.Fail, Status: *failure("5.1.2", queue.ReasonBadDomain, "%v", err)}
	}
	d := &draft{Planner: p, plan: Plan{Domain: name}, relay: inDomains(name, p.cfg.RelayDomains)}
	d.conclude(d.build(ctx, withoutSRV))
	return d.plan
}

// build walks the steps from the domain to the targets. It returns the status
// that stands in the way, or nil when there are targets.
func (d *draft) build(ctx context.Context, withoutSRV bool) *queue.Status {
	var cands []candidate
	var st *queue.Status
	if a, err := parseLiteral(d.plan.Domain); err == nil {
		d.plan.Source = queue.ReasonLiteral
		cands = []candidate{{port: d.cfg.MXPort, addrs: []netip.Addr{plain(a)}}}
	} else {
		cands, st = d.named(ctx, withoutSRV)
	}
	if st != nil {
		return st
	}
	return d.choose(cands)
}

// named finds the candidates for a domain name: SRV, else MX, else itself.
func (d *draft) named(ctx context.Context, withoutSRV bool) ([]candidate, *queue.Status) {
	if withoutSRV {
		d.note("SRV records left aside: their targets take no mail without authentication")
	} else if cands, st := d.fromSRV(ctx); st != nil || cands != nil {
		return d.withAddresses(ctx, cands, st)
	}
	if !d.cfg.MXFallback {
		return nil, failure("5.4.4", queue.ReasonNoSRV, "%s has no usable SRV records, and nothing else is asked (mx_fallback is off)", d.plan.Domain)
	}
	if cands, st := d.fromMX(ctx); st != nil || cands != nil {
		return d.withAddresses(ctx, cands, st)
	}
	return d.fromAddress(ctx)
}

// conclude sets the verdict. Mail for a relay domain of ours was promised to
// be carried home: a hiccup of its DNS must not bounce it.
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
	if !d.relay {
		d.plan.Verdict = queue.Fail
		return
	}
	d.plan.Status.Code = "4" + st.Code[1:]
	d.plan.Alarm = true
	d.note("%s is one of relay_domains: its mail waits instead of failing", d.plan.Domain)
}

func (d *draft) note(format string, args ...any) {
	d.plan.Notes = append(d.plan.Notes, fmt.Sprintf(format, args...))
}

// failure makes a status in words for the sender of a message: it must not
// show internal addresses.
func failure(code, reason, format string, args ...any) *queue.Status {
	return &queue.Status{Code: code, Reason: reason, Text: fmt.Sprintf(format, args...)}
}
