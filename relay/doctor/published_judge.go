package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/dnsutil"
	"srvrelay/queue"
	"srvrelay/relay/dkim"
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

// line is an SRV record of the domain as a line to publish.
func (p published) line(rr dnsutil.SRV) string {
	return publish.SRV(p.Name, rr.Priority, rr.Weight, rr.Port, rr.Target).OneLine()
}

func judgeSRV(p published) (found []Finding) {
	switch {
	case p.srv.unknown():
		return nil
	case p.srv.none():
		return []Finding{{
			Level: Note, What: fmt.Sprintf("%s has no SRV records, so that all of its mail comes to port 25 of its MX hosts", p.Name),
			Why: "Only SRV records lead to another port, or share mail by weight.",
			Fix: publish.SRV(p.Name, 10, 0, 2525, "home."+p.Name).OneLine() + "   ; the host and port of your server",
		}}
	case len(p.srv.Records) == 1 && p.srv.Records[0].Target == ".":
		return []Finding{p.takesNone()}
	}
	for _, rr := range p.srv.Records {
		switch {
		case rr.Target == ".":
			found = append(found, Finding{
				Level: Warning, What: `"." stands beside other SRV records`,
				Why: "Alone it says that the domain takes no mail; beside others it says nothing, and some senders return the mail.",
				Fix: "remove: " + p.line(rr),
			})
		case rr.Port == 465 || rr.Port == 587:
			better := rr
			better.Port = 25
			found = append(found, Finding{
				Level: Warning, What: fmt.Sprintf("%s is named with port %d, where users log in to send", rr.Target, rr.Port),
				Why: "Other servers have no password there, and their mail is refused.", Fix: p.line(better) + "   ; or another port that takes mail from other servers",
			})
		}
	}
	if len(found) == 0 {
		found = append(found, ok("%s has %s", p.Name, number(len(p.srv.Records), "SRV record")))
	}
	return found
}

// takesNone judges a lone ".".
func (p published) takesNone() Finding {
	if p.nullMX() && !p.relayed {
		return ok("%s takes no mail, and both its SRV and its MX record say so", p.Name)
	}
	f := Finding{
		Level: Error, What: fmt.Sprintf("the SRV record of %s says that it takes no mail", p.Name),
		Why: "Who knows SRV returns all mail to its senders, whatever the MX records say.", Fix: "remove: " + p.line(p.srv.Records[0]),
	}
	if p.mx.none() && !p.relayed {
		f.Level, f.What = Warning, f.What+", and there is no MX record that says the same"
		f.Why, f.Fix = "Who does not know SRV still tries to hand mail in.", publish.MX(p.Name, 0, ".").OneLine()
	}
	return f
}

func (p published) nullMX() bool { return len(p.mx.Records) == 1 && p.mx.Records[0].Host == "." }

// judgeOrder looks at what priorities and weights come to (RFC 2782).
func judgeOrder(p published) (found []Finding) {
	groups := map[uint16][]dnsutil.SRV{}
	for _, rr := range p.srv.Records {
		if rr.Target != "." {
			groups[rr.Priority] = append(groups[rr.Priority], rr)
		}
	}
	for _, priority := range slices.Sorted(maps.Keys(groups)) {
		group := groups[priority]
		slices.SortFunc(group, func(a, b dnsutil.SRV) int { // whatever the order of the answer
			return cmp.Or(cmp.Compare(b.Weight, a.Weight), cmp.Compare(a.Target, b.Target), cmp.Compare(a.Port, b.Port))
		})
		if f := p.judgeGroup(group); f != nil {
			found = append(found, *f)
		}
	}
	return found
}

