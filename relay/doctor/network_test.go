package doctor

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/dnsutil"
	"srvrelay/queue"
)

func TestResolvers(t *testing.T) {
	t.Run("in order", func(t *testing.T) {
		newWorld(t, "", "", nil).expect(checkResolvers, "ok answers in ")
	})
	t.Run("nobody there", func(t *testing.T) {
		newWorld(t, "", `dns: { servers: ["127.0.0.1:1"] }`, nil).expect(checkResolvers, "error no resolver answers (127.0.0.1:1: connection refused)")
	})
	t.Run("one of two", func(t *testing.T) {
		newWorld(t, "", `dns: { servers: ["RESOLVER", "127.0.0.1:1"] }`+"\n", nil).expect(checkResolvers, `
			ok answers in
			warning the resolver 127.0.0.1:1 does not answer: connection refused`)
	})
	t.Run("refuses SRV", func(t *testing.T) {
		newWorld(t, ";!refused _smtp._tcp.gmail.com SRV", "", nil).expect(checkResolvers, "error does not answer questions for SRV records: REFUSED")
	})
	t.Run("validates", func(t *testing.T) {
		newWorld(t, ";!ad", "", nil).expect(checkResolvers, `
			note validates DNSSEC, and is not believed
			ok answers in`)
		newWorld(t, ";!ad", `dns: { servers: ["RESOLVER"], trust_ad: true }`, nil).expect(checkResolvers, "ok answers in ")
		newWorld(t, "", `dns: { servers: ["RESOLVER"], trust_ad: true }`, nil).expect(checkResolvers, "warning dns.trust_ad is set, and the resolver RESOLVER does not validate")
	})
}

// TestJudgeResolvers: what no server on loopback shows.
func TestJudgeResolvers(t *testing.T) {
	good := dnsutil.Health{Server: "192.0.2.53:53", Took: time.Millisecond, EDNS: true}
	for want, change := range map[string]func(*dnsutil.Health) (trustAD bool){
		"ok answers in 1ms": func(h *dnsutil.Health) bool { return false },
		"error gives the address 203.0.113.80 to names that do not exist": func(h *dnsutil.Health) bool {
			h.Invented = []netip.Addr{netip.MustParseAddr("203.0.113.80")}
			return false
		},
		"warning does not answer over TCP: timeout": func(h *dnsutil.Health) bool { h.TCP = "timeout"; return false },
		"ok answers": func(h *dnsutil.Health) bool { h.EDNS = false; return false }, // TCP carries what is large
		"warning does not answer over TCP: timeout|warning does not speak EDNS0": func(h *dnsutil.Health) bool { h.TCP, h.EDNS = "timeout", false; return false },
		"warning took 1.5s to answer":                                            func(h *dnsutil.Health) bool { h.Took = 1500 * time.Millisecond; return false },
		"warning trust_ad believes the resolver 192.0.2.53:53 on":                func(h *dnsutil.Health) bool { h.AD = true; return true },
	} {
		h := good
		trust := change(&h)
		w := &world{t: t}
		w.expect(func(context.Context, *Env) []Finding { return judgeResolvers([]dnsutil.Health{h}, trust) }, strings.ReplaceAll(want, "|", "\n"))
	}
}

const gmailZone = `
gmail.com. MX 5 mx.gmail.com.
mx.gmail.com. A 127.0.0.1
mx.gmail.com. AAAA ::1
`

