package plan

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"srvrelay/queue"
)

// routed is a plan by routes. In want a target line ends with what the route
// asks of it.
type routed struct {
	name    string
	to      []NextHop
	hop     string // "" = that of a.test
	zone    string
	want    string
	partial bool
	says    string // in the status, the notes or what was dropped
}

func TestRoutePlans(t *testing.T) {
	host := func(h string, port uint16) NextHop {
		return NextHop{URL: "smtp://" + h, Kind: ByHost, Host: h, Port: port, Level: TLSMay}
	}
	verified := func(n NextHop, names ...string) NextHop {
		n.Level, n.Names, n.Login = TLSVerify, names, &Login{User: "me", Password: "hush"}
		return n
	}
	service := NextHop{URL: "submission+srv://isp.test", Kind: ByService, Host: "isp.test", Service: "_submission._tcp", Level: TLSEncrypt}
	rules := NextHop{URL: "dns:", Kind: ByRules, Level: TLSMay}
	byMX := NextHop{URL: "mx:", Kind: ByMX, Level: TLSMay}
	for _, c := range []routed{
		{name: "a host", to: []NextHop{host("m.test", 2525)}, zone: "m.test A 50.0.0.1",
			want: "sent route\n+ 0 m.test:2525 50.0.0.1 | may"},
		{name: "a private host: the operator wrote it", to: []NextHop{host("m.test", 6379)}, zone: "m.test A 10.0.0.1",
			want: "sent route\n+ 0 m.test:6379 10.0.0.1 | may"},
		{name: "an address", to: []NextHop{host("10.0.0.1", 25)}, want: "sent route\n+ 0 10.0.0.1:25 10.0.0.1 | may"},
		{name: "an IPv6 address", to: []NextHop{host("2a02::1", 25)}, want: "sent route\n+ 0 2a02::1:25 2a02::1 | may"},
		{name: "both families of a host", to: []NextHop{host("m.test", 25)}, zone: "m.test A 50.0.0.1\nm.test A 2a02::1",
			want: "sent route\n+ 0 m.test:25 2a02::1 50.0.0.1 | may"},
		{name: "MX records of a host are not asked", to: []NextHop{host("m.test", 25)}, zone: "m.test MX 0 other.test\nm.test A 50.0.0.1",
			want: "sent route\n+ 0 m.test:25 50.0.0.1 | may"},
		{name: "two hosts in order", to: []NextHop{host("b.test", 25), host("c.test", 26)}, zone: "b.test A 50.0.0.1\nc.test A 50.0.0.2",
			want: "sent route\n+ 0 b.test:25 50.0.0.1 | may\n+ 0 c.test:26 50.0.0.2 | may"},
		{name: "the first does not exist", partial: true, to: []NextHop{host("b.test", 25), host("c.test", 26)}, zone: "c.test A 50.0.0.2",
			want: "sent route\n+ 0 c.test:26 50.0.0.2 | may\n- 0 b.test:25 no-address"},
		{name: "none exists: wait, and tell the operator", to: []NextHop{host("b.test", 25)},
			want: "defer route 4.4.4 no-address ALARM\n- 0 b.test:25 no-address", says: "smtp://b.test"},
		{name: "look-up fails", to: []NextHop{host("b.test", 25)}, zone: "b.test fails A SERVFAIL",
			want: "defer route 4.4.3 dns-failed\n- 0 b.test:25 dns-failed"},
		{name: "the host is ourselves", to: []NextHop{host("60.0.0.1", 25)},
			want: "defer route 4.4.6 mail-loop ALARM\n- 0 60.0.0.1:25 60.0.0.1 self"},
		{name: "nothing behind ourselves", to: []NextHop{host("60.0.0.1", 25), host("50.0.0.1", 25)},
			want: "defer route 4.4.6 mail-loop ALARM\n- 0 60.0.0.1:25 60.0.0.1 self"},
		{name: "better than ourselves", partial: true, to: []NextHop{host("50.0.0.1", 25), host("60.0.0.1", 25)},
			want: "sent route\n+ 0 50.0.0.1:25 50.0.0.1 | may\n- 0 60.0.0.1:25 60.0.0.1 self"},
		{name: "our address on another port", to: []NextHop{host("60.0.0.1", 26)}, want: "sent route\n+ 0 60.0.0.1:26 60.0.0.1 | may"},
		{name: "the same twice", to: []NextHop{host("50.0.0.1", 25), host("50.0.0.1", 25)},
			want: "sent route\n+ 0 50.0.0.1:25 50.0.0.1 | may\n- 0 50.0.0.1:25 50.0.0.1 duplicate"},
		{name: "the same host as two users", to: []NextHop{verified(host("50.0.0.1", 25)), host("50.0.0.1", 25)},
			want: "sent route\n+ 0 50.0.0.1:25 50.0.0.1 | verify [50.0.0.1] [] sni 50.0.0.1 as me\n+ 0 50.0.0.1:25 50.0.0.1 | may"},
		{name: "verified by the host's name", to: []NextHop{verified(host("m.test", 587))}, zone: "m.test A 50.0.0.1",
			want: "sent route\n+ 0 m.test:587 50.0.0.1 | verify [m.test] [] sni m.test as me"},
		{name: "and by names that the operator added", to: []NextHop{verified(host("10.0.0.1", 587), "m.test")},
			want: "sent route\n+ 0 10.0.0.1:587 10.0.0.1 | verify [10.0.0.1 m.test] [] sni 10.0.0.1 as me"},
		{name: "a Unix socket", to: []NextHop{{URL: "lmtp:///run/lmtp", Kind: ByHost, Path: "/run/lmtp", LMTP: true, Level: TLSNone}},
			want: "sent route\n+ 0 :0 /run/lmtp | none LMTP"},
		{name: "a socket, then a host", to: []NextHop{{URL: "lmtp:///run/lmtp", Kind: ByHost, Path: "/run/lmtp", LMTP: true, Level: TLSNone}, host("50.0.0.1", 25)},
			want: "sent route\n+ 0 :0 /run/lmtp | none LMTP\n+ 0 50.0.0.1:25 50.0.0.1 | may"},

		{name: "a service", to: []NextHop{service}, zone: "_submission._tcp.isp.test SRV 0 0 587 m.test\nm.test A 50.0.0.1",
			want: "sent route\n+ 0 m.test:587 50.0.0.1 | encrypt\n? SRV _submission._tcp.isp.test"},
		{name: "a service by priority", to: []NextHop{service}, zone: "_submission._tcp.isp.test SRV 20 0 587 b.test\n_submission._tcp.isp.test SRV 10 0 2587 m.test\nm.test A 50.0.0.1\nb.test A 50.0.0.2",
			want: "sent route\n+ 10 m.test:2587 50.0.0.1 | encrypt\n+ 20 b.test:587 50.0.0.2 | encrypt\n? SRV _submission._tcp.isp.test"},
		{name: "a service with login: the name is the domain's, as the answer is not secure", to: []NextHop{verified(service)},
			zone: "_submission._tcp.isp.test SRV 0 0 587 m.test\nm.test A 50.0.0.1",
			want: "sent route\n+ 0 m.test:587 50.0.0.1 | verify [isp.test] [_submission.isp.test] sni isp.test as me\n? SRV _submission._tcp.isp.test"},
		{name: "a service through the guard: a stranger's DNS may have named it", to: []NextHop{service}, zone: "_submission._tcp.isp.test SRV 0 0 587 m.test\nm.test A 10.0.0.1",
			want: "defer route 4.7.1 egress-address ALARM\n- 0 m.test:587 10.0.0.1 egress-address\n? SRV _submission._tcp.isp.test"},
		{name: "a service without records has no MX", to: []NextHop{service}, zone: "isp.test MX 0 m.test\nm.test A 50.0.0.1",
			want: "defer 4.4.4 no-srv ALARM\n? SRV _submission._tcp.isp.test"},
		{name: "a service that is not available", to: []NextHop{service}, zone: "_submission._tcp.isp.test SRV 0 0 0 .",
			want: "defer route 4.1.2 null-srv ALARM\n? SRV _submission._tcp.isp.test"},
		{name: "a service that is not available, then a host: it is the provider's word, not the domain's", to: []NextHop{service, host("50.0.0.9", 25)},
			zone: "_submission._tcp.isp.test SRV 0 0 0 .", partial: true,
			want: "sent route\n+ 0 50.0.0.9:25 50.0.0.9 | may\n? SRV _submission._tcp.isp.test"},
		{name: "a host that does not exist, then one that does: the first may come back", to: []NextHop{host("b.test", 25), host("50.0.0.9", 25)}, partial: true,
			want: "sent route\n+ 0 50.0.0.9:25 50.0.0.9 | may\n- 0 b.test:25 no-address"},
		{name: "no way by the rules for good, and a host whose look-up fails: wait", to: []NextHop{rules, host("b.test", 25)}, zone: "a.test SRV 0 0 1 x.test\nb.test fails A SERVFAIL", partial: true,
			want: "defer route 4.4.3 dns-failed\n- 0 b.test:25 dns-failed\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "no way by the rules for good, and a host that does not exist: wait, and tell the operator", to: []NextHop{rules, host("b.test", 25)}, zone: "a.test SRV 0 0 1 x.test", partial: true,
			want: "defer route 4.4.4 no-address ALARM\n- 0 b.test:25 no-address\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "no way by the rules for good, then a host", to: []NextHop{rules, host("50.0.0.9", 25)}, zone: "a.test SRV 0 0 1 x.test",
			want: "sent route\n+ 0 50.0.0.9:25 50.0.0.9 | may\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "a service whose look-up fails", to: []NextHop{service}, zone: "_submission._tcp.isp.test fails SRV SERVFAIL",
			want: "defer 4.4.3 dns-failed\n? SRV _submission._tcp.isp.test"},
		{name: "a service whose look-up fails, then a host", partial: true, to: []NextHop{service, host("50.0.0.9", 25)}, zone: "_submission._tcp.isp.test fails SRV SERVFAIL",
			want: "sent route\n+ 0 50.0.0.9:25 50.0.0.9 | may\n? SRV _submission._tcp.isp.test"},

		{name: "MX only", to: []NextHop{byMX}, zone: "_smtp._tcp.a.test SRV 0 0 2525 s.test\na.test MX 10 m.test\nm.test A 50.0.0.1",
			want: "sent mx\n+ 10 m.test:25 50.0.0.1 | may\n? MX a.test"},
		{name: "MX only, and there is none", to: []NextHop{byMX}, zone: "a.test A 50.0.0.1",
			want: "sent address\n+ 0 a.test:25 50.0.0.1 | may\n? MX a.test"},
		{name: "MX only, null MX", to: []NextHop{byMX}, zone: "a.test MX 0 .", want: "fail mx 5.1.10 null-mx\n? MX a.test"},
		{name: "MX only, with TLS", to: []NextHop{{URL: "mx:", Kind: ByMX, Level: TLSEncrypt}}, zone: "a.test MX 10 m.test\nm.test A 50.0.0.1",
			want: "sent mx\n+ 10 m.test:25 50.0.0.1 | encrypt\n? MX a.test"},
		{name: "MX only, verified: an insecure answer names no name", to: []NextHop{{URL: "mx:", Kind: ByMX, Level: TLSVerify, Names: []string{"mail.test"}}}, zone: "a.test MX 10 m.test\nm.test A 50.0.0.1",
			want: "sent mx\n+ 10 m.test:25 50.0.0.1 | verify [a.test mail.test] [] sni a.test\n? MX a.test"},
		{name: "the rules", to: []NextHop{rules}, zone: "_smtp._tcp.a.test SRV 0 0 2525 m.test\nm.test A 50.0.0.1",
			want: "sent srv\n+ 0 m.test:2525 50.0.0.1 | may\n? SRV _smtp._tcp.a.test"},
		{name: "the rules, SRV fails", to: []NextHop{rules}, zone: "_smtp._tcp.a.test fails SRV SERVFAIL\na.test MX 0 m.test\nm.test A 50.0.0.1",
			want: "defer 4.4.3 dns-failed\n? SRV _smtp._tcp.a.test"},
		{name: "the rules, SRV fails, srv_errors: absent", to: []NextHop{{URL: "dns:", Kind: ByRules, Level: TLSMay, SRVAbsent: true}}, zone: "_smtp._tcp.a.test fails SRV SERVFAIL\na.test MX 0 m.test\nm.test A 50.0.0.1",
			want: "sent mx\n+ 0 m.test:25 50.0.0.1 | may\n? SRV _smtp._tcp.a.test\n? MX a.test", says: "srv_errors"},
		{name: "the rules, then a smarthost", to: []NextHop{rules, host("50.0.0.9", 587)}, zone: "a.test MX 0 m.test\nm.test A 50.0.0.1",
			want: "sent mx\n+ 0 m.test:25 50.0.0.1 | may\n+ 0 50.0.0.9:587 50.0.0.9 | may\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "the rules fail, then a smarthost", partial: true, to: []NextHop{rules, host("50.0.0.9", 587)}, zone: "_smtp._tcp.a.test fails SRV SERVFAIL",
			want: "sent route\n+ 0 50.0.0.9:587 50.0.0.9 | may\n? SRV _smtp._tcp.a.test"},
		{name: "the domain takes no mail, so a smarthost is not asked", to: []NextHop{rules, host("50.0.0.9", 587)}, zone: "a.test MX 0 .",
			want: "fail mx 5.1.10 null-mx\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "the domain does not exist, so a smarthost is not asked", to: []NextHop{rules, host("50.0.0.9", 587)},
			want: "fail 5.1.2 no-such-domain\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "the domain has no mail service, so a smarthost is not asked", to: []NextHop{rules, host("50.0.0.9", 587)}, zone: "_smtp._tcp.a.test SRV 0 0 0 .",
			want: "fail srv 5.1.2 null-srv\n? SRV _smtp._tcp.a.test"},
		{name: "we are in the domain's MX: a smarthost behind would be a detour", to: []NextHop{rules, host("50.0.0.9", 587)}, zone: "a.test MX 10 m.test\na.test MX 20 us.test\nm.test A 50.0.0.1\nus.test A 60.0.0.1",
			want: "sent mx\n+ 10 m.test:25 50.0.0.1 | may\n- 20 us.test:25 60.0.0.1 self\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "who calls", to: []NextHop{{URL: "atrn:", Kind: ByCaller, Level: TLSNone}},
			want: "sent route\n+ 0 :0 atrn:home | none"},
		{name: "the rules, then who calls", to: []NextHop{rules, {URL: "atrn:", Kind: ByCaller, Level: TLSNone}}, zone: "a.test MX 0 m.test\nm.test A 50.0.0.1",
			want: "sent mx\n+ 0 m.test:25 50.0.0.1 | may\n+ 0 :0 atrn:home | none\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "nobody may call: wait, and tell the operator", to: []NextHop{{URL: "atrn:", Kind: ByCaller, Level: TLSNone}}, hop: "b.example via atrn:",
			want: "defer 4.3.5 no-home ALARM"},
		{name: "a hop of a route that is gone", to: []NextHop{rules}, hop: "route old", want: "defer 4.3.5 route-gone"},
		{name: "a domain's hop of a route that is gone", to: []NextHop{rules}, hop: "a.test via mx:", want: "defer 4.3.5 route-gone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rs := NewRoutes([]Route{{Domains: []string{"a.test"}, To: c.to}}, nil, someTimes)
			if c.hop == "" {
				c.hop = rs.HopOf("u@x.test", "a.test", false)
			}
			z := newZone(t, c.zone)
			cfg := base()
			cfg.Homes = []Home{{User: "all", Domains: []string{".test"}}, {User: "other", Domains: []string{".a.test"}}, {User: "home", Domains: []string{"a.test"}}}
			cfg.Routes, cfg.Own = rs, Own{Listeners: addrPorts("60.0.0.1:25"), Machine: machine()}
			p := New(cfg, z, nil).Plan(t.Context(), c.hop)
			z.asked = withoutAddrs(z.asked)
			if got := renderRouted(p, z.asked); got != c.want {
				t.Errorf("plan:\n%s\nwant:\n%s\nnotes: %q", got, c.want, p.Notes)
			}
			for _, tg := range p.Targets {
				if kind := c.to[tg.Way].Kind; tg.Written != (kind == ByHost || kind == ByCaller) || tg.Named != kind.ours() {
					t.Errorf("%s: written %v, named %v", tg.Host, tg.Written, tg.Named)
				}
			}
			if p.Verdict == queue.Sent && p.Partial != c.partial {
				t.Errorf("partial %v", p.Partial)
			}
			if words := fmt.Sprint(p.Status.Text, p.Notes, p.Dropped); !strings.Contains(words, c.says) {
				t.Errorf("nothing says %q: %s", c.says, words)
			}
			if text := fmt.Sprintf("%+v %v %#v", p, p, p.Targets); strings.Contains(text, "hush") {
				t.Error("a plan that is printed shows the password")
			}
		})
	}
}

