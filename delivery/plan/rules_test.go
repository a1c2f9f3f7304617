package plan

import (
	"strings"
	"testing"
	"time"
)

// base is a relay with a public address behind which it listens on port 25.
func base() Config {
	return Config{
		MXFallback: true, RelayDomains: []string{"home.test", ".below.test"},
		Own: Own{
			Listeners: addrPorts("[::]:25", "0.0.0.0:587", "127.0.0.1:2525"), Public: addrPorts("45.0.0.1"),
			Machine: machine("192.168.7.7", "2a01::7", "46.0.0.1"),
		},
		Rand: func(uint32) uint32 { return 0 },
	}
}

// rule is one case: a zone, a domain, and the plan that must come out.
type rule struct {
	name   string
	zone   string
	domain string // default a.test
	change func(*Config)
	mem    Memory
	want   string
	says   string // must occur in a note or a detail
}

func allow(p ...string) func(*Config) {
	return func(c *Config) { c.Egress.Allow = prefixes(p...) }
}

func noFallback(c *Config) { c.MXFallback = false }

func TestRules(t *testing.T) {
	for _, group := range [][]rule{sourceRules(), failureRules(), hostRules(), selfRules(), duplicateRules(), guardRules(), relayRules()} {
		for _, c := range group {
			t.Run(c.name, func(t *testing.T) { c.run(t) })
		}
	}
}

func (c rule) run(t *testing.T) {
	cfg := base()
	if c.change != nil {
		c.change(&cfg)
	}
	if c.domain == "" {
		c.domain = "a.test"
	}
	z := newZone(t, c.zone)
	p := New(cfg, z, c.mem).Plan(t.Context(), c.domain)
	z.asked = withoutAddrs(z.asked)
	if got, want := render(p, z.asked), trim(c.want); got != want {
		t.Errorf("plan:\n%s\nwant:\n%s\nnotes: %q", got, want, p.Notes)
	}
	words := strings.Join(p.Notes, "\n")
	for _, d := range p.Dropped {
		words += "\n" + d.Detail
	}
	if !strings.Contains(words, c.says) {
		t.Errorf("nothing says %q; notes and details:\n%s", c.says, words)
	}
	checkPlan(t, p)
}

// checkPlan is what holds for every plan.
func checkPlan(t *testing.T, p Plan) {
	t.Helper()
	if (p.Verdict.String() == "sent") != (len(p.Targets) > 0) || (p.Status.Code == "") != (len(p.Targets) > 0) {
		t.Errorf("verdict %s and status %v with %d targets", p.Verdict, p.Status, len(p.Targets))
	}
	if p.Status.Reply != "" || p.Status.MTA != "" || p.Status.Target != "" {
		t.Errorf("status with somebody else's words: %+v", p.Status)
	}
	if p.Status.Code != "" && p.Status.Text == "" {
		t.Error("status without words")
	}
	for _, d := range p.Dropped { // the sender reads the text; in a literal the address is his own word
		if d.Host != "" && d.Addr.IsValid() && strings.Contains(p.Status.Text, d.Addr.String()) {
			t.Errorf("the status shows the address %s: %s", d.Addr, p.Status.Text)
		}
	}
	for _, target := range p.Targets {
		if target.TLS.Level != TLSMay || target.TLS.Why != "opportunistic" || target.TLS.Implicit {
			t.Errorf("TLS rule %+v", target.TLS)
		}
		if len(target.Addrs) == 0 || target.Chance <= 0 || target.Chance > 1 {
			t.Errorf("target %+v", target)
		}
	}
}