func TestOutbound(t *testing.T) {
	up, closed := map[string]string{"mx": ""}, map[string]string{"mx": "", "closed": "banner drop"}
	t.Run("open, found by DNS", func(t *testing.T) {
		w := newWorld(t, gmailZone, "delivery: { mx_port: @mx@ }", up)
		w.expect(checkOutbound, `ok port 25 is open: 127.0.0.1:@mx@ says "mx.test`)
		if said := strings.Join(w.sinks["mx"].Dialogue(), "\n"); !strings.Contains(said, "QUIT") || strings.Contains(said, "EHLO") {
			t.Errorf("not a short and polite visit:\n%s", said)
		}
	})
	t.Run("blocked", func(t *testing.T) {
		w := newWorld(t, "", "", nil)
		w.Probes = []string{"127.0.0.1:1"}
		w.expect(checkOutbound, "error port 25 out of this machine is blocked: 127.0.0.1:1: connection refused")
	})
	t.Run("blocked, with a smarthost", func(t *testing.T) {
		w := newWorld(t, "", `routes: [{ domains: ["*"], to: [{ url: "smtp://127.0.0.1:2525" }] }]`, nil)
		w.Probes = []string{"127.0.0.1:1"}
		w.expect(checkOutbound, "note port 25 out of this machine is blocked: 127.0.0.1:1: connection refused")
	})
	t.Run("blocked at an edge", func(t *testing.T) {
		w := newWorld(t, "", "listeners: [{ address: \"127.0.0.1:0\", mode: inbound, tls: none }]\npostmaster: a@example.org\n", nil)
		w.Probes = []string{"127.0.0.1:1"}
		w.expect(checkOutbound, "warning port 25 out of this machine is blocked: 127.0.0.1:1: connection refused")
	})
	t.Run("no banner", func(t *testing.T) {
		w := newWorld(t, "", "", closed)
		w.Probes = []string{w.filled("127.0.0.1:@closed@")}
		w.expect(checkOutbound, "error blocked: 127.0.0.1:@closed@: no banner: it closes the connection")
	})
	t.Run("a refusal in the banner", func(t *testing.T) {
		w := newWorld(t, "", "", map[string]string{"mx": `banner 554 5.7.1 go\x1b away`})
		w.Probes = []string{w.filled("127.0.0.1:@mx@")}
		w.expect(checkOutbound, "error no banner: it says 554 5.7.1 go? away")
	})
	t.Run("a banner without end", func(t *testing.T) {
		w := newWorld(t, "", "", map[string]string{"mx": "banner " + strings.Repeat(`220-no end\n`, maxGreeting/8) + "220 after all"})
		w.Probes = []string{w.filled("127.0.0.1:@mx@")}
		w.expect(checkOutbound, "error blocked: 127.0.0.1:@mx@: no banner: ")
	})
	t.Run("one of two", func(t *testing.T) {
		w := newWorld(t, "", "", closed)
		w.Probes = []string{w.filled("127.0.0.1:@closed@"), w.filled("127.0.0.1:@mx@")}
		w.expect(checkOutbound, "note 1 of 2 servers could be reached, but not 127.0.0.1:@closed@")
	})
	t.Run("a machine without IPv4", func(t *testing.T) {
		w := newWorld(t, gmailZone, "delivery: { mx_port: @mx@ }", up)
		for want, addrs := range map[bool]string{true: "127.0.0.1 ::1 2001:db8::1", false: "127.0.0.1 ::1 2001:db8::1 192.0.2.1"} {
			w.Machine.Addresses = func() (out []netip.Addr, err error) {
				for _, a := range strings.Fields(addrs) {
					out = append(out, netip.MustParseAddr(a))
				}
				return out, nil
			}
			if w.onlyIPv6() != want {
				t.Errorf("%s: %v", addrs, !want)
			}
		}
	})
	t.Run("not known", func(t *testing.T) {
		newWorld(t, "", "", nil).expect(checkOutbound, "skipped no mail server of gmail.com, outlook.com, yahoo.com is known")
	})
	t.Run("not wanted", func(t *testing.T) {
		w := newWorld(t, gmailZone, "delivery: { mx_port: @mx@ }", up)
		w.Connect = false
		w.expect(checkOutbound, "skipped --connect=false")
		if n := len(w.sinks["mx"].Dialogue()); n > 0 {
			t.Error("it connects all the same")
		}
	})
}

const hostZone = `
relay.example.net. A 203.0.113.5
5.113.0.203.in-addr.arpa. PTR relay.example.net.
`

