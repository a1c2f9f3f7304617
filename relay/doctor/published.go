package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/dnsutil"
	"srvrelay/queue"
	"srvrelay/relay/config"
	"srvrelay/relay/dkim"
)

// Domain is whose published records are looked at.
type Domain struct {
	Name    string // A-labels
	Keys    []Key  // that sign its mail here, or are kept to
	Hidden  bool   // this user may not read some of the keys
	Route   string // of this relay, that takes its mail past what is published; "" = none
	Dynamic bool   // the addresses of its servers may change at any time

	Elsewhere bool // this machine is no relay: only what is published is judged
}

// Key is a DKIM key of the configuration.
type Key struct {
	dkim.Key
	Signs bool // false: kept for a change of keys
}

// published is all that is known about a domain when it is judged: what the
// DNS says, what the planner makes of it, and what the servers say.
type published struct {
	Domain
	hostname string              // of this relay
	own      map[netip.Addr]bool // its addresses
	relayed  bool                // it takes the domain's mail
	routed   bool                // its mail does not go from here: by a route, or there is no relay here
	connect  bool
	trustAD  bool                // the resolver is believed that an answer is signed
	chain    []*x509.Certificate // of this relay, as far as it stays
	newKeys  bool                // this relay's certificate gets new keys by itself
	now      time.Time

	srv    looked[dnsutil.SRV]
	mx     looked[dnsutil.MX]
	texts  looked[string] // of the domain itself
	keys   []looked[string]
	tlsa   []keyed // a server each
	beyond []keyed // servers whose records were not asked for, as there are too many

	tlsrpt, mtasts, dmarc looked[string]
	dmarcAt               string // the domain whose DMARC record it is

	plan    plan.Plan // of who knows SRV
	mxPlan  plan.Plan // of everybody else
	senders []sender
	tried   []visit
}

// looked is what came of a look-up.
type looked[R any] struct {
	dnsutil.Answer[R]
	err error
}

// none tells whether there is decidedly nothing.
func (l looked[R]) none() bool {
	_, none := errors.AsType[*dnsutil.NotFound](l.err)
	return none || l.err == nil && len(l.Records) == 0
}

// unknown tells whether nobody answered.
func (l looked[R]) unknown() bool { return l.err != nil && !l.none() }

// sender is an address of ours and what SPF says of it.
type sender struct {
	addr   netip.Addr
	result string // of RFC 7208 2.6
}

// visit is a try to reach a server.
type visit struct {
	host   string
	ep     netip.AddrPort
	mx     bool
	banner string
	err    error
	chain  []*x509.Certificate // asked for if its key is published
	tls    error               // why there is none
}

// CheckDomain looks at what is published for a domain, and returns what is to be
// said of it, the worst first.
func CheckDomain(ctx context.Context, e *Env, d Domain) []Finding {
	ctx, cancel := context.WithTimeout(ctx, 2*Limit)
	defer cancel()
	p := e.look(ctx, d)
	var found []Finding
	for _, j := range judges {
		for _, f := range j.judge(p) {
			f.Check = j.name
			found = append(found, f)
		}
	}
	if !p.routed {
		for _, f := range checkHostname(ctx, e) {
			f.Check = checkPTR
			found = append(found, f)
		}
	}
	return sorted(found)
}

// DomainChecks are the names of what CheckDomain judges.
func DomainChecks() (names []string) {
	for _, j := range judges {
		names = append(names, j.name)
	}
	return append(names, checkPTR)
}

const checkPTR = "PTR"

// look collects what is to be judged.
func (e *Env) look(ctx context.Context, d Domain) published {
	p := published{
		Domain: d, hostname: e.Config.Hostname, own: e.own(), connect: e.Connect, routed: e.allRouted() || d.Elsewhere,
		relayed: e.has(config.Inbound, nil) && slices.ContainsFunc(e.Config.RelayDomains, func(r string) bool {
			return r == d.Name || strings.HasPrefix(r, ".") && strings.HasSuffix(d.Name, r)
		}),
		keys:    make([]looked[string], len(d.Keys)),
		trustAD: e.Config.DNS.TrustAD, chain: e.ownChain(), now: e.Now(),
		newKeys: e.Config.TLS.ACME.On() || e.Config.TLS.Certificate == "",
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.srv.Answer, p.srv.err = e.Resolver.SRV(ctx, "_smtp._tcp."+d.Name) })
	wg.Go(func() { p.mx.Answer, p.mx.err = e.Resolver.MX(ctx, d.Name) })
	wg.Go(func() { p.texts.Answer, p.texts.err = e.Resolver.TXT(ctx, d.Name) })
	wg.Go(func() { p.tlsrpt.Answer, p.tlsrpt.err = e.Resolver.TXT(ctx, "_smtp._tls."+d.Name) })
	wg.Go(func() { p.mtasts.Answer, p.mtasts.err = e.Resolver.TXT(ctx, "_mta-sts."+d.Name) })
	wg.Go(func() { p.dmarc, p.dmarcAt = e.dmarcOf(ctx, d.Name) })
	for i, k := range d.Keys {
		wg.Go(func() { p.keys[i].Answer, p.keys[i].err = e.Resolver.TXT(ctx, k.Name()) })
	}
	wg.Go(func() { p.plan = e.Plan(ctx, d.Name) })
	wg.Go(func() { p.mxPlan = e.PlanMX(ctx, d.Name) })
	if !p.routed {
		wg.Go(func() { p.senders = e.senders(ctx, d.Name) })
	}
	wg.Wait()
	p.tlsa, p.beyond = e.keysOf(ctx, p)
	if e.Connect {
		p.tried = e.visits(ctx, p)
	}
	return p
}

