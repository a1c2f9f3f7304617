package doctor

import (
	"fmt"
	"maps"
	"slices"

	"srvrelay/delivery/plan"
	"srvrelay/dnsutil"
	"srvrelay/queue"
	"srvrelay/relay/publish"
)

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