func TestHostname(t *testing.T) {
	const public = "public_addresses: [\"203.0.113.5\"]"
	for name, c := range map[string]struct{ zone, config, want string }{
		"in order":        {hostZone, public, "ok hostname relay.example.net is 203.0.113.5, and back"},
		"no full name":    {"", "hostname: relay", "skipped hostname relay is not a full name"},
		"no address":      {"", public, "error hostname relay.example.net has no address in the DNS"},
		"not ours":        {hostZone, "", "warning hostname relay.example.net is 203.0.113.5, which is no address of this machine"},
		"private":         {"relay.example.net. A 127.0.0.1", "", "warning hostname relay.example.net is the private address 127.0.0.1"},
		"no PTR":          {"relay.example.net. A 203.0.113.5", public, "warning the address 203.0.113.5 has no name (PTR)"},
		"PTR of another":  {"relay.example.net. A 203.0.113.5\n5.113.0.203.in-addr.arpa. PTR isp.test.", public, "warning the name (PTR) of 203.0.113.5 is isp.test, which does not lead back"},
		"PTR and back":    {"relay.example.net. A 203.0.113.5\nisp.test. A 203.0.113.5\n5.113.0.203.in-addr.arpa. PTR isp.test.", public, "note the name (PTR) of 203.0.113.5 is isp.test, and hostname is relay.example.net"},
		"DNS fails":       {";!servfail relay.example.net", public, "skipped the addresses of relay.example.net: SERVFAIL"},
		"reverse fails":   {hostZone + ";!servfail 5.113.0.203.in-addr.arpa", public, "skipped the name (PTR) of 203.0.113.5: SERVFAIL"},
		"one of two ours": {hostZone + "relay.example.net. A 198.51.100.9", public, "ok hostname relay.example.net is 203.0.113.5, and back"},
	} {
		t.Run(name, func(t *testing.T) { newWorld(t, c.zone, c.config, nil).expect(checkHostname, c.want) })
	}
}

func TestRelayDomains(t *testing.T) {
	const (
		home = "relay_domains: [home.example.org]"
		edge = home + "\nlisteners: [{ address: \"127.0.0.1:0\", mode: inbound, tls: none }]\n"
		srv  = "_smtp._tcp.home.example.org. SRV 0 0 @home@ home.example.org.\nhome.example.org. A 127.0.0.1\n"
	)
	up := map[string]string{"home": "", "backup": "", "broken": "banner 421 4.3.2 not now"}
	for name, c := range map[string]struct{ zone, config, want string }{
		"in order":      {srv, home, `ok home.example.org port @home@ answers for home.example.org: "home.test`},
		"none":          {"", "", ""},
		"no such name":  {"", home, "error mail for home.example.org has no way: "},
		"a wildcard":    {"", "relay_domains: [.example.org]", "skipped .example.org stands for every name below it"},
		"DNS fails":     {";!servfail _smtp._tcp.home.example.org", home, "error mail for home.example.org has no way: "},
		"refused":       {"_smtp._tcp.home.example.org. SRV 0 0 2525 home.example.org.\nhome.example.org. A 10.0.0.9\n", home, "error (egress-address)"},
		"does not talk": {strings.ReplaceAll(srv, "@home@", "@broken@"), home, "error no server of home.example.org answers: home.example.org port @broken@ 127.0.0.1: no banner: it says 421 4.3.2 not now"},
		"one refused": {srv + "_smtp._tcp.home.example.org. SRV 5 0 6379 home.example.org.", home, `
			warning home.example.org port 6379 of home.example.org is never tried:
			ok answers for home.example.org`},
		"backup answers": {"_smtp._tcp.home.example.org. SRV 0 0 @broken@ home.example.org.\n_smtp._tcp.home.example.org. SRV 9 0 @backup@ home.example.org.\nhome.example.org. A 127.0.0.1\n", home,
			"warning only a backup answers for home.example.org: home.example.org port @broken@"},
		"no MX": {srv, edge, `
			ok answers for home.example.org
			note home.example.org has no MX records`},
		"MX elsewhere": {srv + "home.example.org. MX 10 mx.test.\nmx.test. A 192.0.2.1", edge, `
			ok answers for home.example.org
			note the MX records of home.example.org name mx.test, and not this relay`},
		"MX by name": {srv + "home.example.org. MX 10 relay.example.net.", edge, `
			ok answers for home.example.org
			ok the MX records of home.example.org name this relay`},
		"MX by address": {srv + "home.example.org. MX 10 edge.test.\nedge.test. A 127.0.0.1", edge, `
			ok answers for home.example.org
			ok the MX records of home.example.org name this relay`},
	} {
		t.Run(name, func(t *testing.T) { newWorld(t, c.zone, c.config, up).expect(checkRelayDomains, c.want) })
	}
	t.Run("a loop", func(t *testing.T) {
		w := newWorld(t, "home.example.org. MX 0 mx.test.\nmx.test. A 203.0.113.5", home+"\npublic_addresses: [\"203.0.113.5:25\"]", nil)
		w.expect(checkRelayDomains, "error (mail-loop)")
	})
	t.Run("TLS from the first byte", func(t *testing.T) {
		w := newWorld(t, "", home, map[string]string{"tls": ""})
		w.Plan = func(context.Context, string) plan.Plan {
			at := plan.Target{Host: "h.test", Port: uint16(w.sinks["tls"].Port()), Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, TLS: plan.TLSRule{Implicit: true}}
			return plan.Plan{Verdict: queue.Sent, Targets: []plan.Target{at}}
		}
		w.expect(checkRelayDomains, "ok h.test port @tls@ answers for home.example.org")
	})
	t.Run("without connecting", func(t *testing.T) {
		w := newWorld(t, srv, home, up)
		w.Connect = false
		w.expect(checkRelayDomains, `
			ok mail for home.example.org goes to home.example.org port @home@
			skipped whether the server of home.example.org answers: --connect=false`)
		if n := len(w.sinks["home"].Dialogue()); n > 0 {
			t.Error("it connects all the same")
		}
	})
}