// judgeGroup judges the records of one priority, the greatest weight first.
func (p published) judgeGroup(group []dnsutil.SRV) *Finding {
	first, last := group[0], group[len(group)-1]
	if len(group) == 1 {
		if first.Weight == 0 {
			return nil
		}
		better := first
		better.Weight = 0
		return &Finding{
			Level: Note, What: fmt.Sprintf("the weight %d of %s does nothing: no other record has priority %d", first.Weight, first.Target, first.Priority),
			Why: "Weights share mail among records of the same priority; who is tried first is said by the priority.", Fix: p.line(better),
		}
	}
	if backup := slices.IndexFunc(group, func(rr dnsutil.SRV) bool { return p.isFallback(rr.Target) }); backup >= 0 && !p.allFallback(group) {
		better := group[backup]
		better.Priority, better.Weight = p.behindAll(), 0
		return &Finding{
			Level: Warning, What: fmt.Sprintf("%s shares the mail with %s: all have priority %d", better.Target, p.others(group, backup), first.Priority),
			Why: "It takes the mail of all who do not know SRV already; as a backup it would be tried only when the others fail.", Fix: p.line(better),
		}
	}
	switch {
	case first.Weight == 0:
		return &Finding{
			Level: Note, What: fmt.Sprintf("%s share the mail evenly: all have priority %d and weight 0", p.others(group, -1), first.Priority),
			Why: "That is right for servers that are equal; a backup needs a greater priority.", Fix: p.behind(last) + "   ; if it is a backup",
		}
	case last.Weight == 0:
		return &Finding{
			Level: Note, What: fmt.Sprintf("%s has weight 0 beside others of priority %d", last.Target, last.Priority),
			Why: "It gets next to no mail while the others are up, but is no backup either: a greater priority says that.", Fix: p.behind(last),
		}
	}
	return nil
}

// behind is a record as a backup of all others.
func (p published) behind(rr dnsutil.SRV) string {
	rr.Priority, rr.Weight = p.behindAll(), 0
	return p.line(rr)
}

// behindAll is a priority after all others.
func (p published) behindAll() uint16 {
	worst := uint16(0)
	for _, rr := range p.srv.Records {
		worst = max(worst, rr.Priority)
	}
	return uint16(min(int(worst)+10, 65535))
}

// isFallback tells whether a host is one for all who do not know SRV.
func (p published) isFallback(host string) bool {
	return p.relayed && !p.isHome() && p.ours(host) || p.isMX(host)
}

func (p published) isMX(host string) bool {
	return slices.ContainsFunc(p.mx.Records, func(rr dnsutil.MX) bool { return rr.Host == host })
}

func (p published) allFallback(group []dnsutil.SRV) bool {
	return !slices.ContainsFunc(group, func(rr dnsutil.SRV) bool { return !p.isFallback(rr.Target) })
}

// others names the records of a group, but for one.
func (p published) others(group []dnsutil.SRV, but int) string {
	var words []string
	for i, rr := range group {
		if i != but {
			words = append(words, fmt.Sprintf("%s:%d", rr.Target, rr.Port))
		}
	}
	return strings.Join(words, ", ")
}

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

// judgeMX looks at the way of all who do not know SRV, which is most of the world.
func judgeMX(p published) (found []Finding) {
	better := publish.MX(p.Name, 10, p.edge()).OneLine()
	switch {
	case p.mx.unknown() || len(p.srv.Records) == 1 && p.srv.Records[0].Target == ".":
		return nil
	case p.nullMX():
		return []Finding{{
			Level: Error, What: fmt.Sprintf("the MX record of %s says that it takes no mail", p.Name),
			Why: "All who do not know SRV, and that is most of the world, return the mail to its senders.", Fix: better,
		}}
	case p.mx.none() && p.mxPlan.Source == queue.ReasonAddress:
		return []Finding{{
			Level: Error, What: fmt.Sprintf("%s has no MX record: who does not know SRV tries port 25 of the address of %s itself", p.Name, p.Name),
			Why: "That is most of the world, and that address is often a web server, which takes no mail.", Fix: better,
		}}
	case p.mx.none():
		return []Finding{{
			Level: Error, What: fmt.Sprintf("%s has no MX record: who does not know SRV finds no server", p.Name),
			Why: "That is most of the world.", Fix: better,
		}}
	}
	reaches := false
	for _, rr := range p.mx.Records {
		if rr.Host == "." {
			found = append(found, Finding{
				Level: Warning, What: `"." stands beside other MX records`, Why: "Alone it says that the domain takes no mail; beside others some senders return the mail.",
				Fix: "remove: " + publish.MX(p.Name, rr.Preference, ".").OneLine(),
			})
			continue
		}
		reaches = reaches || p.ours(rr.Host)
		if f := p.judgeMXHost(rr, better); f != nil {
			found = append(found, *f)
		}
	}
	if p.relayed && !reaches && !p.isHome() {
		found = append(found, Finding{
			Level: Warning, What: fmt.Sprintf("no MX record of %s names this relay", p.Name),
			Why: "It is one of relay_domains, and who does not know SRV hands its mail in elsewhere.", Fix: better,
		})
	}
	if len(found) == 0 {
		found = append(found, ok("who does not know SRV finds %s", number(len(p.mx.Records), "MX host")))
	}
	return found
}

