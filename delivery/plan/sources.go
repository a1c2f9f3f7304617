package plan

import (
	"context"
	"errors"
	"fmt"
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

// fromSRV asks for the services in order; the first with records decides. No
// candidates and no status means that there are no SRV records.
func (d *draft) fromSRV(ctx context.Context) ([]candidate, *queue.Status) {
	for _, service := range d.cfg.Services {
		name := service + "." + d.plan.Domain
		ans, err := d.resolver.SRV(ctx, name)
		d.answered(lookupOf(name, "SRV", ans, err, srvText))
		switch {
		case err == nil && len(ans.Records) > 0:
			d.plan.Source = queue.ReasonSRV
			return d.srvCandidates(ans)
		case err == nil || isNotFound(err):
			continue
		case !d.mayIgnoreSRV():
			return nil, lookupFailed(name, err)
		}
		d.note("%s: SRV look-ups have been failing for long, and no SRV record was ever seen: taken for absent (%s)",
			name, queue.ReasonSRVUnanswered)
	}
	return nil, nil
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
func (d *draft) srvCandidates(ans dnsutil.Answer[dnsutil.SRV]) ([]candidate, *queue.Status) {
	host := func(rr dnsutil.SRV) string { return rr.Target }
	if onlyRoot(ans, host) {
		return nil, failure("5.1.2", queue.ReasonNullSRV, "%s accepts no mail: its SRV record says that the service is not available", d.plan.Domain)
	}
	cands := make([]candidate, 0, len(ans.Records)) // not nil: there are SRV records, so that MX is not asked
	for _, rr := range ans.Records {
		c := candidate{host: rr.Target, port: rr.Port, priority: rr.Priority, weight: rr.Weight}
		if rr.Target == "." {
			d.drop(c, queue.ReasonRootTarget, `"." beside other SRV records says nothing and is ignored`)
			continue
		}
		cands = append(cands, c)
	}
	return cands, nil
}

// fromMX asks for MX. No candidates and no status means that there are none.
func (d *draft) fromMX(ctx context.Context) ([]candidate, *queue.Status) {
	ans, err := d.resolver.MX(ctx, d.plan.Domain)
	d.answered(lookupOf(d.plan.Domain, "MX", ans, err, mxText))
	switch {
	case err == nil && len(ans.Records) > 0:
		d.plan.Source = queue.ReasonMX
		return d.mxCandidates(ans)
	case err == nil || isNotFound(err):
		return nil, nil
	}
	return nil, lookupFailed(d.plan.Domain, err)
}

func (d *draft) mxCandidates(ans dnsutil.Answer[dnsutil.MX]) ([]candidate, *queue.Status) {
	host := func(rr dnsutil.MX) string { return rr.Host }
	if onlyRoot(ans, host) {
		return nil, failure("5.1.10", queue.ReasonNullMX, "%s accepts no mail: it says so with a null MX record", d.plan.Domain) // RFC 7505
	}
	cands := make([]candidate, 0, len(ans.Records))
	for _, rr := range ans.Records {
		c := candidate{host: rr.Host, port: d.cfg.MXPort, priority: rr.Preference}
		if rr.Host == "." {
			d.drop(c, queue.ReasonRootTarget, `"." beside other MX records says nothing and is ignored`)
			continue
		}
		cands = append(cands, c)
	}
	return cands, nil
}

// onlyRoot tells whether an answer is "." and nothing else.
func onlyRoot[R any](ans dnsutil.Answer[R], host func(R) string) bool {
	return len(ans.Records) == 1 && ans.Cut == 0 && host(ans.Records[0]) == "."
}

// fromAddress is the last resort: the domain's own addresses (RFC 5321 5.1,
// "implicit MX").
func (d *draft) fromAddress(ctx context.Context) ([]candidate, *queue.Status) {
	name := d.plan.Domain
	ans, err := d.resolver.Addrs(ctx, name)
	d.answered(lookupOf(name, "A/AAAA", ans, err, addrText))
	if none, ok := errors.AsType[*dnsutil.NotFound](err); ok && none.NXDomain {
		return nil, failure("5.1.2", queue.ReasonNoSuchDomain, "the domain %s does not exist", name)
	}
	switch {
	case err != nil && !isNotFound(err):
		return nil, lookupFailed(name, err)
	case len(ans.Records) == 0:
		return nil, failure("5.4.4", queue.ReasonNoAddress, "%s has no mail server: neither SRV, MX nor address records", name)
	}
	d.plan.Source = queue.ReasonAddress
	return []candidate{{host: name, port: d.cfg.MXPort, addrs: interleave(ans.Records)}}, nil
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
