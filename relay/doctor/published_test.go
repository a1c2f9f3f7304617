package doctor

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"net"
	"net/netip"
	"strings"
	"testing"

	"srvrelay/delivery/plan"
	"srvrelay/dnsutil"
	"srvrelay/relay/dkim"
)

// goodZone is a domain without a fault: a server at home, and an edge, which is
// this relay.
const goodZone = `
_smtp._tcp.d.example. 300 SRV 10 0 2525 home.d.example.
_smtp._tcp.d.example. 300 SRV 20 0 25 relay.example.net.
d.example. 3600 MX 10 relay.example.net.
d.example. 3600 TXT "v=spf1 a:relay.example.net -all"
k._domainkey.d.example. TXT "v=DKIM1; k=ed25519; p=6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw="
home.d.example. 60 A 5.5.100.8
_dmarc.d.example. 3600 TXT "v=DMARC1; p=quarantine; rua=mailto:a@d.example!10m,mailto:b@x.example"
_smtp._tls.d.example. 3600 TXT "v=TLSRPTv1; rua=mailto:a@d.example, https://x.example/r"
relay.example.net. 3600 A 5.5.100.1
1.100.5.5.in-addr.arpa. PTR relay.example.net.
`

const edge = `
public_addresses: [5.5.100.1]
listeners: [{ address: ":25", mode: inbound, tls: none }]
relay_domains: [d.example]
`

// signs is a key of the domain d.example.
func signs() Key {
	seed := bytes.Repeat([]byte{7}, ed25519.SeedSize)
	return Key{Key: dkim.NewKey("d.example", "k", ed25519.NewKeyFromSeed(seed)), Signs: true}
}

// newDomainWorld has a planner that knows the listener as ours, as cmd's does.
func newDomainWorld(t *testing.T, zone, more string, sinks map[string]string) *world {
	w := newWorld(t, zone, more, sinks)
	own := plan.Own{Public: w.Config.PublicAddresses}
	for _, l := range w.Config.Listeners {
		a, err := net.ResolveTCPAddr("tcp", l.Address)
		if err != nil {
			t.Fatal(err)
		}
		own.Listeners = append(own.Listeners, a.AddrPort())
	}
	p := plan.New(plan.Config{
		MXFallback: true, MXPort: w.Config.Delivery.MXPort, RelayDomains: w.Config.RelayDomains, Own: own,
		Egress: plan.Egress{Allow: w.Config.Delivery.Egress.Allow},
	}, w.Resolver, nil)
	w.Plan, w.PlanMX, w.Connect = p.Plan, p.PlanMX, len(sinks) > 0
	return w
}