func TestRoutesThatDoNotDeliver(t *testing.T) {
	rs := NewRoutes([]Route{
		{Domains: []string{"a.test"}, Action: Hold}, {Domains: []string{"home.test"}, Action: Reject, Text: "moved away"},
	}, []string{"home.test"}, someTimes)
	cfg := base()
	cfg.Routes, cfg.RelayDomains = rs, []string{"home.test"}
	p := New(cfg, newZone(t, ""), nil)
	if got := p.Plan(t.Context(), rs.HopOf("", "a.test", false)); got.Verdict != queue.Hold || got.Status.Reason != queue.ReasonRouteHold {
		t.Errorf("hold: %+v", got)
	}
	if got := p.Plan(t.Context(), rs.HopOf("", "home.test", false)); got.Verdict != queue.Fail || got.Status.Code != "5.7.1" || got.Status.Text != "moved away" {
		t.Errorf("reject, of a relay domain too: %+v", got)
	}
}

// TestMXWithoutFallback: mx: asks for MX even where mx_fallback is off.
func TestMXWithoutFallback(t *testing.T) {
	cfg := base()
	cfg.MXFallback = false
	cfg.Routes = NewRoutes([]Route{{Domains: []string{"a.test"}, To: []NextHop{{URL: "mx:", Kind: ByMX}}}}, nil, someTimes)
	p := New(cfg, newZone(t, "a.test MX 0 m.test\nb.test MX 0 m.test\nm.test A 50.0.0.1"), nil)
	if got := p.Plan(t.Context(), "a.test via mx:"); got.Verdict != queue.Sent {
		t.Errorf("by the route: %+v", got)
	}
	if got := p.Plan(t.Context(), "b.test"); got.Status.Reason != queue.ReasonNoSRV {
		t.Errorf("without a route: %+v", got)
	}
}