func trim(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// withoutAddrs leaves the questions that decide the source, in order.
func withoutAddrs(asked []string) []string {
	var out []string
	for _, q := range asked {
		if !strings.HasPrefix(q, "A ") {
			out = append(out, q)
		}
	}
	return out
}

func sourceRules() []rule {
	return []rule{
		{name: "better than ourselves, but without an address", domain: "home.test",
			zone: "_smtp._tcp.home.test SRV 10 0 2525 dyn.home.test\n_smtp._tcp.home.test SRV 20 0 25 us.test\nus.test A 46.0.0.1",
			want: "defer srv 4.4.4 no-address ALARM\n- 20 us.test:25 46.0.0.1 self\n- 10 dyn.home.test:2525 no-address\n? SRV _smtp._tcp.home.test"},
		{name: "literal IPv4", domain: "[50.0.0.1]", want: "sent address-literal\n+ 0 :25 50.0.0.1"},
		{name: "literal IPv6", domain: "[ipv6:2A02::0:1]", want: "sent address-literal\n+ 0 :25 2a02::1"},
		{name: "literal that maps IPv4", domain: "[IPv6:::ffff:50.0.0.1]", want: "sent address-literal\n+ 0 :25 50.0.0.1"},
		{name: "literal uses mx_port", domain: "[50.0.0.1]", change: func(c *Config) { c.MXPort = 2500 },
			want: "sent address-literal\n+ 0 :2500 50.0.0.1"},
		{name: "literal that is malformed", domain: "[50.0.0]", want: "fail 5.1.2 bad-domain"},
		{name: "domain that is malformed", domain: "a..test", want: "fail 5.1.2 bad-domain"},
		{name: "domain that is an address", domain: "50.0.0.1", want: "fail 5.1.2 bad-domain"},
		{name: "domain in another form", domain: "Bücher.TEST.",
			zone: "_smtp._tcp.xn--bcher-kva.test SRV 0 0 2525 m.test\nm.test A 50.0.0.1",
			want: "sent srv\n+ 0 m.test:2525 50.0.0.1\n? SRV _smtp._tcp.xn--bcher-kva.test"},

		{name: "SRV is the plan and MX not asked", zone: `
			_smtp._tcp.a.test SRV 20 0 2526 m2.test
			_smtp._tcp.a.test SRV 10 0 2525 m1.test
			a.test MX 1 wrong.test
			m1.test A 50.0.0.1
			m2.test A 50.0.0.2
			wrong.test A 50.0.0.9`,
			want: "sent srv\n+ 10 m1.test:2525 50.0.0.1\n+ 20 m2.test:2526 50.0.0.2\n? SRV _smtp._tcp.a.test"},
		{name: "high weight stays in its priority", zone: `
			_smtp._tcp.a.test SRV 11 0 2526 m2.test
			_smtp._tcp.a.test SRV 10 2500 2525 m1.test
			m1.test A 50.0.0.1
			m2.test A 50.0.0.2`,
			want: "sent srv\n+ 10 m1.test:2525 50.0.0.1\n+ 11 m2.test:2526 50.0.0.2\n? SRV _smtp._tcp.a.test"},
		{name: "null SRV", zone: "_smtp._tcp.a.test SRV 0 0 0 .\na.test MX 1 m.test\nm.test A 50.0.0.1",
			want: "fail srv 5.1.2 null-srv\n? SRV _smtp._tcp.a.test"},
		{name: "root beside other records is ignored", zone: `
			_smtp._tcp.a.test SRV 0 0 0 .
			_smtp._tcp.a.test SRV 10 0 2525 m.test
			m.test A 50.0.0.1`,
			want: "sent srv\n+ 10 m.test:2525 50.0.0.1\n- 0 .:0 root-target\n? SRV _smtp._tcp.a.test", says: "is ignored"},
		{name: "no SRV name, then MX", zone: "a.test MX 20 m2.test\na.test MX 10 m1.test\nm1.test A 50.0.0.1\nm2.test A 50.0.0.2",
			want: "sent mx\n+ 10 m1.test:25 50.0.0.1\n+ 20 m2.test:25 50.0.0.2\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "SRV name without SRV, then MX", zone: "_smtp._tcp.a.test A 50.0.0.9\na.test MX 10 m1.test\nm1.test A 50.0.0.1",
			want: "sent mx\n+ 10 m1.test:25 50.0.0.1\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "mx_port", zone: "a.test MX 10 m1.test\nm1.test A 50.0.0.1", change: func(c *Config) { c.MXPort = 26 },
			want: "sent mx\n+ 10 m1.test:26 50.0.0.1\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "no SRV and no fallback", zone: "a.test MX 10 m1.test\nm1.test A 50.0.0.1", change: noFallback,
			want: "fail 5.4.4 no-srv\n? SRV _smtp._tcp.a.test"},
		{name: "null MX", zone: "a.test MX 0 .\na.test A 50.0.0.1",
			want: "fail mx 5.1.10 null-mx\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "root beside other MX records is ignored", zone: "a.test MX 0 .\na.test MX 10 m1.test\nm1.test A 50.0.0.1",
			want: "sent mx\n+ 10 m1.test:25 50.0.0.1\n- 0 .:25 root-target\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "no MX, then its own address", zone: "a.test A 50.0.0.1\na.test A 2a02::1\na.test A 50.0.0.2",
			want: "sent address\n+ 0 a.test:25 2a02::1 50.0.0.1 50.0.0.2\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "its own address on mx_port", zone: "a.test A 50.0.0.1", change: func(c *Config) { c.MXPort = 26 },
			want: "sent address\n+ 0 a.test:26 50.0.0.1\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "no such domain", want: "fail 5.1.2 no-such-domain\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "domain without anything", zone: "a.test CNAME b.test\nb.test SRV 0 0 1 x.test",
			want: "fail 5.4.4 no-address\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "second service", change: func(c *Config) { c.Services = []string{"_relay._tcp", "_smtp._tcp"} },
			zone: "_smtp._tcp.a.test SRV 10 0 2525 m.test\nm.test A 50.0.0.1",
			want: "sent srv\n+ 10 m.test:2525 50.0.0.1\n? SRV _relay._tcp.a.test\n? SRV _smtp._tcp.a.test"},
		{name: "first service with records decides", change: func(c *Config) { c.Services = []string{"_relay._tcp", "_smtp._tcp"} },
			zone: "_relay._tcp.a.test SRV 10 0 2599 m.test\n_smtp._tcp.a.test SRV 10 0 2525 m.test\nm.test A 50.0.0.1",
			want: "sent srv\n+ 10 m.test:2599 50.0.0.1\n? SRV _relay._tcp.a.test"},
	}
}

func failureRules() []rule {
	const mx = "\na.test MX 10 m1.test\nm1.test A 50.0.0.1"
	failed := func(n int, ago time.Duration, saw bool) Memory { return memory{saw, n, time.Now().Add(-ago)} }
	const deferred = "defer 4.4.3 dns-failed\n? SRV _smtp._tcp.a.test"
	return []rule{
		{name: "SRV SERVFAIL defers and MX is not asked", zone: "_smtp._tcp.a.test fails SRV SERVFAIL" + mx, want: deferred},
		{name: "SRV timeout", zone: "_smtp._tcp.a.test fails SRV timeout" + mx, want: deferred, mem: memory{}},
		{name: "SRV fails, too few attempts", zone: "_smtp._tcp.a.test fails SRV REFUSED" + mx, want: deferred, mem: failed(2, 2*time.Hour, false)},
		{name: "SRV fails, too short a time", zone: "_smtp._tcp.a.test fails SRV REFUSED" + mx, want: deferred, mem: failed(9, 29*time.Minute, false)},
		{name: "SRV fails, but was seen before", zone: "_smtp._tcp.a.test fails SRV REFUSED" + mx, want: deferred, mem: failed(9, 9*time.Hour, true)},
		{name: "SRV fails for long, no fallback", zone: "_smtp._tcp.a.test fails SRV REFUSED" + mx, change: noFallback, want: deferred, mem: failed(9, 9*time.Hour, false)},
		{name: "SRV fails for long and was never seen", zone: "_smtp._tcp.a.test fails SRV REFUSED" + mx, mem: failed(3, 31*time.Minute, false),
			want: "sent mx\n+ 10 m1.test:25 50.0.0.1\n? SRV _smtp._tcp.a.test\n? MX a.test", says: "srv-unanswered"},
		{name: "failure of the first service defers", change: func(c *Config) { c.Services = []string{"_relay._tcp", "_smtp._tcp"} },
			zone: "_relay._tcp.a.test fails SRV SERVFAIL\n_smtp._tcp.a.test SRV 10 0 2525 m1.test" + mx,
			want: "defer 4.4.3 dns-failed\n? SRV _relay._tcp.a.test"},
		{name: "MX fails", zone: "a.test fails MX SERVFAIL\na.test A 50.0.0.1",
			want: "defer 4.4.3 dns-failed\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "own address fails", zone: "a.test fails A timeout",
			want: "defer 4.4.3 dns-failed\n? SRV _smtp._tcp.a.test\n? MX a.test"},
	}
}

func hostRules() []rule {
	return []rule{
		{name: "families interleave within a target", zone: `
			_smtp._tcp.a.test SRV 10 0 2525 m1.test
			_smtp._tcp.a.test SRV 20 0 2525 m2.test
			m1.test A 50.0.0.1
			m1.test A 50.0.0.2
			m1.test A 2a02::1
			m1.test A 2a02::2
			m1.test A 2a02::3
			m2.test A 2a02::9`,
			want: "sent srv\n+ 10 m1.test:2525 2a02::1 50.0.0.1 2a02::2 50.0.0.2 2a02::3\n+ 20 m2.test:2525 2a02::9\n? SRV _smtp._tcp.a.test"},
		{name: "CNAME target is followed and noted", zone: "_smtp._tcp.a.test SRV 10 0 2525 m1.test\nm1.test CNAME real.test\nreal.test A 50.0.0.1",
			want: "sent srv\n+ 10 m1.test:2525 50.0.0.1\n? SRV _smtp._tcp.a.test", says: "m1.test is an alias (CNAME) of real.test"},
		{name: "host whose look-up failed is skipped", zone: `
			_smtp._tcp.a.test SRV 10 0 2525 m1.test
			_smtp._tcp.a.test SRV 20 0 2525 m2.test
			m1.test fails A SERVFAIL
			m2.test A 50.0.0.2`,
			want: "sent srv\n+ 20 m2.test:2525 50.0.0.2\n- 10 m1.test:2525 dns-failed\n? SRV _smtp._tcp.a.test"},
		{name: "no target left and a look-up failed", zone: `
			_smtp._tcp.a.test SRV 10 0 2525 m1.test
			_smtp._tcp.a.test SRV 20 0 2525 m2.test
			m1.test fails A SERVFAIL
			a.test A 50.0.0.9`,
			want: "defer srv 4.4.3 dns-failed\n- 10 m1.test:2525 dns-failed\n- 20 m2.test:2525 no-address\n? SRV _smtp._tcp.a.test"},
		{name: "no target has an address, never the domain's own", zone: `
			_smtp._tcp.a.test SRV 10 0 2525 m1.test
			_smtp._tcp.a.test SRV 20 0 2525 m2.test
			m1.test MX 0 x.test
			a.test A 50.0.0.9`,
			want: "fail srv 5.4.4 no-address\n- 10 m1.test:2525 no-address\n- 20 m2.test:2525 no-address\n? SRV _smtp._tcp.a.test"},
		{name: "no MX host has an address, never the domain's own", zone: "a.test MX 10 m1.test\na.test A 50.0.0.9",
			want: "fail mx 5.4.4 no-address\n- 10 m1.test:25 no-address\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "MX host that is an address", zone: "a.test MX 10 50.0.0.9\n50.0.0.9 A 50.0.0.9\na.test MX 20 m.test\nm.test A 50.0.0.1",
			want: "sent mx\n+ 20 m.test:25 50.0.0.1\n- 10 50.0.0.9:25 no-address\n? SRV _smtp._tcp.a.test\n? MX a.test", says: "not the name of a host"},
		{name: "host with one label", zone: "a.test MX 10 m\nm A 50.0.0.1",
			want: "sent mx\n+ 10 m:25 50.0.0.1\n? SRV _smtp._tcp.a.test\n? MX a.test"},
	}
}

func selfRules() []rule {
	const asked = "\n? SRV _smtp._tcp.a.test"
	srv := func(host, addr string, port string) string {
		return "_smtp._tcp.a.test SRV 10 0 " + port + " " + host + "\n" + host + " A " + addr + "\n"
	}
	return []rule{
		{name: "self at a public address is a loop", zone: srv("us.test", "45.0.0.1", "25"),
			want: "fail srv 5.4.6 mail-loop\n- 10 us.test:25 45.0.0.1 self" + asked},
		{name: "public address has every listener's port", zone: srv("us.test", "45.0.0.1", "2525"),
			want: "fail srv 5.4.6 mail-loop\n- 10 us.test:2525 45.0.0.1 self" + asked},
		{name: "public address with its port", zone: srv("us.test", "45.0.0.1", "2600"),
			change: func(c *Config) { c.Own.Public = addrPorts("45.0.0.1:2600") },
			want:   "fail srv 5.4.6 mail-loop\n- 10 us.test:2600 45.0.0.1 self" + asked},
		{name: "wildcard listener is every address of the machine", zone: srv("us.test", "46.0.0.1", "587"),
			want: "fail srv 5.4.6 mail-loop\n- 10 us.test:587 46.0.0.1 self" + asked},
		{name: "wildcard listener is IPv6 too", zone: srv("us.test", "2a01::7", "587"),
			want: "fail srv 5.4.6 mail-loop\n- 10 us.test:587 2a01::7 self" + asked},
		{name: "wildcard listener is all of loopback", zone: srv("us.test", "127.7.7.7", "25"),
			want: "fail srv 5.4.6 mail-loop\n- 10 us.test:25 127.7.7.7 self" + asked},
		{name: "self in a mapped form", zone: srv("us.test", "::ffff:45.0.0.1", "25"),
			want: "fail srv 5.4.6 mail-loop\n- 10 us.test:25 45.0.0.1 self" + asked},
		{name: "self through NAT64", zone: srv("us.test", "64:ff9b::45.0.0.1", "25"),
			want: "fail srv 5.4.6 mail-loop\n- 10 us.test:25 64:ff9b::2d00:1 self" + asked},
		{name: "unspecified address is this machine", zone: srv("us.test", "0.0.0.0", "25"),
			want: "fail srv 5.4.6 mail-loop\n- 10 us.test:25 0.0.0.0 self" + asked},
		{name: "listener at one address is not its neighbour", zone: srv("us.test", "127.0.0.2", "2525"), change: allow("127.0.0.0/8"),
			want: "sent srv\n+ 10 us.test:2525 127.0.0.2" + asked},
		{name: "listener at one address", zone: srv("us.test", "127.0.0.1", "2525"), change: allow("127.0.0.0/8"),
			want: "fail srv 5.4.6 mail-loop\n- 10 us.test:2525 127.0.0.1 self" + asked},
		{name: "our address on another port is not self", zone: srv("us.test", "127.0.0.1", "2526"), change: allow("127.0.0.0/8"),
			want: "sent srv\n+ 10 us.test:2526 127.0.0.1" + asked},
		{name: "equal and worse than self are dropped", zone: srv("us.test", "45.0.0.1", "25") + `
			_smtp._tcp.a.test SRV 5 0 2525 best.test
			_smtp._tcp.a.test SRV 10 0 2525 peer.test
			_smtp._tcp.a.test SRV 20 0 2525 worse.test
			best.test A 50.0.0.1
			peer.test A 50.0.0.2
			worse.test A 50.0.0.3`,
			want: `sent srv
				+ 5 best.test:2525 50.0.0.1
				- 10 us.test:25 45.0.0.1 self
				- 10 peer.test:2525 worse-than-self
				- 20 worse.test:2525 worse-than-self` + asked},
		{name: "equal and worse MX than self are dropped", zone: `
			a.test MX 5 best.test
			a.test MX 10 us.test
			a.test MX 10 peer.test
			us.test A 45.0.0.1
			best.test A 50.0.0.1
			peer.test A 50.0.0.2`,
			want: "sent mx\n+ 5 best.test:25 50.0.0.1\n- 10 us.test:25 45.0.0.1 self\n- 10 peer.test:25 worse-than-self" + asked + "\n? MX a.test"},
		{name: "one address of a host is self", zone: srv("us.test", "45.0.0.1", "25") + "us.test A 50.0.0.1",
			want: "fail srv 5.4.6 mail-loop\n- 10 us.test:25 45.0.0.1 self" + asked},
		{name: "best host cannot be looked up, self behind it", zone: srv("us.test", "45.0.0.1", "25") +
			"_smtp._tcp.a.test SRV 5 0 2525 best.test\nbest.test fails A SERVFAIL",
			want: "defer srv 4.4.3 dns-failed\n- 10 us.test:25 45.0.0.1 self\n- 5 best.test:2525 dns-failed" + asked},
		{name: "worse host cannot be looked up, self before it", zone: srv("us.test", "45.0.0.1", "25") +
			"_smtp._tcp.a.test SRV 15 0 2525 worse.test\nworse.test fails A SERVFAIL",
			want: "fail srv 5.4.6 mail-loop\n- 10 us.test:25 45.0.0.1 self\n- 15 worse.test:2525 worse-than-self" + asked},
		{name: "own address of the domain is self", zone: "a.test A 45.0.0.1",
			want: "fail address 5.4.6 mail-loop\n- 0 a.test:25 45.0.0.1 self" + asked + "\n? MX a.test"},
		{name: "literal that is self", domain: "[45.0.0.1]",
			want: "fail address-literal 5.4.6 mail-loop\n- 0 :25 45.0.0.1 self"},
	}
}

func duplicateRules() []rule {
	const asked = "\n? SRV _smtp._tcp.a.test"
	return []rule{
		{name: "two ports of one host are two ways in", zone: `
			_smtp._tcp.a.test SRV 10 0 2525 m.test
			_smtp._tcp.a.test SRV 20 0 2526 m.test
			m.test A 50.0.0.1`,
			want: "sent srv\n+ 10 m.test:2525 50.0.0.1\n+ 20 m.test:2526 50.0.0.1" + asked},
		{name: "same address and port under two names", zone: `
			_smtp._tcp.a.test SRV 10 0 2525 m1.test
			_smtp._tcp.a.test SRV 20 0 2525 m2.test
			m1.test A 50.0.0.1
			m2.test A 50.0.0.1
			m2.test A 50.0.0.2`,
			want: "sent srv\n+ 10 m1.test:2525 50.0.0.1\n+ 20 m2.test:2525 50.0.0.2\n- 20 m2.test:2525 50.0.0.1 duplicate" + asked,
			says: "as under m1.test"},
		{name: "same record at two priorities", zone: `
			_smtp._tcp.a.test SRV 20 0 2525 m1.test
			_smtp._tcp.a.test SRV 10 0 2525 m1.test
			m1.test A 50.0.0.1`,
			want: "sent srv\n+ 10 m1.test:2525 50.0.0.1\n- 20 m1.test:2525 50.0.0.1 duplicate" + asked},
	}
}

func guardRules() []rule {
	const asked = "\n? SRV _smtp._tcp.a.test"
	srv := func(addr, port string) string {
		return "_smtp._tcp.a.test SRV 10 0 " + port + " m.test\nm.test A " + addr + "\n"
	}
	return []rule{
		{name: "private address", zone: srv("10.1.2.3", "2525"), says: `delivery: { egress: { allow: ["10.1.2.3/32"] } }`,
			want: "fail srv 5.7.1 egress-address\n- 10 m.test:2525 10.1.2.3 egress-address" + asked},
		{name: "private address that is allowed", zone: srv("10.1.2.3", "2525"), change: allow("10.1.0.0/16"),
			want: "sent srv\n+ 10 m.test:2525 10.1.2.3" + asked},
		{name: "allow does not lift the port", zone: srv("10.1.2.3", "6379"), change: allow("10.1.0.0/16"), says: "redis",
			want: "fail srv 5.7.1 egress-port\n- 10 m.test:6379 10.1.2.3 egress-port" + asked},
		{name: "port of another service", zone: srv("50.0.0.1", "6379"), says: "allow_ports: [6379]",
			want: "fail srv 5.7.1 egress-port\n- 10 m.test:6379 50.0.0.1 egress-port" + asked},
		{name: "port that is allowed", zone: srv("50.0.0.1", "6379"), change: func(c *Config) { c.Egress.AllowPorts = []uint16{6379} },
			want: "sent srv\n+ 10 m.test:6379 50.0.0.1" + asked},
		{name: "refused address of a host is skipped", zone: srv("10.1.2.3", "2525") + "m.test A 50.0.0.1",
			want: "sent srv\n+ 10 m.test:2525 50.0.0.1\n- 10 m.test:2525 10.1.2.3 egress-address" + asked},
		{name: "refused target is skipped", zone: srv("10.1.2.3", "2525") + "_smtp._tcp.a.test SRV 20 0 2525 m2.test\nm2.test A 50.0.0.1",
			want: "sent srv\n+ 20 m2.test:2525 50.0.0.1\n- 10 m.test:2525 10.1.2.3 egress-address" + asked},
		{name: "refused target beside a failed look-up defers", zone: srv("10.1.2.3", "2525") + "_smtp._tcp.a.test SRV 20 0 2525 m2.test\nm2.test fails A SERVFAIL",
			want: "defer srv 4.4.3 dns-failed\n- 20 m2.test:2525 dns-failed\n- 10 m.test:2525 10.1.2.3 egress-address" + asked},
		{name: "our own address on another port, for a stranger", zone: srv("46.0.0.1", "2526"), says: "our own address",
			want: "fail srv 5.7.1 egress-own-address\n- 10 m.test:2526 46.0.0.1 egress-own-address" + asked},
		{name: "our public address on another port, for a stranger", zone: srv("45.0.0.1", "2526"),
			want: "fail srv 5.7.1 egress-own-address\n- 10 m.test:2526 45.0.0.1 egress-own-address" + asked},
		{name: "our own address that is allowed", zone: srv("46.0.0.1", "2526"), change: allow("46.0.0.1/32"),
			want: "sent srv\n+ 10 m.test:2526 46.0.0.1" + asked},
		{name: "MX with a private address", zone: "a.test MX 10 m.test\nm.test A 192.168.0.1",
			want: "fail mx 5.7.1 egress-address\n- 10 m.test:25 192.168.0.1 egress-address" + asked + "\n? MX a.test"},
		{name: "domain with a private address", zone: "a.test A 169.254.169.254", says: "cloud metadata",
			want: "fail address 5.7.1 egress-address\n- 0 a.test:25 169.254.169.254 egress-address" + asked + "\n? MX a.test"},
		{name: "literal with a private address", domain: "[10.0.0.1]",
			want: "fail address-literal 5.7.1 egress-address\n- 0 :25 10.0.0.1 egress-address"},
	}
}

func relayRules() []rule {
	const asked = "\n? SRV _smtp._tcp.home.test"
	srv := func(addr, port string) string {
		return "_smtp._tcp.home.test SRV 10 0 " + port + " m.test\nm.test A " + addr + "\n"
	}
	rules := []rule{
		{name: "home behind our own public address", zone: srv("45.0.0.1", "2526"), want: "sent srv\n+ 10 m.test:2526 45.0.0.1" + asked},
		{name: "home at our own address and port", zone: srv("45.0.0.1", "25"),
			want: "defer srv 4.4.6 mail-loop ALARM\n- 10 m.test:25 45.0.0.1 self" + asked},
		{name: "home at loopback still needs allow", zone: srv("127.0.0.1", "2526"),
			want: "defer srv 4.7.1 egress-address ALARM\n- 10 m.test:2526 127.0.0.1 egress-address" + asked},
		{name: "home with a null SRV", zone: "_smtp._tcp.home.test SRV 0 0 0 .", want: "defer srv 4.1.2 null-srv ALARM" + asked},
		{name: "home that does not exist", want: "defer 4.1.2 no-such-domain ALARM" + asked + "\n? MX home.test"},
		{name: "home with a null MX", zone: "home.test MX 0 .", want: "defer mx 4.1.10 null-mx ALARM" + asked + "\n? MX home.test"},
		{name: "home without an address", zone: "_smtp._tcp.home.test SRV 10 0 2525 m.test",
			want: "defer srv 4.4.4 no-address ALARM\n- 10 m.test:2525 no-address" + asked},
		{name: "home without SRV and no fallback", change: noFallback, want: "defer 4.4.4 no-srv ALARM" + asked},
		{name: "home whose look-up fails is no alarm", zone: "_smtp._tcp.home.test fails SRV timeout", want: "defer 4.4.3 dns-failed" + asked},
	}
	for i := range rules {
		rules[i].domain = "home.test"
	}
	return append(rules,
		rule{name: "below a relay domain with a dot", domain: "x.below.test", want: "defer 4.1.2 no-such-domain ALARM\n? SRV _smtp._tcp.x.below.test\n? MX x.below.test"},
		rule{name: "the name with the dot itself is not below it", domain: "below.test", want: "fail 5.1.2 no-such-domain\n? SRV _smtp._tcp.below.test\n? MX below.test"},
		rule{name: "below an exact relay domain is not it", domain: "x.home.test", want: "fail 5.1.2 no-such-domain\n? SRV _smtp._tcp.x.home.test\n? MX x.home.test"},
	)
}