// TestCheckDomain: each fault in an otherwise good domain, and the line to publish
// instead. A change is "OLD => NEW", of which either may be empty; a finding is
// "LEVEL CHECK text of What => text of Fix".
func TestCheckDomain(t *testing.T) {
	const homeSRV, edgeSRV = "10 0 2525 home.d.example.", "20 0 25 relay.example.net."
	const digest = "a0e78cb6da349638abbb670a802f10b9f84f7075df0d74e627bb1d86e6ec0902"
	for _, c := range []struct {
		what    string
		changes string
		more    string // configuration in place of edge
		change  func(*Domain, *world)
		want    string
	}{
		{what: "nothing"},
		{what: "an alias", changes: "home.d.example. 60 A 5.5.100.8 => home.d.example. 60 CNAME x.dyn.example.\nx.dyn.example. 60 A 5.5.100.8", want: `
			warning targets the SRV record names home.d.example, which is an alias (CNAME) of x.dyn.example => _smtp._tcp.d.example. 300 IN SRV 10 0 2525 x.dyn.example.`},
		{what: "an alias as MX host", changes: "d.example. 3600 MX 10 relay.example.net. => d.example. 3600 MX 10 mx.d.example.\nmx.d.example. CNAME relay.example.net.", want: `
			warning targets the MX record names mx.d.example, which is an alias (CNAME) of relay.example.net => d.example. 3600 IN MX 10 relay.example.net.`},
		{what: "a dot beside others", changes: " => _smtp._tcp.d.example. SRV 0 0 0 .", want: `
			warning SRV "." stands beside other SRV records => remove: _smtp._tcp.d.example. 300 IN SRV 0 0 0 .`},
		{what: "a dot beside other MX", changes: " => d.example. MX 0 .", want: `
			warning MX "." stands beside other MX records => remove: d.example. 3600 IN MX 0 .`},
		{what: "a lone dot", changes: homeSRV + " => 0 0 0 .\n_smtp._tcp.d.example. 300 SRV 20 0 25 relay.example.net. => ", want: `
			error SRV says that it takes no mail => remove: _smtp._tcp.d.example. 300 IN SRV 0 0 0 .`},
		{what: "no mail, said once", changes: homeSRV + " => 0 0 0 .\n_smtp._tcp.d.example. 300 SRV 20 0 25 relay.example.net. => \nd.example. 3600 MX 10 relay.example.net. => ", more: "public_addresses: [5.5.100.1]", want: `
			warning SRV and there is no MX record that says the same => d.example. 3600 IN MX 0 .`},
		{what: "no mail, said to all", changes: homeSRV + " => 0 0 0 .\n_smtp._tcp.d.example. 300 SRV 20 0 25 relay.example.net. => \nd.example. 3600 MX 10 relay.example.net. => d.example. MX 0 .", more: "public_addresses: [5.5.100.1]"},
		{what: "a weight alone", changes: homeSRV + " => 10 60 2525 home.d.example.", want: `
			note order the weight 60 of home.d.example does nothing => _smtp._tcp.d.example. 300 IN SRV 10 0 2525 home.d.example.`},
		{what: "weights all 0", changes: " => _smtp._tcp.d.example. 300 SRV 10 0 2526 home.d.example.", want: `
			note order home.d.example:2525, home.d.example:2526 share the mail evenly => _smtp._tcp.d.example. 300 IN SRV 30 0 2526 home.d.example.   ; if it is a backup`},
		{what: "a weight 0 among others", changes: homeSRV + " => 10 50 2525 home.d.example.\n => _smtp._tcp.d.example. 300 SRV 10 0 2526 home.d.example.", want: `
			note order home.d.example has weight 0 beside others => _smtp._tcp.d.example. 300 IN SRV 30 0 2526 home.d.example.`},
		{what: "shared by weight", changes: homeSRV + " => 10 60 2525 home.d.example.\n => _smtp._tcp.d.example. 300 SRV 10 40 2526 home.d.example."},
		{what: "a backup with the same priority", changes: edgeSRV + " => 10 50 25 relay.example.net.", want: `
			error way mail of d.example that this relay takes has no way on => _smtp._tcp.d.example. 300 IN SRV 20 0 25 relay.example.net.
			warning order relay.example.net shares the mail with home.d.example:2525 => _smtp._tcp.d.example. 300 IN SRV 20 0 25 relay.example.net.`},
		{what: "no address", changes: "home.d.example. 60 A 5.5.100.8 => ", want: `
			error targets home.d.example, a server of d.example by SRV, has no address => home.d.example. 60 IN A 203.0.113.7   ; its public address`},
		{what: "no address of one of two", changes: " => _smtp._tcp.d.example. SRV 10 0 2525 gone.d.example.", want: `
			warning targets gone.d.example, a server of d.example by SRV, has no address => gone.d.example. 60 IN A 203.0.113.7   ; its public address
			note order gone.d.example:2525, home.d.example:2525 share the mail evenly => _smtp._tcp.d.example. 300 IN SRV 30 0 2525 `},
		{what: "no address, and no other server", changes: "home.d.example. 60 A 5.5.100.8 => \n_smtp._tcp.d.example. 300 SRV 20 0 25 relay.example.net. => ", want: `
			error targets home.d.example, a server of d.example by SRV, has no address => home.d.example. 60 IN A`},
		{what: "an address for a name", changes: homeSRV + " => 10 0 2525 5.5.100.8.", want: `
			error targets 5.5.100.8, a server of d.example by SRV, is an address => _smtp._tcp.d.example. 300 IN SRV 10 0 2525 home.d.example.`},
		{what: "a private address", changes: "60 A 5.5.100.8 => 60 A 192.168.1.5", want: `
			error targets has the address 192.168.1.5, which is refused: private address => home.d.example. 60 IN A 203.0.113.7`},
		{what: "a port of something else", changes: homeSRV + " => 10 0 6379 home.d.example.", want: `
			error targets named with port 6379, which is refused: port 6379 is that of redis => _smtp._tcp.d.example. 300 IN SRV 10 0 2525 home.d.example.`},
		{what: "the port of users", changes: homeSRV + " => 10 0 587 home.d.example.", want: `
			warning SRV home.d.example is named with port 587, where users log in => _smtp._tcp.d.example. 300 IN SRV 10 0 25 home.d.example.`},
		{what: "name servers of a host are down", changes: " => ;!servfail home.d.example.", want: `
			error targets look-up failed: SERVFAIL => dig +trace home.d.example A`},
		{what: "no SRV", changes: "_smtp._tcp.d.example. 300 SRV 10 0 2525 home.d.example. => \n_smtp._tcp.d.example. 300 SRV 20 0 25 relay.example.net. => ", want: `
			error way mail of d.example that this relay takes has no way on => _smtp._tcp.d.example. 300 IN SRV 10 0 2525 home.d.example.
			note SRV d.example has no SRV records => _smtp._tcp.d.example. 300 IN SRV 10 0 2525 home.d.example.`},
		{what: "no MX", changes: "d.example. 3600 MX 10 relay.example.net. => ", want: `
			error MX who does not know SRV finds no server => d.example. 3600 IN MX 10 relay.example.net.`},
		{what: "no MX, and a web server", changes: "d.example. 3600 MX 10 relay.example.net. => d.example. A 5.5.100.9", want: `
			error MX tries port 25 of the address of d.example itself => d.example. 3600 IN MX 10 relay.example.net.`},
		{what: "null MX beside SRV", changes: "MX 10 relay.example.net. => MX 0 .", want: `
			error MX the MX record of d.example says that it takes no mail => d.example. 3600 IN MX 10 relay.example.net.`},
		{what: "MX to home, which has another port", changes: "MX 10 relay.example.net. => MX 10 home.d.example.", want: `
			warning MX the MX record names home.d.example, which takes mail at port 2525 by SRV => d.example. 3600 IN MX 10 relay.example.net.
			warning MX no MX record of d.example names this relay => d.example. 3600 IN MX 10 relay.example.net.`},
		{what: "MX elsewhere", changes: "MX 10 relay.example.net. => MX 10 mx.other.example.\nmx.other.example. A 5.5.100.77", want: `
			warning MX no MX record of d.example names this relay => d.example. 3600 IN MX 10 relay.example.net.`},
		{what: "MX elsewhere, and not our domain", changes: "MX 10 relay.example.net. => MX 10 mx.other.example.\nmx.other.example. A 5.5.100.77", more: "public_addresses: [5.5.100.1]\nlisteners: [{ address: \":25\", mode: inbound, tls: none }]\nrelay_domains: [other.example]"},
		{what: "not one of relay_domains", more: strings.Replace(edge, "[d.example]", "[e.example]", 1), want: `
			error MX relay.example.net is this machine, and d.example is not one of relay_domains => relay_domains: [d.example]`},
		{what: "not one of relay_domains, and port 25 is another's", more: "public_addresses: [5.5.100.1]", want: `
			error targets relay.example.net is this machine, and d.example is not one of relay_domains => relay_domains: [d.example]`},
		{what: "another program at port 25", more: strings.Replace(edge, ":25", ":2600", 1), want: `
			warning MX the MX host relay.example.net is this machine, and this relay has no listener at its port 25 => listeners: [{ address: ":25"`},
		{what: "SRV does not answer", changes: " => ;!servfail _smtp._tcp.d.example. SRV", want: `
			error look-up the DNS does not answer for the SRV records of _smtp._tcp.d.example: SERVFAIL => dig +trace _smtp._tcp.d.example SRV`},
		{what: "MX does not answer", changes: " => ;!servfail d.example. MX", want: `
			error look-up the DNS does not answer for the MX records of d.example: SERVFAIL => dig +trace d.example MX`},
		{what: "a long TTL at home", changes: "home.d.example. 60 A => home.d.example. 86400 A", want: `
			note TTL the address of home.d.example is kept for 24h0m0s => home.d.example. 60 IN A 5.5.100.8`},
		{what: "a long TTL of a dynamic address", changes: "home.d.example. 60 A => home.d.example. 301 A", change: func(d *Domain, _ *world) { d.Dynamic = true }, want: `
			warning TTL the address of home.d.example is kept for 5m1s => home.d.example. 60 IN A 5.5.100.8`},
		{what: "no SPF", changes: "v=spf1 a => v=spf2 a", want: `
			warning SPF d.example has no SPF record => d.example. 3600 IN TXT "v=spf1 a:relay.example.net -all"`},
		{what: "two SPF", changes: ` => d.example. TXT "v=spf1 mx ~all"`, want: `
			error SPF d.example has 2 SPF records => d.example. 3600 IN TXT "v=spf1 a:relay.example.net mx ~all"`},
		{what: "two SPF, one of them elsewhere", changes: ` => d.example. TXT "v=spf1 redirect=x.example"`, want: `
			error SPF d.example has 2 SPF records => d.example. 3600 IN TXT "v=spf1 a:relay.example.net `},
		{what: "SPF without us, and too long to be shown", changes: `"v=spf1 a:relay.example.net -all" => "v=spf1 mx ` + strings.Repeat("ip4:192.0.2.1 ", 16) + `" "` + strings.Repeat("ip4:192.0.2.2 ", 17) + `" "` + strings.Repeat("ip4:192.0.2.3 ", 17) + `-all"`, change: spfSays("fail"), want: `
			error SPF does not let this relay send from 5.5.100.1: fail => add behind v=spf1 of the record: a:relay.example.net`},
		{what: "SPF without us", changes: "v=spf1 a:relay.example.net -all => v=spf1 mx include:x.example -all", change: spfSays("fail"), want: `
			error SPF does not let this relay send from 5.5.100.1: fail => d.example. 3600 IN TXT "v=spf1 a:relay.example.net mx include:x.example -all"`},
		{what: "SPF names us, and not our address", change: spfSays("softfail"), want: `
			warning SPF does not let this relay send from 5.5.100.1: softfail => d.example. 3600 IN TXT "v=spf1 ip4:5.5.100.1 a:relay.example.net -all"`},
		{what: "SPF with too many look-ups", change: spfSays("permerror"), want: `
			warning SPF does not let this relay send from 5.5.100.1: permerror => d.example. 3600 IN TXT "v=spf1 a:relay.example.net -all"`},
		{what: "no key", changes: "k._domainkey => l._domainkey", want: `
			error DKIM the key k._domainkey.d.example: there is no TXT record => k._domainkey.d.example. 3600 IN TXT "v=DKIM1; k=ed25519; p=`},
		{what: "another key", changes: "p=6kps => p=AAAA", want: `
			error DKIM another key is published than the one in the file => k._domainkey.d.example. 3600 IN TXT "v=DKIM1; k=ed25519; p=`},
		{what: "a key in test", changes: "k=ed25519; => k=ed25519; t=y;", want: `
			warning DKIM says t=y (a test) => k._domainkey.d.example. 3600 IN TXT "v=DKIM1; k=ed25519; p=`},
		{what: "a key that does not sign", changes: "k._domainkey => l._domainkey", change: func(d *Domain, _ *world) { d.Keys[0].Signs = false }, want: `
			note DKIM there is no TXT record => k._domainkey.d.example.
			note DMARC DMARC of d.example asks for quarantine, and no key`},
		{what: "nothing signs", change: func(d *Domain, _ *world) { d.Keys = nil }, want: `
			note DKIM no key of the configuration signs mail of d.example => srvrelay dkim keygen --domain d.example
			note DMARC DMARC of d.example asks for quarantine, and no key of the configuration signs => srvrelay dkim keygen --domain d.example`},
		{what: "no DMARC", changes: "_dmarc.d. => _x.d.", want: `
			note DMARC d.example has no DMARC record => _dmarc.d.example. 3600 IN TXT "v=DMARC1; p=none; rua=mailto:postmaster@d.example"`},
		{what: "two DMARC", changes: ` => _dmarc.d.example. TXT "v=DMARC1; p=none"`, want: `
			warning DMARC d.example has 2 DMARC records => remove all but one at _dmarc.d.example`},
		{what: "DMARC without a policy", changes: "p=quarantine; => ", want: `
			warning DMARC the DMARC record of d.example cannot be read: record is missing a 'p' parameter => _dmarc.d.example. 3600 IN TXT "v=DMARC1; p=none; `},
		{what: "DMARC with an unknown policy", changes: "p=quarantine => p=refuse", want: `
			warning DMARC the DMARC record of d.example cannot be read: invalid policy => _dmarc.d.example. 3600 IN TXT`},
		{what: "DMARC of another version", changes: "v=DMARC1 => v=DMARC2", want: `
			warning DMARC does not begin with v=DMARC1; => _dmarc.d.example. 3600 IN TXT`},
		{what: "DMARC reports to no address", changes: "mailto:a@d.example!10m => a@d.example", want: `
			warning DMARC names "a@d.example" in rua= => _dmarc.d.example. 3600 IN TXT`},
		{what: "no TLSRPT", changes: "_smtp._tls.d. => _x.d.", want: `
			note TLSRPT d.example has no TLSRPT record => _smtp._tls.d.example. 3600 IN TXT "v=TLSRPTv1; rua=mailto:postmaster@d.example"`},
		{what: "two TLSRPT", changes: ` => _smtp._tls.d.example. TXT "v=TLSRPTv1; rua=mailto:x@d.example"`, want: `
			warning TLSRPT d.example has 2 TLSRPT records => remove all but one at _smtp._tls.d.example`},
		{what: "TLSRPT of another version", changes: "v=TLSRPTv1 => v=TLSRPT1", want: `
			warning TLSRPT does not begin with v=TLSRPTv1; => _smtp._tls.d.example. 3600 IN TXT`},
		{what: "TLSRPT without an address", changes: "rua=mailto:a@d.example, https => ruf=mailto:a@d.example, https", want: `
			warning TLSRPT the TLSRPT record of d.example has no rua= => _smtp._tls.d.example. 3600 IN TXT`},
		{what: "TLSRPT to a page in clear", changes: "https://x => http://x", want: `
			warning TLSRPT names "http://x.example/r" in rua= => _smtp._tls.d.example. 3600 IN TXT`},
		{what: "TLSA does not answer", changes: " => ;!servfail _2525._tcp.home.d.example. TLSA", want: `
			warning TLSA the DNS does not answer for the TLSA records of _2525._tcp.home.d.example: SERVFAIL => dig +trace _2525._tcp.home.d.example TLSA`},
		{what: "TLSA of a usage that is not for SMTP", changes: " => _2525._tcp.home.d.example. TLSA 1 1 1 " + digest, want: `
			warning TLSA a TLSA record of _2525._tcp.home.d.example is of no use: usage 1 is not for SMTP => remove: _2525._tcp.home.d.example. 3600 IN TLSA 1 1 1 ` + digest},
		{what: "TLSA that is cut off", changes: " => _2525._tcp.home.d.example. TLSA 3 1 1 abcd\n => _2525._tcp.home.d.example. TLSA 3 1 1 " + digest, want: `
			warning TLSA is of no use: a SHA-256 digest has 32 bytes, and not 2 => remove: _2525._tcp.home.d.example. 3600 IN TLSA 3 1 1 abcd`},
		{what: "TLSA at port 25 of a server that has another", changes: " => _25._tcp.home.d.example. TLSA 1 1 1 " + digest},
		{what: "TLSA, signed, and none where it might be", changes: " => _2525._tcp.home.d.example. TLSA 3 1 1 " + digest + "\n => ;!ad", more: edge + "dns: { servers: [RESOLVER], trust_ad: true }\n", want: `
			note TLSA relay.example.net port 25 has no TLSA record, and its zone is signed => srvrelay dns suggest d.example --target relay.example.net:25 --certificate FILE`},
		{what: "TLSA, not signed", changes: " => _2525._tcp.home.d.example. TLSA 3 1 1 " + digest, more: edge + "dns: { servers: [RESOLVER], trust_ad: true }\n", want: `
			note TLSA the TLSA records of _2525._tcp.home.d.example do nothing: the answer is not signed => switch DNSSEC on for the zone of home.d.example`},
		{what: "TLSA of a key that changes by itself", changes: " => _25._tcp.relay.example.net. TLSA 3 1 1 " + digest, want: `
			warning TLSA relay.example.net port 25 has TLSA records of a key, and this relay's certificate gets another key by itself => remove the TLSA records of _25._tcp.relay.example.net`},
		{what: "MTA-STS twice", changes: " => _mta-sts.d.example. TXT \"v=STSv1; id=1\"\n => _mta-sts.d.example. TXT \"v=STSv1; id=2\"", want: `
			warning MTA-STS d.example has 2 MTA-STS records => remove all but one at _mta-sts.d.example`},
		{what: "no PTR", changes: "1.100.5.5.in-addr.arpa. PTR relay.example.net. => ", want: `
			warning PTR the address 5.5.100.1 has no name (PTR) => 1.100.5.5.in-addr.arpa. 3600 IN PTR relay.example.net.`},
		{what: "a route", change: func(d *Domain, _ *world) { d.Route = "route 1" }, want: `
			note route this relay sends mail for d.example by its route 1 => srvrelay explain d.example`},
	} {
		t.Run(c.what, func(t *testing.T) {
			if c.more == "" {
				c.more = edge
			}
			w := newDomainWorld(t, changed(t, goodZone, c.changes), c.more, nil)
			d := Domain{Name: "d.example", Keys: []Key{signs()}}
			if c.change != nil {
				c.change(&d, w)
			}
			w.judged(d, c.want)
		})
	}
}