// TestTerms: connections and health are shared by those who ask the same of a
// server, and by no others.
func TestTerms(t *testing.T) {
	roots := x509.NewCertPool()
	verify := TLSRule{Level: TLSVerify, Names: []string{"a.test"}}
	other, own, srvID := verify, verify, verify
	other.Names, own.Roots, srvID.Services = []string{"b.test"}, roots, []string{"_smtp.a.test"}
	seen := map[Endpoint]int{}
	for i, c := range []Target{
		{TLS: TLSRule{Level: TLSMay}}, {TLS: TLSRule{Level: TLSMay}, LMTP: true}, {TLS: TLSRule{Level: TLSNone}}, {TLS: TLSRule{Level: TLSNone}, LMTP: true}, {TLS: TLSRule{Level: TLSEncrypt}},
		{TLS: TLSRule{Level: TLSEncrypt, Implicit: true}}, {TLS: verify}, {TLS: other}, {TLS: own}, {TLS: srvID},
		{TLS: TLSRule{Level: TLSMay}, Origin: OriginXClient}, {TLS: TLSRule{Level: TLSMay}, Origin: OriginProxy},
		{TLS: verify, Login: &Login{User: "a"}}, {TLS: verify, Login: &Login{User: "b"}}, {TLS: verify, Login: &Login{User: "b", Ways: "scram"}},
	} {
		c.Host, c.Port, c.Addrs = "m.test", 25, []netip.Addr{netip.MustParseAddr("50.0.0.1")}
		ep := c.Endpoints()[0]
		if j, again := seen[ep]; again {
			t.Errorf("%d shares with %d: %+v", i, j, ep)
		}
		seen[ep] = i
		c.Host, c.TLS.ServerName = "other.test", "other.test"
		if c.Login != nil {
			c.Login = &Login{User: c.Login.User, Password: "new", Ways: c.Login.Ways}
		}
		if _, same := seen[c.Endpoints()[0]]; !same {
			t.Errorf("%d depends on its host's name or password", i)
		}
	}
}

