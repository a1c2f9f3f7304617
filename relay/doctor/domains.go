package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"srvrelay/delivery/plan"
	"srvrelay/dnsutil"
	"srvrelay/queue"
	"srvrelay/relay/config"
)

const (
	maxDomains = 50 // looked at; a monitor should not ask a thousand questions
	atOnce     = 8
)

// checkRelayDomains follows the way of each domain that mail is taken for: on
// from here, and from the world to here.
func checkRelayDomains(ctx context.Context, e *Env) []Finding {
	var names []string
	var found []Finding
	for _, d := range e.Config.RelayDomains {
		if strings.HasPrefix(d, ".") {
			found = append(found, Finding{Level: Skipped, What: d + " stands for every name below it", Fix: "srvrelay explain NAME" + d})
		} else {
			names = append(names, d)
		}
	}
	if n := len(names) - maxDomains; n > 0 {
		found = append(found, skipped("%d of %d relay domains: only the first %d are looked at", n, len(names), maxDomains))
		names = names[:maxDomains]
	}
	results := make([][]Finding, len(names))
	room := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, d := range names {
		wg.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			results[i] = append(e.onward(ctx, d), e.inward(ctx, d)...)
		})
	}
	wg.Wait()
	return append(slices.Concat(results...), found...)
}

// onward looks at the plan for a domain, and tries it.
func (e *Env) onward(ctx context.Context, domain string) []Finding {
	p := e.Plan(ctx, domain)
	if p.Verdict != queue.Sent {
		f := Finding{
			Level: Error, What: fmt.Sprintf("mail for %s has no way: %s (%s)", domain, queue.Safe(p.Status.Text, 300), p.Status.Reason),
			Why: "It is accepted, as relay_domains says, and then waits until it expires.", Fix: "srvrelay explain " + domain,
		}
		for _, doc := range queue.ReasonDocs {
			if doc.Code == p.Status.Reason {
				f.Why += " " + doc.Next
			}
		}
		return []Finding{f}
	}
	if !e.Connect {
		return append(refused(domain, p.Dropped), ok("mail for %s goes to %s", domain, targetName(p.Targets[0])),
			skipped("whether the server of %s answers: --connect=false", domain))
	}
	return append(refused(domain, p.Dropped), e.tryTargets(ctx, domain, p.Targets))
}

// refused tells of targets that the egress guard leaves out while others
// remain: mail flows, and by fewer ways than its owner thinks.
func refused(domain string, dropped []plan.Dropped) (found []Finding) {
	for _, d := range dropped {
		switch d.Reason {
		case queue.ReasonEgressAddress, queue.ReasonEgressPort, queue.ReasonEgressOwn:
			found = append(found, Finding{
				Level: Warning, What: fmt.Sprintf("%s port %d of %s is never tried: %s (%s)", d.Host, d.Port, domain, queue.Safe(d.Detail, 300), d.Reason),
				Why: "The egress guard refuses it, and the other servers have to take all of the mail.", Fix: "srvrelay explain " + domain,
			})
		}
	}
	return found
}

// tryTargets connects to the targets in their order until one answers. The
// plan has been through the egress guard, and its addresses are dialled as
// they are.
func (e *Env) tryTargets(ctx context.Context, domain string, targets []plan.Target) Finding {
	var failed []string
	for _, t := range targets {
		var start func(net.Conn) net.Conn
		if t.TLS.Implicit {
			start = implicitTLS
		}
		for _, ep := range t.Endpoints() {
			if len(failed) == 3 || ctx.Err() != nil {
				break
			}
			if ep.Calls() {
				return ok("mail for %s goes when its server calls (srvrelay explain %s tells whether it has)", domain, domain)
			}
			c, err := e.connect(ctx, ep.String(), start)
			if err != nil {
				failed = append(failed, fmt.Sprintf("%s %s: %v", targetName(t), address(ep), err))
				continue
			}
			c.quit()
			if len(failed) > 0 {
				return Finding{
					Level: Warning, What: fmt.Sprintf("only a backup answers for %s: %s", domain, strings.Join(failed, "; ")),
					Why: fmt.Sprintf("Its mail goes to %s meanwhile.", targetName(t)), Fix: "nc -v " + spaced(targets[0].Endpoints()[0].String()),
				}
			}
			return ok("%s answers for %s: %q", targetName(t), domain, c.banner)
		}
	}
	return Finding{
		Level: Error, What: fmt.Sprintf("no server of %s answers: %s", domain, strings.Join(failed, "; ")),
		Why: "Its mail waits here until one does, and goes out by itself then.", Fix: "nc -v " + spaced(targets[0].Endpoints()[0].String()),
	}
}

// address is an endpoint without the port, which targetName says.
func address(ep plan.Endpoint) string {
	if ep.Path != "" {
		return "Unix socket"
	}
	return ep.Addr().String()
}

func targetName(t plan.Target) string {
	if t.Path != "" {
		return t.Path
	}
	return fmt.Sprintf("%s port %d", t.Host, t.Port)
}

// inward looks whether the world brings the domain's mail here.
func (e *Env) inward(ctx context.Context, domain string) []Finding {
	if !e.has(config.Inbound, nil) {
		return nil
	}
	elsewhere := Finding{
		Level: Note, Why: "Nobody in the world hands in mail for it here, unless by another way that you know of.",
		Fix: fmt.Sprintf("%s. MX 10 %s.", domain, e.Config.Hostname),
	}
	mx, err := e.Resolver.MX(ctx, domain)
	if _, none := errors.AsType[*dnsutil.NotFound](err); none {
		elsewhere.What = fmt.Sprintf("%s has no MX records", domain)
		return []Finding{elsewhere}
	} else if err != nil {
		return []Finding{skipped("the MX records of %s: %s", domain, lookupProblem(err))}
	}
	own := e.own()
	var hosts []string
	for _, r := range mx.Records {
		hosts = append(hosts, r.Host)
		if r.Host == e.Config.Hostname {
			return []Finding{ok("the MX records of %s name this relay", domain)}
		}
		addrs, _ := e.Resolver.Addrs(ctx, r.Host) // one that cannot be found is not us
		if slices.ContainsFunc(addrs.Records, func(a netip.Addr) bool { return own[a.Unmap()] }) {
			return []Finding{ok("the MX records of %s name this relay", domain)}
		}
	}
	elsewhere.What = fmt.Sprintf("the MX records of %s name %s, and not this relay", domain, queue.Safe(strings.Join(hosts, ", "), 200))
	return []Finding{elsewhere}
}