// TestCheckDomainAtHome: the relay at home sends by a route and is named by SRV
// alone; nothing is wrong with that.
func TestCheckDomainAtHome(t *testing.T) {
	w := newDomainWorld(t, strings.Replace(goodZone, "home.d.example. 60", "home.d.example. 900", 1), `
hostname: home.d.example
listeners: [{ address: ":2525", mode: inbound, tls: none }]
relay_domains: [d.example]
routes: [{ domains: ["*"], to: [{ url: "smtp://relay.example.net:587" }] }]
`, nil)
	spfSays("fail")(nil, w)
	d := Domain{Name: "d.example", Keys: []Key{signs()}, Route: "route 1"}
	const route = "note route by its route 1 => srvrelay explain d.example"
	w.judged(d, route)
	d.Dynamic = true
	w.judged(d, "warning TTL the address of home.d.example is kept for 15m0s => home.d.example. 60 IN A 5.5.100.8\n"+route)
}

// TestCheckDomainElsewhere: a machine that is no relay is not judged itself.
func TestCheckDomainElsewhere(t *testing.T) {
	w := newDomainWorld(t, strings.Replace(goodZone, "d.example. 3600 MX 10 relay.example.net.", "", 1), "public_addresses: [5.5.100.99]", nil)
	spfSays("fail")(nil, w)
	w.judged(Domain{Name: "d.example", Elsewhere: true}, "error MX who does not know SRV finds no server => d.example. 3600 IN MX 10 mail.d.example.")
}