// TestWays: what each target, and what is left out, comes from; and a relay
// domain's own words are not the last about it.
func TestWays(t *testing.T) {
	to := []NextHop{{URL: "dns:", Kind: ByRules}, {URL: "smtp://b.test", Kind: ByHost, Host: "b.test", Port: 25}, {URL: "smtp://50.0.0.1", Kind: ByHost, Host: "50.0.0.1", Port: 25}}
	rs := NewRoutes([]Route{{Domains: []string{"a.test"}, To: to}, {Domains: []string{"home.test"}, To: []NextHop{to[0], to[2]}}}, []string{"home.test"}, someTimes)
	cfg := base()
	cfg.Routes, cfg.RelayDomains = rs, []string{"home.test"}
	p := New(cfg, newZone(t, "a.test SRV 0 0 1 x.test\nhome.test SRV 0 0 1 x.test"), nil)
	got := p.Plan(t.Context(), rs.HopOf("", "a.test", false))
	if len(got.Targets) != 1 || got.Targets[0].Way != 2 || len(got.Dropped) != 1 || got.Dropped[0].Way != 1 {
		t.Errorf("%+v", got)
	}
	if got := p.Plan(t.Context(), rs.HopOf("", "home.test", false)); !got.Partial || len(got.Targets) != 1 {
		t.Errorf("a relay domain: %+v", got)
	}
}

