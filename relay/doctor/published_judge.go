package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/publish"
)

// LookUp is the check of whether the DNS answers at all.
const LookUp = "look-up"

// judges look at what is known, and ask nobody; causes come before effects.
var judges = []struct {
	name  string
	judge func(published) []Finding
}{
	{LookUp, judgeLookups},
	{"route", judgeRoute},
	{"SRV", judgeSRV},
	{"order", judgeOrder},
	{"targets", judgeTargets},
	{"way", judgeWay},
	{"MX", judgeMX},
	{"servers", judgeServers},
	{"TTL", judgeTTL},
	{"SPF", judgeSPF},
	{"DKIM", judgeDKIM},
	{"DMARC", judgeDMARC},
	{"TLSA", judgeTLSA},
	{"TLSRPT", judgeTLSRPT},
	{"MTA-STS", judgeMTASTS},
}

// judgeLookups: without an answer for the ways in, nothing can be said of them.
func judgeLookups(p published) (found []Finding) {
	failed := func(name, kind string, unknown bool, err error) {
		if unknown {
			found = append(found, Finding{
				Level: Error, What: fmt.Sprintf("the DNS does not answer for the %s records of %s: %s", kind, name, queue.Safe(lookupProblem(err), 200)),
				Why: "Nothing can be said of them. If it is so for all, who knows SRV keeps the mail and tries again: a failure is never taken for none.",
				Fix: fmt.Sprintf("dig +trace %s %s", name, kind),
			})
		}
	}
	failed("_smtp._tcp."+p.Name, "SRV", p.srv.unknown(), p.srv.err)
	failed(p.Name, "MX", p.mx.unknown(), p.mx.err)
	return found
}

func judgeRoute(p published) []Finding {
	if p.Route == "" {
		return nil
	}
	return []Finding{{
		Level: Note, What: fmt.Sprintf("this relay sends mail for %s by its %s, and not by what is published", p.Name, queue.Safe(p.Route, 100)),
		Why: "What follows is what all others do.", Fix: "srvrelay explain " + p.Name,
	}}
}

// judgeServers looks at which servers answered.
func judgeServers(p published) (found []Finding) {
	if !p.connect {
		return []Finding{skipped("whether the servers answer: --connect")}
	}
	for _, mx := range []bool{false, true} {
		answered := slices.ContainsFunc(p.tried, func(v visit) bool { return v.mx == mx && v.err == nil })
		for _, v := range p.tried {
			if v.mx == mx {
				found = append(found, p.judgeVisit(v, answered))
			}
		}
	}
	return found
}

func (p published) judgeVisit(v visit, answered bool) Finding {
	where := fmt.Sprintf("%s port %d (%s)", v.host, v.ep.Port(), v.ep.Addr())
	greeted, _, _ := strings.Cut(v.banner, " ")
	switch {
	case v.err != nil && !answered:
		return Finding{
			Level: Error, What: fmt.Sprintf("%s does not answer, and no other server does: %v", where, v.err),
			Why: "The mail waits where it comes from, for some days, and is then returned.", Fix: "nc -v " + spaced(v.ep.String()) + "   # from another machine too: is the port forwarded, and open in the firewall?",
		}
	case v.err != nil:
		return Finding{
			Level: Warning, What: fmt.Sprintf("%s does not answer: %v", where, v.err), Why: "The others have to take all of the mail.",
			Fix: "nc -v " + spaced(v.ep.String()) + "   # from another machine too: is the port forwarded, and open in the firewall?",
		}
	case v.mx && p.relayed && p.ours(v.host) && !strings.EqualFold(greeted, p.hostname):
		return Finding{
			Level: Warning, What: fmt.Sprintf("%s is this machine, and another server answers: %q", where, v.banner), Why: "The mail of all who do not know SRV goes there, and not to this relay.",
			Fix: `listeners: [{ address: ":25", mode: inbound, tls: starttls }]   # in place of the other server`,
		}
	}
	return ok("%s answers: %q", where, v.banner)
}

// longTTL is for how long an address that may change should be kept at most.
const longTTL = 5 * time.Minute

// judgeTTL looks at the addresses of servers elsewhere: of a home, most likely.
func judgeTTL(p published) (found []Finding) {
	seen := map[string]bool{}
	for _, rr := range p.srv.Records {
		l, there := p.answer(rr.Target)
		if !there || seen[rr.Target] || l.TTL <= longTTL || p.isMX(rr.Target) || !p.Dynamic && (!p.relayed || p.ours(rr.Target)) {
			continue
		}
		seen[rr.Target] = true
		f := Finding{
			Level: Note, What: fmt.Sprintf("the address of %s is kept for %s", rr.Target, l.TTL.Round(time.Second)),
			Why: "If it changes, as at home, mail goes to the old one for that long.",
		}
		if p.Dynamic {
			f.Level, f.Why = Warning, "After each change mail goes to the old address for that long, where somebody else may be by then."
		}
		for _, text := range l.Records {
			if a, err := netip.ParseAddr(text); err == nil && f.Fix == "" {
				f.Fix = publish.Address(last(append([]string{rr.Target}, l.CNAMEs...)), publish.TTLDynamic, a).OneLine()
			}
		}
		if f.Fix != "" {
			found = append(found, f)
		}
	}
	return found
}

func last(s []string) string { return s[len(s)-1] }
