package doctor

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"srvrelay/queue"
	"srvrelay/relay/config"
)

// checkOutbound tries to reach port 25 of servers that answer everybody: many
// providers block it.
func checkOutbound(ctx context.Context, e *Env) []Finding {
	if !e.Connect {
		return []Finding{skipped("port 25 of other servers: --connect=false")}
	}
	probes, why := e.Probes, ""
	if len(probes) == 0 {
		if probes, why = e.bigServers(ctx); len(probes) == 0 {
			return []Finding{skipped("port 25 of other servers: no mail server of %s is known (%s)", strings.Join(bigDomains, ", "), why)}
		}
	}
	problems := make([]string, len(probes)) // "" for none
	banners := make([]string, len(probes))
	var wg sync.WaitGroup
	for i, address := range probes {
		wg.Go(func() {
			p, err := e.connect(ctx, address, nil)
			if err != nil {
				problems[i] = err.Error()
				return
			}
			banners[i] = p.banner
			p.quit()
		})
	}
	wg.Wait()
	var open, shut []string
	for i, address := range probes {
		if problems[i] == "" {
			open = append(open, fmt.Sprintf("%s says %q", address, banners[i]))
		} else {
			shut = append(shut, address+": "+problems[i])
		}
	}
	switch {
	case len(open) == 0:
		return []Finding{e.blocked(shut)}
	case len(shut) > 0:
		return []Finding{{Level: Note, What: fmt.Sprintf("%d of %d servers could be reached, but not %s", len(open), len(probes), strings.Join(shut, "; ")),
			Why: "Port 25 is not blocked as a whole; that server or the way to it may have a reason of its own.", Fix: "nc -v " + spaced(firstOf(shut))}}
	}
	return []Finding{ok("port 25 is open: %s", open[0])}
}

// blocked is how bad it is that nobody can be reached.
func (e *Env) blocked(shut []string) Finding {
	f := Finding{
		Level: Error, What: "port 25 out of this machine is blocked: " + strings.Join(shut, "; "),
		Why: "Mail to domains without SRV records on other ports cannot leave. Most providers of homes and many of clouds block the port.",
		Fix: "nc -v " + spaced(firstOf(shut)) + "   # then ask the provider, or send through a smarthost: " +
			`routes: [{ domains: ["*"], to: [{ url: "submissions://smtp.PROVIDER", username: YOU, password_file: FILE }] }]`,
	}
	if e.allRouted() {
		f.Level, f.Fix = Note, "nc -v "+spaced(firstOf(shut))+"   # if it is meant to be open"
		f.Why = "That hurts nobody here: a route takes the mail for all domains another way."
		return f
	}
	if !e.has(config.Submission, nil) { // only relay domains, and reports about their mail
		f.Level = Warning
		f.Why = "Reports to senders elsewhere cannot leave; mail for relay_domains can, on other ports by SRV."
	}
	return f
}

// allRouted tells whether a route takes what is for everybody else to servers
// that the operator has named.
func (e *Env) allRouted() bool {
	return slices.ContainsFunc(e.Config.Routes, func(r config.Route) bool {
		named := func(t config.RouteTarget) bool { return t.Scheme != config.SchemeDNS && t.Scheme != config.SchemeMX }
		return slices.Contains(r.Domains, config.AllDomains) && len(r.Senders) == 0 && r.Action == config.Deliver && slices.ContainsFunc(r.To, named)
	})
}

// firstOf is the address of the first of "ADDRESS: PROBLEM".
func firstOf(shut []string) string {
	address, _, _ := strings.Cut(shut[0], ": ")
	return address
}

// onlyIPv6 tells that the machine has no IPv4 to speak of. Where it has both,
// IPv4 is tried: IPv6 is missing in many places for reasons of its own.
func (e *Env) onlyIPv6() bool {
	has4, has6 := false, false
	addrs, _ := e.Machine.Addresses() // without: IPv4
	for _, a := range addrs {
		has4 = has4 || a.Unmap().Is4() && !a.IsLoopback()
		has6 = has6 || a.Is6() && a.IsGlobalUnicast()
	}
	return has6 && !has4
}

// bigServers are the best targets of big domains as delivery would find them,
// past the same guard.
func (e *Env) bigServers(ctx context.Context) (servers []string, why string) {
	found := make([]string, len(bigDomains))
	reasons := make([]string, len(bigDomains))
	v6 := e.onlyIPv6()
	var wg sync.WaitGroup
	for i, domain := range bigDomains {
		wg.Go(func() {
			p := e.Plan(ctx, domain)
			reasons[i] = p.Status.Text
			for _, t := range p.Targets {
				for _, ap := range t.Endpoints() {
					if found[i] == "" && ap.Addr().Unmap().Is4() != v6 {
						found[i] = net.JoinHostPort(ap.Addr().String(), fmt.Sprint(ap.Port()))
					}
				}
			}
		})
	}
	wg.Wait()
	for i, f := range found {
		if f != "" {
			servers = append(servers, f)
		} else {
			why = queue.Safe(reasons[i], 200)
		}
	}
	return servers, why
}
