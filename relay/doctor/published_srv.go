package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"srvrelay/dnsutil"
	"srvrelay/relay/publish"
)

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