// senders are the public addresses that our mail comes from.
func (e *Env) senders(ctx context.Context, domain string) (all []sender) {
	var addrs []netip.Addr
	for _, p := range e.Config.PublicAddresses {
		addrs = append(addrs, p.Addr().Unmap())
	}
	if len(addrs) == 0 {
		mine, _ := e.Machine.Addresses() // without: nothing can be said
		for _, a := range mine {
			if a = a.Unmap(); a.IsGlobalUnicast() && !a.IsPrivate() && a.Zone() == "" {
				addrs = append(addrs, a)
			}
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	for _, a := range addrs[:min(len(addrs), maxOwn)] {
		all = append(all, sender{a, e.SPF(ctx, a, domain)})
	}
	return all
}

// maxVisits bounds how many addresses are connected to.
const maxVisits = 12

// visits connects to the servers of both plans, which have been through the
// egress guard.
func (e *Env) visits(ctx context.Context, p published) (all []visit) {
	var starts []func(net.Conn) net.Conn
	add := func(targets []plan.Target, mx bool) {
		for _, t := range targets {
			for _, ep := range t.Endpoints() {
				if len(all) == maxVisits || !ep.AddrPort.IsValid() {
					continue
				}
				var start func(net.Conn) net.Conn
				if t.TLS.Implicit {
					start = implicitTLS
				}
				all, starts = append(all, visit{host: t.Host, ep: ep.AddrPort, mx: mx}), append(starts, start)
			}
		}
	}
	if p.bySRV() {
		add(p.plan.Targets, false)
	}
	add(p.mxPlan.Targets, true)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			c, err := e.connect(ctx, all[i].ep.String(), starts[i])
			if all[i].err = err; err == nil {
				all[i].banner = c.banner
				if p.hasKey(all[i].host, all[i].ep.Port()) {
					all[i].chain, all[i].tls = c.certificate(p.hostname, all[i].host)
				}
				c.quit()
			}
		})
	}
	wg.Wait()
	return all
}

// hasKey tells whether the key of a server is published.
func (p published) hasKey(host string, port uint16) bool {
	return slices.ContainsFunc(p.tlsa, func(k keyed) bool { return k.Host == host && k.Port == port && len(k.usable()) > 0 })
}

// bySRV tells whether who knows SRV goes by it.
func (p published) bySRV() bool { return len(p.srv.Records) > 0 }

// answer is what the planner found of a host's addresses.
func (p published) answer(host string) (plan.Lookup, bool) {
	for _, l := range append(slices.Clone(p.plan.Answers), p.mxPlan.Answers...) {
		if l.Name == host && l.Type == "A/AAAA" {
			return l, true
		}
	}
	return plan.Lookup{}, false
}

// ours tells whether a host is this relay's machine.
func (p published) ours(host string) bool {
	if host == p.hostname {
		return true
	}
	l, _ := p.answer(host)
	return slices.ContainsFunc(l.Records, func(text string) bool {
		a, err := netip.ParseAddr(text)
		return err == nil && p.own[a.Unmap()]
	})
}

// isHome tells whether the SRV records name this relay at a port that the rest of the
// world does not try.
func (p published) isHome() bool {
	return slices.ContainsFunc(p.srv.Records, func(rr dnsutil.SRV) bool { return rr.Port != 25 && rr.Target != "." && p.ours(rr.Target) })
}

// edge is the host to name in records: this relay, if it has a name.
func (p published) edge() string {
	if strings.Contains(p.hostname, ".") && !p.routed {
		return p.hostname
	}
	return "mail." + p.Name
}

// self tells whether a plan leaves a host out because it is this relay itself.
func self(pl plan.Plan, host string) bool {
	return slices.ContainsFunc(pl.Dropped, func(d plan.Dropped) bool { return d.Reason == queue.ReasonSelf && (host == "" || d.Host == host) })
}