func spfSays(result string) func(*Domain, *world) {
	return func(_ *Domain, w *world) { w.SPF = func(context.Context, netip.Addr, string) string { return result } }
}

// changed replaces each OLD by NEW.
func changed(t *testing.T, zone, changes string) string {
	t.Helper()
	var added []string
	lines := strings.Split(changes, "\n")
	for _, line := range lines {
		old, by, replaces := strings.Cut(line, " => ")
		switch {
		case line == "":
		case !replaces: // one more line of the change before
			added = append(added, line)
		case old == "":
			added = append(added, by)
		case strings.Count(zone, old) != 1:
			t.Fatalf("%q is %d times in the zone", old, strings.Count(zone, old))
		default:
			zone = strings.Replace(zone, old, by, 1)
		}
	}
	return zone + strings.Join(added, "\n") + "\n"
}

// judged wants these findings, and no others but what is in order or could not be
// looked at.
func (w *world) judged(d Domain, want string) {
	w.t.Helper()
	var got []string
	found := CheckDomain(w.t.Context(), w.Env, d)
	complete(w.t, found)
	for _, f := range found {
		if f.Level == OK || f.Level == Skipped {
			continue
		}
		got = append(got, string(f.Level)+" "+f.Check+" "+f.What+" => "+f.Fix)
	}
	var lines []string
	if want = strings.TrimSpace(want); want != "" {
		lines = strings.Split(w.filled(want), "\n")
	}
	good := len(got) == len(lines)
	for i := 0; good && i < len(lines); i++ {
		left, fix, _ := strings.Cut(strings.TrimSpace(lines[i]), " => ")
		head := strings.SplitN(left, " ", 3)
		gotLeft, gotFix, _ := strings.Cut(got[i], " => ")
		good = strings.HasPrefix(gotLeft, head[0]+" "+head[1]+" ") && strings.Contains(gotLeft, head[2]) && strings.Contains(gotFix, fix)
	}
	if !good {
		w.t.Errorf("want:\n%s\ngot:\n%s", strings.Join(lines, "\n"), strings.Join(got, "\n"))
	}
}