// TestReferenceNames: of which names a certificate must have one. A host that an
// insecure answer names is none of them.
func TestReferenceNames(t *testing.T) {
	service := NextHop{Kind: ByService, Host: "isp.test", Service: "_submission._tcp"}
	for _, c := range []struct {
		hop    NextHop
		secure bool
		want   string
	}{
		{service, false, "[isp.test] [_submission.isp.test] isp.test"},
		{service, true, "[isp.test m.test] [_submission.isp.test] m.test"},
		{NextHop{Kind: ByMX}, false, "[a.test] [] a.test"},
		{NextHop{Kind: ByMX}, true, "[a.test m.test] [] m.test"},
		{NextHop{Kind: ByRules, Names: []string{"x.test"}}, true, "[a.test m.test x.test] [] m.test"},
		{NextHop{Kind: ByHost, Names: []string{"x.test"}}, false, "[m.test x.test] [] m.test"},
	} {
		d := &draft{plan: Plan{Domain: "a.test"}}
		r := TLSRule{secure: c.secure}
		d.reference(&r, c.hop, "m.test")
		if got := fmt.Sprintf("%v %v %s", r.Names, r.Services, r.ServerName); got != c.want {
			t.Errorf("%+v, secure %v: %s, want %s", c.hop, c.secure, got, c.want)
		}
	}
}

// renderRouted is render with what a route asks of each target.
func renderRouted(p Plan, asked []string) string {
	lines := strings.Split(render(p, asked), "\n")
	n := 0
	for i, l := range lines {
		if !strings.HasPrefix(l, "+") {
			continue
		}
		t := p.Targets[n]
		n++
		if t.Path != "" {
			l += " " + t.Path
		}
		l += " | " + string(t.TLS.Level)
		if t.TLS.Level == TLSVerify {
			l += fmt.Sprintf(" %v %v sni %s", t.TLS.Names, t.TLS.Services, t.TLS.ServerName)
		}
		if t.LMTP {
			l += " LMTP"
		}
		if t.Login != nil {
			l += " as " + t.Login.User
		}
		lines[i] = l
	}
	return strings.Join(lines, "\n")
}
