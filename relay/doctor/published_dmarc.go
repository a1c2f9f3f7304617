package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"srvrelay/queue"
	"srvrelay/relay/mailauth"
	"srvrelay/relay/publish"
)

// dmarcOf looks up the DMARC record of a domain, or else of its organization: what does
// not begin with v=DMARC1 counts for nothing (RFC 7489 6.6.3). at is whose answer it is;
// where neither has a record, it is that of the domain itself.
func (e *Env) dmarcOf(ctx context.Context, domain string) (own looked[string], at string) {
	for _, at = range slices.Compact([]string{domain, mailauth.Organization(domain)}) {
		var l looked[string]
		l.Answer, l.err = e.Resolver.TXT(ctx, "_dmarc."+at)
		if l.unknown() || len(versions(l.Records, dmarcVersion)) > 0 {
			return l, at
		}
		if at == domain {
			own = l
		}
	}
	return own, domain
}

const dmarcVersion = "v=DMARC1"

// judgeDMARC looks at what is asked for by DMARC, and whether this relay's mail can
// pass.
func judgeDMARC(p published) []Finding {
	better := publish.DMARC(p.Name, "none", "postmaster@"+p.Name).OneLine()
	records := versions(p.dmarc.Records, dmarcVersion)
	broken := func(fault string) []Finding {
		return []Finding{{Level: Warning, What: fmt.Sprintf("the DMARC record of %s %s", p.dmarcAt, fault), Why: "It counts as if there were none.", Fix: better}}
	}
	switch {
	case p.dmarc.unknown():
		return []Finding{skipped("the DMARC record of %s: %s", p.Name, queue.Safe(lookupProblem(p.dmarc.err), 200))}
	case len(records) > 1:
		return []Finding{{
			Level: Warning, What: fmt.Sprintf("%s has %d DMARC records", p.dmarcAt, len(records)), Why: "Then none of them counts (RFC 7489 6.6.3).", Fix: "remove all but one at _dmarc." + p.dmarcAt,
		}}
	case len(records) == 0 && len(p.dmarc.Records) > 0:
		return broken("does not begin with v=DMARC1;")
	case len(records) == 0:
		return []Finding{{
			Level: Note, What: p.Name + " has no DMARC record", Why: "Big receivers ask for one, and reports show who sends in the domain's name.", Fix: better,
		}}
	}
	policy, err := mailauth.ReadPolicy(records[0])
	if err != nil {
		return broken("cannot be read: " + queue.Safe(strings.TrimPrefix(err.Error(), "dmarc: "), 200))
	}
	if p.dmarcAt != p.Name && policy.Subdomains != "" {
		policy.Ask = policy.Subdomains
	}
	for _, uri := range policy.Reports {
		uri, _, _ = strings.Cut(uri, "!")
		if address, mail := strings.CutPrefix(uri, "mailto:"); !mail || !strings.Contains(address, "@") {
			return []Finding{{
				Level: Warning, What: fmt.Sprintf("the DMARC record of %s names %q in rua=, which is not mailto:ADDRESS", p.dmarcAt, queue.Safe(uri, 100)), Why: "Nobody reports there.", Fix: better,
			}}
		}
	}
	return []Finding{p.judgeAlignment(policy)}
}

// judgeAlignment: one of SPF and DKIM must pass for the domain of From. A key of the
// very domain is always aligned with it.
func (p published) judgeAlignment(policy mailauth.Policy) Finding {
	if signs := slices.ContainsFunc(p.Keys, func(k Key) bool { return k.Signs && k.Domain == p.Name }); policy.Ask != "none" && !signs && !p.Hidden && !p.routed {
		return Finding{
			Level: Note, What: fmt.Sprintf("DMARC of %s asks for %s, and no key of the configuration signs its mail", p.Name, policy.Ask),
			Why: "Then it passes by SPF alone, which fails as soon as somebody forwards it, or sends it with another sender; if another server signs, all is well.",
			Fix: "srvrelay dkim keygen --domain " + p.Name + "   # a key of this very domain is aligned with From, also with adkim=s",
		}
	}
	return ok("DMARC of %s asks for %s of what fails (p=)", p.Name, policy.Ask)
}