func TestListenersOfAStoppedRelay(t *testing.T) {
	const one = "listeners: [{ address: \"127.0.0.1:@taken@\", mode: submission, tls: none, trusted_networks: [127.0.0.0/8] }]"
	const stopped = "\nnote no relay is running with this configuration"
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().String()
	free.Close()
	newWorld(t, "", strings.ReplaceAll(one, "127.0.0.1:@taken@", port), nil).expect(checkListeners, "ok listener "+port+": the port is free"+stopped)
	newWorld(t, "", "", nil).expect(checkListeners, "skipped listener 127.0.0.1:0: the system chooses its port"+stopped)
	newWorld(t, "", strings.ReplaceAll(one, "127.0.0.1:@taken@", "192.0.2.1:2525"), nil).expect(checkListeners, "error listener 192.0.2.1:2525: no network interface has this address"+stopped)
	w := newWorld(t, "", one, map[string]string{"taken": ""})
	w.expect(checkListeners, "error listener 127.0.0.1:@taken@: the port is taken by another program"+stopped)
	w.Machine = Linux() // which knows that it is this very process
	w.expect(checkListeners, "error listener 127.0.0.1:@taken@: the port is taken by doctor.test (process "+stopped)
}

func TestListenersOfARunningRelay(t *testing.T) {
	for name, c := range map[string]struct{ tls, script, want string }{
		"in order":        {"none", "", "ok listener 127.0.0.1:@door@ answers as inbound, tls none"},
		"with STARTTLS":   {"starttls", "offer STARTTLS", "ok listener 127.0.0.1:@door@ answers as inbound, tls starttls"},
		"without":         {"starttls", "", "error listener 127.0.0.1:@door@: STARTTLS is configured, and not offered"},
		"crowded":         {"none", "banner 421 4.3.2 too many", "error no banner: it says 421 4.3.2 too many"},
		"no EHLO":         {"none", "ehlo 554 no", "error EHLO: it says 554 no"},
		"clear, not TLS":  {"implicit", "", "error no banner: "},
		"nobody listens":  {"none", "gone", "error listener 127.0.0.1:@door@: connection refused"},
		"hangs up at all": {"none", "banner drop", "error no banner: it closes the connection"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "", "relay_domains: [a.test]\nlisteners: [{ address: \"127.0.0.1:@door@\", mode: inbound, tls: "+c.tls+" }]", map[string]string{"door": strings.TrimPrefix(c.script, "gone")})
			if c.script == "gone" {
				w.sinks["door"].Stop()
			}
			w.Relay = Running
			w.expect(checkListeners, c.want)
		})
	}
	w := newWorld(t, "", "relay_domains: [a.test]\nlisteners: [{ address: \"127.0.0.1:@tls@\", mode: inbound, tls: implicit }]", map[string]string{"tls": ""})
	w.Relay = Running
	w.expect(checkListeners, "ok listener 127.0.0.1:@tls@ answers as inbound, tls implicit")
	for host, want := range map[string]string{"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "192.0.2.1": "192.0.2.1", "localhost": "localhost"} {
		if got := reachable(host); got != want {
			t.Errorf("reachable(%q) = %q", host, got)
		}
	}
}