// TestCheckDomainConnects: which servers answer.
func TestCheckDomainConnects(t *testing.T) {
	const zone = `
_smtp._tcp.d.example. 300 SRV 10 0 @home@ home.d.example.
_smtp._tcp.d.example. 300 SRV 20 0 @backup@ backup.d.example.
d.example. MX 10 mx.d.example.
d.example. TXT "v=spf1 mx -all"
home.d.example. 60 A 127.0.0.1
backup.d.example. 60 A 127.0.0.1
mx.d.example. A 127.0.0.1
_dmarc.d.example. TXT "v=DMARC1; p=none"
_smtp._tls.d.example. TXT "v=TLSRPTv1; rua=mailto:a@d.example"
relay.example.net. A 5.5.100.1
1.100.5.5.in-addr.arpa. PTR relay.example.net.
`
	const more = edge + `
delivery: { mx_port: @mx@, egress: { allow: [127.0.0.1/32] } }
`
	up := map[string]string{"home": "", "backup": "", "mx": ""}
	d := Domain{Name: "d.example"}
	const noKey = "\nnote DKIM no key of the configuration signs"
	w := newDomainWorld(t, zone, more, up)
	// 127.0.0.1 is the machine's own address: the MX host is this machine, whose port is not the relay's.
	const other = "warning MX the MX host mx.d.example is this machine, and this relay has no listener at its port 25 => listeners:\n" +
		`warning servers mx.d.example port @mx@ (127.0.0.1) is this machine, and another server answers: "mx.test`
	w.judged(d, other+noKey)
	for _, name := range []string{"home", "backup", "mx"} {
		if said := strings.Join(w.sinks[name].Dialogue(), "\n"); !strings.Contains(said, "QUIT") || strings.Contains(said, "MAIL") {
			t.Errorf("not a short and polite visit to %s:\n%s", name, said)
		}
	}
	w.sinks["home"].Stop()
	w.judged(d, strings.Replace(other, "\n", "\nwarning servers home.d.example port @home@ (127.0.0.1) does not answer: connection refused => nc -v 127.0.0.1 @home@\n", 1)+noKey)
	w.sinks["backup"].Stop()
	w.judged(d, "error servers home.d.example port @home@ (127.0.0.1) does not answer, and no other server does\nerror servers backup.d.example port @backup@\n"+other+noKey)
}

