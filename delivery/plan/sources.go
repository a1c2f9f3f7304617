package plan

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"srvrelay/dnsutil"
	"srvrelay/queue"
)

// When SRV look-ups of a domain keep failing, MX is used after so many failed
// attempts over so long a time: there are servers that drop SRV queries.
const (
	patienceAttempts = 3
	patienceTime     = 30 * time.Minute
)

// patienceOver tells whether failed SRV look-ups may be taken for "none". A
// domain that ever had SRV records is never sent another way: somebody who can
// break the look-up must not choose the path.
func patienceOver(failures int, since, now time.Time, sawSRV bool) bool {
	return !sawSRV && failures >= patienceAttempts && now.Sub(since) >= patienceTime
}

// found is where the targets of a next hop come from, and who they are.
type found struct {
	source string // queue.Reason...; "" = nothing was found
	srv    bool   // drawn by SRV's rules, else by MX's
	cands  []candidate
}

// find asks for the candidates of one next hop, with their addresses.
func (d *draft) find(ctx context.Context, n NextHop, withoutSRV bool) (f found, st *queue.Status) {
	switch n.Kind {
	case ByHost:
		f = d.fromHost(n)
	case ByService:
		f, st = d.fromService(ctx, n)
	case ByCaller:
		f, st = d.fromCaller()
	default:
		f, st = d.fromDomain(ctx, n, withoutSRV || n.Kind == ByMX)
	}
	f.cands = d.withAddresses(ctx, f.cands)
	return f, st
}

// fromHost is the host that the operator wrote.
func (d *draft) fromHost(n NextHop) found {
	c := candidate{host: n.Host, port: n.Port, path: n.Path}
	if a, err := netip.ParseAddr(n.Host); err == nil {
		c.addrs = []netip.Addr{plain(a)}
	}
	return found{source: queue.ReasonRoute, cands: []candidate{c}}
}

// fromCaller is the home server that calls for the mail of the domain.
func (d *draft) fromCaller() (found, *queue.Status) {
	user, ok := homeOf(d.cfg.Homes, d.plan.Domain)
	if !ok {
		return found{}, failure("5.3.5", queue.ReasonNoHome, "nobody may call for the mail of %s", d.plan.Domain)
	}
	return found{source: queue.ReasonRoute, cands: []candidate{{path: Caller(user)}}}, nil
}

// fromService asks for the SRV records of a service that the operator wrote
// (RFC 6186).
func (d *draft) fromService(ctx context.Context, n NextHop) (found, *queue.Status) {
	name := n.Service + "." + n.Host
	ans, err := d.askSRV(ctx, name)
	switch {
	case err != nil && !isNotFound(err):
		return found{}, lookupFailed(name, err)
	case err != nil || len(ans.Records) == 0:
		return found{}, failure("5.4.4", queue.ReasonNoSRV, "%s has no SRV records", name)
	}
	f, st := d.srvCandidates(n.Host, ans)
	f.source = queue.ReasonRoute
	return f, st
}

// fromDomain finds the candidates for the recipient's domain by the rules:
// SRV, else MX, else its own addresses.
func (d *draft) fromDomain(ctx context.Context, n NextHop, withoutSRV bool) (found, *queue.Status) {
	if a, err := parseLiteral(d.plan.Domain); err == nil {
		return found{source: queue.ReasonLiteral, cands: []candidate{{port: d.cfg.MXPort, addrs: []netip.Addr{plain(a)}}}}, nil
	}
	if withoutSRV && n.Kind == ByRules {
		d.note("SRV records left aside: their targets take no mail without authentication")
	}
	if !withoutSRV {
		if f, st := d.fromSRV(ctx, n); f.source != "" || st != nil {
			return f, st
		}
	}
	if !d.cfg.MXFallback && n.Kind == ByRules {
		return found{}, failure("5.4.4", queue.ReasonNoSRV, "%s has no usable SRV records, and nothing else is asked (mx_fallback is off)", d.plan.Domain)
	}
	if f, st := d.fromMX(ctx); f.source != "" || st != nil {
		return f, st
	}
	return d.fromAddress(ctx)
}

func (d *draft) askSRV(ctx context.Context, name string) (dnsutil.Answer[dnsutil.SRV], error) {
	ans, err := d.resolver.SRV(ctx, name)
	d.answered(lookupOf(name, "SRV", ans, err, srvText))
	return ans, err
}

// fromSRV asks for the services in order; the first with records decides.
func (d *draft) fromSRV(ctx context.Context, n NextHop) (found, *queue.Status) {
	for _, service := range d.cfg.Services {
		name := service + "." + d.plan.Domain
		ans, err := d.askSRV(ctx, name)
		switch {
		case err == nil && len(ans.Records) > 0:
			return d.srvCandidates(d.plan.Domain, ans)
		case err == nil || isNotFound(err):
			continue
		case n.SRVAbsent:
			d.note("%s: the SRV look-up failed, which the route takes for absent (srv_errors)", name)
			continue
		case !d.mayIgnoreSRV():
			return found{}, lookupFailed(name, err)
		}
		d.note("%s: SRV look-ups have been failing for long, and no SRV record was ever seen: taken for absent (%s)",
			name, queue.ReasonSRVUnanswered)
	}
	return found{}, nil
}

