package doctor

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"srvrelay/queue"
	"srvrelay/relay/dkim"
	"srvrelay/relay/publish"
)

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