// judgeMXHost: an MX record has no port, so that its port 25 is asked.
func (p published) judgeMXHost(rr dnsutil.MX, better string) *Finding {
	ports := map[uint16]bool{}
	for _, srv := range p.srv.Records {
		if srv.Target == rr.Host {
			ports[srv.Port] = true
		}
	}
	if len(ports) > 0 && !ports[25] && !self(p.mxPlan, rr.Host) {
		port := slices.Min(slices.Collect(maps.Keys(ports)))
		return &Finding{
			Level: Warning, What: fmt.Sprintf("the MX record names %s, which takes mail at port %d by SRV", rr.Host, port),
			Why: "An MX record has no port: who does not know SRV connects to port 25 there.", Fix: better + "   ; a server that takes mail at port 25",
		}
	}
	if !p.relayed && self(p.mxPlan, rr.Host) {
		return p.notOurs(rr.Host)
	}
	tried := slices.ContainsFunc(p.mxPlan.Targets, func(t plan.Target) bool { return t.Host == rr.Host })
	if p.relayed && p.ours(rr.Host) && tried { // else the planner had left it out as ourselves
		return &Finding{
			Level: Warning, What: fmt.Sprintf("the MX host %s is this machine, and this relay has no listener at its port 25", rr.Host),
			Why: "Something else takes the mail there, or nothing does.", Fix: `listeners: [{ address: ":25", mode: inbound, tls: starttls }]   # in the configuration; behind a router: public_addresses with the port`,
		}
	}
	return nil
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

// judgeSPF looks whether the domain lets this relay send.
func judgeSPF(p published) []Finding {
	var records []string
	for _, text := range p.texts.Records {
		if version, _, _ := strings.Cut(text, " "); strings.EqualFold(version, "v=spf1") {
			records = append(records, text)
		}
	}
	switch {
	case p.texts.unknown():
		return []Finding{skipped("the SPF record of %s: %s", p.Name, queue.Safe(lookupProblem(p.texts.err), 200))}
	case len(records) == 0:
		return []Finding{{
			Level: Warning, What: p.Name + " has no SPF record", Why: "Big receivers ask for one, or for a DKIM signature, and treat mail without as suspect.",
			Fix: publish.OnlySender(p.Name, p.edge()).OneLine(),
		}}
	case len(records) > 1:
		return []Finding{{
			Level: Error, What: fmt.Sprintf("%s has %d SPF records", p.Name, len(records)), Why: "Then none of them counts (RFC 7208 4.5): join them, and remove the others.",
			Fix: p.spfFix(joinSPF(records), "one record with the terms of all, and one \"all\" at the end"),
		}}
	}
	if p.Elsewhere {
		return []Finding{skipped("whether SPF of %s and the keys let a relay's mail through: there is no configuration here (--config)", p.Name)}
	}
	if p.routed {
		return []Finding{skipped("whether SPF of %s lets this relay's mail through: a route hands it to another server, ask there", p.Name)}
	}
	byResult := map[string][]netip.Addr{}
	for _, s := range p.senders {
		byResult[s.result] = append(byResult[s.result], s.addr)
	}
	var found []Finding
	for _, result := range slices.Sorted(maps.Keys(byResult)) {
		found = append(found, p.judgeSender(records[0], result, byResult[result]))
	}
	return found
}

// joinSPF is one record in place of several: what ends them, "all" or "redirect=",
// comes once, and last.
func joinSPF(records []string) string {
	terms, end := []string{"v=spf1"}, "~all"
	for _, r := range records {
		for _, term := range strings.Fields(r)[1:] {
			switch low := strings.ToLower(term); {
			case strings.TrimLeft(low, "+-~?") == "all", strings.HasPrefix(low, "redirect="):
				end = term
			case !slices.Contains(terms, term):
				terms = append(terms, term)
			}
		}
	}
	return strings.Join(append(terms, end), " ")
}

// maxRecord is the longest text that is shown whole, in bytes; a part of a record
// is nothing to publish.
const maxRecord = 700

// spfFix is a record to publish, or, if it is too long to be shown, what to do to it.
func (p published) spfFix(text, otherwise string) string {
	if len(text) > maxRecord {
		return otherwise
	}
	return publish.TXT(p.Name, queue.Safe(text, 2*maxRecord)).OneLine()
}

func (p published) judgeSender(record, result string, addrs []netip.Addr) Finding {
	switch result {
	case "pass":
		return ok("SPF of %s lets %s send", p.Name, list(addrs))
	case "temperror", "":
		return skipped("SPF of %s for %s: the DNS does not answer", p.Name, list(addrs))
	}
	f := Finding{
		Level: Warning, What: fmt.Sprintf("SPF of %s does not let this relay send from %s: %s", p.Name, list(addrs), result),
		Why: "What is sent from here is suspect to receivers, and does not pass DMARC by SPF.",
	}
	if result == "fail" {
		f.Level, f.Why = Error, "Receivers refuse what is sent from here."
	}
	if result == "permerror" {
		f.Why = "The record cannot be read, or needs more than ten look-ups; it counts as if there were none."
		f.Fix = publish.OnlySender(p.Name, p.edge()).OneLine()
		return f
	}
	term := " a:" + p.hostname
	if !strings.Contains(p.hostname, ".") || strings.Contains(record, "a:"+p.hostname) {
		term = ""
		for _, a := range addrs {
			if a.Is4() {
				term += " ip4:" + a.String()
			} else {
				term += " ip6:" + a.String()
			}
		}
	}
	_, rest, _ := strings.Cut(record, " ")
	f.Fix = p.spfFix(strings.TrimSpace("v=spf1"+term+" "+rest), "add behind v=spf1 of the record:"+term)
	return f
}

// judgeDKIM compares the published keys with those that sign.
func judgeDKIM(p published) (found []Finding) {
	if p.Hidden {
		found = append(found, skipped("keys of the configuration: this user may not read them; run as root or as the relay's user"))
	} else if len(p.Keys) == 0 && !p.Elsewhere {
		return []Finding{{
			Level: Note, What: "no key of the configuration signs mail of " + p.Name, Why: "Big receivers want signatures; if another server signs, all is well.",
			Fix: "srvrelay dkim keygen --domain " + p.Name,
		}}
	}
	for i, k := range p.Keys {
		found = append(found, judgeKey(k, p.keys[i]))
	}
	return found
}

func judgeKey(k Key, l looked[string]) Finding {
	if l.unknown() {
		return skipped("the key %s: %s", k.Name(), queue.Safe(lookupProblem(l.err), 200))
	}
	fault, _, _ := strings.Cut(k.Check(l.Records), "; publish: ")
	f := Finding{Level: Error, Why: "Receivers cannot verify the signatures, and treat the mail as forged.", Fix: publish.TXT(k.Name(), k.Record()).OneLine()}
	switch {
	case fault != "":
		fault, _, _ = strings.Cut(fault, "; remove all but this one")
		f.What = fmt.Sprintf("the key %s: %s", k.Name(), queue.Safe(fault, 400))
	case dkim.Testing(l.Records[0]):
		f.Level, f.What = Warning, fmt.Sprintf("the record of the key %s says t=y (a test)", k.Name())
		f.Why = "Many treat such mail as if it were not signed."
	default:
		return ok("the key %s is published", k.Name())
	}
	if !k.Signs {
		f.Level, f.Why = Note, "It does not sign yet, or no more: another key of the domain is first."
	}
	return f
}