func (d *draft) mayIgnoreSRV() bool {
	if d.memory == nil || !d.cfg.MXFallback {
		return false
	}
	n, since := d.memory.DNSFailures(d.plan.Domain)
	return patienceOver(n, since, time.Now(), d.memory.SawSRV(d.plan.Domain))
}

// srvCandidates reads SRV records. "." says that the service is decidedly not
// available (RFC 2782), but only when nothing else says otherwise.
func (d *draft) srvCandidates(domain string, ans dnsutil.Answer[dnsutil.SRV]) (found, *queue.Status) {
	f := found{source: queue.ReasonSRV, srv: true}
	host := func(rr dnsutil.SRV) string { return rr.Target }
	if onlyRoot(ans, host) {
		return f, failure("5.1.2", queue.ReasonNullSRV, "%s accepts no mail: its SRV record says that the service is not available", domain)
	}
	for _, rr := range ans.Records {
		c := candidate{host: rr.Target, port: rr.Port, priority: rr.Priority, weight: rr.Weight, secure: ans.Secure}
		if rr.Target == "." {
			d.drop(c, queue.ReasonRootTarget, `"." beside other SRV records says nothing and is ignored`)
			continue
		}
		f.cands = append(f.cands, c)
	}
	return f, nil
}

// fromMX asks for MX.
func (d *draft) fromMX(ctx context.Context) (found, *queue.Status) {
	ans, err := d.resolver.MX(ctx, d.plan.Domain)
	d.answered(lookupOf(d.plan.Domain, "MX", ans, err, mxText))
	switch {
	case err == nil && len(ans.Records) > 0:
		return d.mxCandidates(ans)
	case err == nil || isNotFound(err):
		return found{}, nil
	}
	return found{}, lookupFailed(d.plan.Domain, err)
}

func (d *draft) mxCandidates(ans dnsutil.Answer[dnsutil.MX]) (found, *queue.Status) {
	f := found{source: queue.ReasonMX}
	host := func(rr dnsutil.MX) string { return rr.Host }
	if onlyRoot(ans, host) {
		return f, failure("5.1.10", queue.ReasonNullMX, "%s accepts no mail: it says so with a null MX record", d.plan.Domain) // RFC 7505
	}
	for _, rr := range ans.Records {
		c := candidate{host: rr.Host, port: d.cfg.MXPort, priority: rr.Preference, secure: ans.Secure}
		if rr.Host == "." {
			d.drop(c, queue.ReasonRootTarget, `"." beside other MX records says nothing and is ignored`)
			continue
		}
		f.cands = append(f.cands, c)
	}
	return f, nil
}

// onlyRoot tells whether an answer is "." and nothing else.
func onlyRoot[R any](ans dnsutil.Answer[R], host func(R) string) bool {
	return len(ans.Records) == 1 && ans.Cut == 0 && host(ans.Records[0]) == "."
}

// fromAddress is the last resort: the domain's own addresses (RFC 5321 5.1,
// "implicit MX").
func (d *draft) fromAddress(ctx context.Context) (found, *queue.Status) {
	name := d.plan.Domain
	ans, err := d.resolver.Addrs(ctx, name)
	d.answered(lookupOf(name, "A/AAAA", ans, err, addrText))
	if none, ok := errors.AsType[*dnsutil.NotFound](err); ok && none.NXDomain {
		return found{}, failure("5.1.2", queue.ReasonNoSuchDomain, "the domain %s does not exist", name)
	}
	switch {
	case err != nil && !isNotFound(err):
		return found{}, lookupFailed(name, err)
	case len(ans.Records) == 0:
		return found{}, failure("5.4.4", queue.ReasonNoAddress, "%s has no mail server: neither SRV, MX nor address records", name)
	}
	c := candidate{host: name, port: d.cfg.MXPort, addrs: interleave(ans.Records)}
	return found{source: queue.ReasonAddress, cands: []candidate{c}}, nil
}

// lookupFailed is the status for a question that nobody answered.
func lookupFailed(name string, err error) *queue.Status {
	return failure("4.4.3", queue.ReasonDNSFailed, "looking up %s failed: %s", name, problemOf(err))
}

func isNotFound(err error) bool {
	_, ok := errors.AsType[*dnsutil.NotFound](err)
	return ok
}

func srvText(rr dnsutil.SRV) string {
	return fmt.Sprintf("%d %d %d %s", rr.Priority, rr.Weight, rr.Port, rr.Target)
}

func mxText(rr dnsutil.MX) string { return fmt.Sprintf("%d %s", rr.Preference, rr.Host) }