// TestCheckDomainKeys: the certificate that a server shows is compared with its TLSA
// records, and the line that is proposed is right: with it nothing is wrong.
func TestCheckDomainKeys(t *testing.T) {
	const zone = `
_smtp._tcp.d.example. 300 SRV 10 0 @home@ home.d.example.
d.example. MX 10 relay.example.net.
d.example. TXT "v=spf1 mx -all"
_dmarc.d.example. TXT "v=DMARC1; p=none"
_smtp._tls.d.example. TXT "v=TLSRPTv1; rua=mailto:a@d.example"
_mta-sts.d.example. TXT "v=STSv1; id=1"
home.d.example. 60 A 127.0.0.1
relay.example.net. A 5.5.100.1
1.100.5.5.in-addr.arpa. PTR relay.example.net.
k._domainkey.d.example. TXT "v=DKIM1; k=ed25519; p=6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw="
_@home@._tcp.home.d.example. 3600 TLSA 3 1 1 a0e78cb6da349638abbb670a802f10b9f84f7075df0d74e627bb1d86e6ec0902
. SOA ns.invalid. h.invalid. 1 3600 600 86400 5
`
	const more = edge + "delivery: { egress: { allow: [127.0.0.1/32] } }\n"
	d := Domain{Name: "d.example", Keys: []Key{signs()}}
	w := newDomainWorld(t, zone, more, map[string]string{"home": "offer STARTTLS"})
	fixed := ""
	for _, f := range CheckDomain(t.Context(), w.Env, d) {
		if f.Check == "TLSA" && f.Level == Error {
			fixed, _, _ = strings.Cut(f.Fix, "   ;")
		}
	}
	w.judged(d, "error TLSA the certificate of home.d.example port @home@ (127.0.0.1) is not that of any of its TLSA records => _@home@._tcp.home.d.example. 3600 IN TLSA 3 1 1 ")
	lines := strings.Split(w.filled(zone), "\n")
	for i, line := range lines {
		if strings.Contains(line, " TLSA ") {
			lines[i] = fixed
		}
	}
	publish := func(lines ...string) {
		t.Helper()
		if err := w.dns.SetZone(strings.Join(lines, "\n")); err != nil {
			t.Fatal(err)
		}
		resolver, err := dnsutil.New(dnsutil.Config{Servers: w.Config.DNS.Servers}) // without what it remembers
		if err != nil {
			t.Fatal(err)
		}
		w.Resolver = resolver
	}
	publish(lines...)
	w.judged(d, "")
	seen := false
	for _, f := range CheckDomain(t.Context(), w.Env, d) {
		seen = seen || f.Check == "TLSA" && f.Level == OK && strings.HasSuffix(f.What, "is that of its TLSA records")
	}
	if !seen {
		t.Error("the certificate was not looked at")
	}
	said := strings.Join(w.sinks["home"].Dialogue(), "\n")
	if !strings.Contains(said, "STARTTLS") || !strings.Contains(said, "QUIT") || strings.Contains(said, "MAIL") {
		t.Errorf("not a short and polite visit:\n%s", said)
	}
	if err := w.sinks["home"].SetScript(""); err != nil {
		t.Fatal(err)
	}
	w.judged(d, "error TLSA home.d.example port @home@ (127.0.0.1) has TLSA records and shows no certificate: it offers no STARTTLS => switch STARTTLS on there")
}

// TestStrangeAnswers: what strangers publish is shown so that it cannot harm a
// terminal, and not without bounds.
func TestStrangeAnswers(t *testing.T) {
	w := newDomainWorld(t, strings.Replace(goodZone, "v=spf1 a:relay.example.net -all", `v=spf1 \027[31m`+strings.Repeat("x", 200)+`" "`+strings.Repeat(`\007\226\128\174`, 60), 1)+
		`k._domainkey.d.example. TXT "p=\027[2J"`+"\n"+`_smtp._tcp.d.example. SRV 10 0 0 \027\007x.d.example.`, edge, nil)
	spfSays("fail")(nil, w)
	for _, f := range CheckDomain(t.Context(), w.Env, Domain{Name: "d.example", Keys: []Key{signs()}}) {
		for _, text := range []string{f.What, f.Why, f.Fix} {
			if strings.ContainsAny(text, "\x1b\x07\n\u202e") || len(text) > 1500 {
				t.Errorf("%q", text)
			}
		}
	}
}
