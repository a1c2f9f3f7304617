package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"srvrelay/dnsutil"
)

const (
	dnsTimeout = 3 * time.Second // that of the relay's own look-ups
	slowDNS    = time.Second
)

// checkResolvers asks each resolver questions whose answers are known.
func checkResolvers(ctx context.Context, e *Env) []Finding {
	servers := e.Resolver.Servers()
	health := make([]dnsutil.Health, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() { health[i] = dnsutil.Probe(ctx, s, knownDomain, dnsTimeout) })
	}
	wg.Wait()
	return judgeResolvers(health, e.Config.DNS.TrustAD)
}

// judgeResolvers says what the health of the resolvers comes to.
func judgeResolvers(health []dnsutil.Health, trustAD bool) []Finding {
	var dead []string
	for _, h := range health {
		if h.UDP != "" {
			dead = append(dead, h.Server+": "+h.UDP)
		}
	}
	if len(dead) == len(health) {
		return []Finding{{Level: Error, What: "no resolver answers (" + strings.Join(dead, "; ") + ")",
			Why: "Without DNS no domain's mail has a way; it waits.", Fix: dig(health[0].Server, "gmail.com MX") + "   # and check dns.servers"}}
	}
	var found []Finding
	for _, h := range health {
		switch {
		case h.UDP != "":
			found = append(found, Finding{Level: Warning, What: fmt.Sprintf("the resolver %s does not answer: %s", h.Server, h.UDP),
				Why: "Look-ups wait for it before they ask the next.", Fix: dig(h.Server, "gmail.com MX") + "   # and check dns.servers"})
		default:
			found = append(found, judgeAnswers(h, trustAD)...)
		}
	}
	return found
}

// judgeAnswers is about a resolver that answers.
func judgeAnswers(h dnsutil.Health, trustAD bool) (found []Finding) {
	add := func(l Level, what, why, fix string) {
		found = append(found, Finding{Level: l, What: "the resolver " + h.Server + " " + what, Why: why, Fix: fix})
	}
	if len(h.Invented) > 0 {
		add(Error, fmt.Sprintf("gives the address %s to names that do not exist", h.Invented[0]),
			"Mail for mistyped domains goes to that machine instead of back to its sender.", "dns: { servers: [\"127.0.0.1:53\"] }   # with unbound on this machine")
	}
	if h.SRV != "" {
		add(Error, "does not answer questions for SRV records: "+h.SRV,
			"Mail waits when it is not known whether there are SRV records; some home routers drop such questions.", dig(h.Server, "_smtp._tcp."+knownDomain+" SRV")+"   # then use another resolver in dns.servers")
	}
	if h.TCP != "" {
		add(Warning, "does not answer over TCP: "+h.TCP, "Answers that do not fit into a datagram cannot be had.", dig(h.Server, "+tcp gmail.com MX")+"   # a firewall on port 53/tcp?")
	}
	if !h.EDNS && h.TCP != "" {
		add(Warning, "does not speak EDNS0", "Without it and without TCP, answers above 512 bytes are lost.", "use another resolver in dns.servers")
	}
	if h.Took > slowDNS {
		add(Warning, fmt.Sprintf("took %s to answer", h.Took.Round(time.Millisecond)), "Each new domain needs several answers before its mail goes out.", dig(h.Server, "gmail.com MX"))
	}
	found = append(found, judgeTrust(h, trustAD)...)
	if !slices.ContainsFunc(found, func(f Finding) bool { return f.Level != Note }) {
		found = append(found, ok("the resolver %s answers in %s, also for SRV, over TCP, and for names that do not exist", h.Server, h.Took.Round(100*time.Microsecond)))
	}
	return found
}

func judgeTrust(h dnsutil.Health, trustAD bool) []Finding {
	ap, err := netip.ParseAddrPort(h.Server)
	local := err == nil && ap.Addr().Unmap().IsLoopback()
	switch {
	case trustAD && !h.AD:
		return []Finding{{Level: Warning, What: fmt.Sprintf("dns.trust_ad is set, and the resolver %s does not validate", h.Server),
			Why: "No answer will count as signed.", Fix: dig(h.Server, "+adflag . SOA") + "   # flags must have \"ad\""}}
	case trustAD && !local:
		return []Finding{{Level: Warning, What: fmt.Sprintf("dns.trust_ad believes the resolver %s on another machine", h.Server),
			Why: "Who can change packets on the way can make any answer look signed.", Fix: "dns: { servers: [\"127.0.0.1:53\"], trust_ad: true }   # with unbound on this machine"}}
	case !trustAD && local && h.AD:
		return []Finding{{Level: Note, What: fmt.Sprintf("the resolver %s validates DNSSEC, and is not believed", h.Server),
			Why: "On this machine its word can be trusted.", Fix: "dns: { trust_ad: true }"}}
	}
	return nil
}

// dig is the command by which to see the same.
func dig(server, question string) string {
	host, port, err := net.SplitHostPort(server)
	if err != nil || port == "53" {
		return fmt.Sprintf("dig @%s %s", host, question)
	}
	return fmt.Sprintf("dig @%s -p %s %s", host, port, question)
}
