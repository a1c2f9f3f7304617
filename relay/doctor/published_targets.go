package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"srvrelay/delivery/plan"
	"srvrelay/queue"
	"srvrelay/relay/publish"
)

// judgeTargets says why the planner leaves servers out, and which of them are
// aliases.
func judgeTargets(p published) (found []Finding) {
	if p.bySRV() {
		found = p.leftOut(p.plan, "SRV")
	}
	if len(p.mx.Records) > 0 {
		for _, f := range p.leftOut(p.mxPlan, "MX") {
			if !slices.Contains(found, f) {
				found = append(found, f)
			}
		}
	}
	return append(found, p.aliases()...)
}

// leftOut has one finding for each server that cannot be reached.
func (p published) leftOut(pl plan.Plan, kind string) (found []Finding) {
	level := Warning
	if len(pl.Targets) == 0 && (!self(pl, "") || kind == "SRV" && p.carriesOn()) {
		level = Error
	}
	for _, d := range pl.Dropped {
		f := p.dropped(d, kind)
		if f == nil || slices.ContainsFunc(found, func(g Finding) bool { return g.What == f.What }) {
			continue
		}
		if f.Level == "" {
			f.Level = level
		}
		found = append(found, *f)
	}
	return found
}

// carriesOn tells whether this relay brings the domain's mail to a server by what is
// published.
func (p published) carriesOn() bool { return p.relayed && p.Route == "" }

// judgeWay: what this relay takes for one of its domains must go on from here. The
// other reasons for which it does not are those of judgeTargets.
func judgeWay(p published) []Finding {
	other := slices.ContainsFunc(p.plan.Dropped, func(d plan.Dropped) bool { return p.dropped(d, "SRV") != nil })
	if !p.carriesOn() || len(p.plan.Targets) > 0 || !self(p.plan, "") || other {
		return nil
	}
	f := Finding{
		Level: Error, What: fmt.Sprintf("mail of %s that this relay takes has no way on: no record is better than its own", p.Name),
		Why: "It is one of relay_domains, so that its mail waits here until it expires.",
		Fix: publish.SRV(p.Name, 10, 0, 2525, "home."+p.Name).OneLine() + "   ; the host and port of your server, or a route in the configuration",
	}
	for _, rr := range p.srv.Records {
		if self(p.plan, rr.Target) && len(p.srv.Records) > 1 {
			f.Fix = p.behind(rr)
		}
	}
	return []Finding{f}
}

// example is an address of the documentation, to be replaced.
var example = netip.MustParseAddr("203.0.113.7")

func (p published) dropped(d plan.Dropped, kind string) *Finding {
	server := fmt.Sprintf("%s, a server of %s by %s", queue.Safe(d.Host, 260), p.Name, kind)
	why := "Nobody can hand mail in there; the other servers, if there are any, have to take all of it."
	address := publish.Address(d.Host, publish.TTLDynamic, example).OneLine() + "   ; its public address"
	switch d.Reason {
	case queue.ReasonNoAddress:
		if _, err := netip.ParseAddr(d.Host); err == nil {
			better := publish.SRV(p.Name, d.Priority, d.Weight, d.Port, "home."+p.Name)
			if kind == "MX" {
				better = publish.MX(p.Name, d.Priority, "mail."+p.Name)
			}
			return &Finding{What: server + ", is an address, and such a record names a host", Why: why, Fix: better.OneLine()}
		}
		return &Finding{What: fmt.Sprintf("%s, has no address: %s", server, queue.Safe(d.Detail, 300)), Why: why, Fix: address}
	case queue.ReasonDNSFailed:
		return &Finding{What: fmt.Sprintf("%s: %s", server, queue.Safe(d.Detail, 300)), Why: "It is left out for as long as its name servers do not answer.", Fix: "dig +trace " + d.Host + " A"}
	case queue.ReasonEgressOwn:
		return p.notOurs(d.Host)
	case queue.ReasonEgressAddress:
		return &Finding{
			What: fmt.Sprintf("%s, has the address %s, which is refused: %s (%s)", server, d.Addr, queue.Safe(d.Detail, 300), d.Reason), Why: why, Fix: address,
		}
	case queue.ReasonEgressPort:
		return &Finding{
			What: fmt.Sprintf("%s, is named with port %d, which is refused: %s (%s)", server, d.Port, queue.Safe(d.Detail, 300), d.Reason), Why: why,
			Fix: publish.SRV(p.Name, d.Priority, d.Weight, 2525, d.Host).OneLine() + "   ; or another port above 1023",
		}
	}
	return nil
}

// notOurs: a record names this machine for a domain that it does not know.
func (p published) notOurs(host string) *Finding {
	return &Finding{
		Level: Error, What: fmt.Sprintf("%s is this machine, and %s is not one of relay_domains", host, p.Name), Why: "Mail for it that comes here is refused.",
		Fix: fmt.Sprintf("relay_domains: [%s]   # in the configuration, beside those that are there", p.Name),
	}
}

// aliases: SRV and MX records must not name one (RFC 2782, RFC 2181 10.3).
func (p published) aliases() (found []Finding) {
	canonical := func(host string) string {
		if l, there := p.answer(host); there && len(l.CNAMEs) > 0 {
			return l.CNAMEs[len(l.CNAMEs)-1]
		}
		return ""
	}
	alias := func(kind, host, name, fix string) {
		found = append(found, Finding{
			Level: Warning, What: fmt.Sprintf("the %s record names %s, which is an alias (CNAME) of %s", kind, host, name),
			Why: "That is not allowed: some senders do not follow it, and names in certificates do not fit.", Fix: fix,
		})
	}
	for _, rr := range p.srv.Records {
		if name := canonical(rr.Target); name != "" {
			host := rr.Target
			rr.Target = name
			alias("SRV", host, name, p.line(rr))
		}
	}
	for _, rr := range p.mx.Records {
		if name := canonical(rr.Host); name != "" {
			alias("MX", rr.Host, name, publish.MX(p.Name, rr.Preference, name).OneLine())
		}
	}
	return found
}
