package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"srvrelay/queue"
)

// The routes of TestRouteMatch, as the configuration would have them.
func someRoutes() *Routes {
	host := func(url string) []NextHop { return []NextHop{{URL: url, Kind: ByHost, Host: "h", Port: 25}} }
	return NewRoutes([]Route{
		{Domains: []string{"a.test", ".a.test"}, Senders: []string{"@app.test", "boss@x.test"}, To: host("smtp://app.isp.test")},
		{Domains: []string{"a.test", ".a.test"}, Action: Deliver, To: host("smtp://isp.test")},
		{Name: "quiet", Domains: []string{"hold.test"}, Action: Hold},
		{Domains: []string{"hold.test"}, To: host("smtp://isp.test")},
		{Domains: []string{"gone.test"}, Action: Reject, Text: "no more"},
		{Domains: []string{"mx.test", "mx2.test"}, To: []NextHop{{URL: "mx:", Kind: ByMX}}},
		{Domains: []string{"short.test"}, To: []NextHop{{URL: "dns:", Kind: ByRules}}, Retry: queue.Retry{Schedule: []time.Duration{time.Second}, ExpireAfter: time.Hour}},
		{Domains: []string{"home.test"}, Senders: []string{"<>"}, To: host("smtp://reports.test")},
		{Senders: []string{"@.staff.test"}, To: host("smtp://staff.test")},
		{Domains: []string{"[50.0.0.1]"}, Action: Hold},
		{Domains: []string{"*"}, To: host("smtp://rest.test")},
	}, []string{"home.test", ".home.test"}, queue.DefaultRetry)
}

func TestRouteMatch(t *testing.T) {
	rs := someRoutes()
	for _, c := range []struct {
		sender, domain string
		released       bool
		hop            string
		last           string // why the route before the one that matched, or the last one, did not
	}{
		{"u@app.test", "a.test", false, "smtp://app.isp.test", ""},
		{"u@APP.Test", "sub.a.test", false, "smtp://app.isp.test", ""},
		{"boss@x.test", "a.test", false, "smtp://app.isp.test", ""},
		{"Boss@x.test", "a.test", false, "smtp://app.isp.test", ""},
		{"other@x.test", "a.test", false, "smtp://isp.test", "for other senders"},
		{"", "a.test", false, "smtp://isp.test", "for other senders"},
		{"u@sub.app.test", "a.test", false, "smtp://isp.test", "for other senders"},
		{"u@x.test", "deep.sub.a.test", false, "smtp://isp.test", "for other senders"},
		{"u@x.test", "ba.test", false, "smtp://rest.test", "for other domains"},
		{"u@x.test", "hold.test", false, "route quiet", "for other domains"},
		{"u@x.test", "hold.test", true, "smtp://isp.test (route 4)", "released: not held again"},
		{"u@x.test", "gone.test", false, "route reject", "for other domains"},
		{"u@x.test", "gone.test", true, "route reject", "for other domains"},
		{"u@x.test", "mx.test", false, "mx.test via mx:", "for other domains"},
		{"u@x.test", "mx2.test", false, "mx2.test via mx:", "for other domains"},
		{"u@x.test", "short.test", false, "short.test via dns:", "for other domains"},
		{"", "home.test", false, "smtp://reports.test", "for other domains"},
		{"u@x.test", "home.test", false, "home.test", "* does not include relay_domains"},
		{"u@x.test", "below.home.test", false, "below.home.test", "* does not include relay_domains"},
		{"u@a.staff.test", "home.test", false, "smtp://staff.test", "for other senders"},
		{"u@staff.test", "home.test", false, "home.test", "* does not include relay_domains"},
		{"u@x.test", "[50.0.0.1]", false, "route hold", "for other senders"},
		{"u@x.test", "[50.0.0.2]", false, "smtp://rest.test", "for other domains"},
		{"u@x.test", "", false, "smtp://rest.test", "for other domains"},
	} {
		name := fmt.Sprintf("%s to %s", c.sender, c.domain)
		if got := rs.HopOf(c.sender, c.domain, c.released); got != c.hop {
			t.Errorf("%s: hop %q, want %q", name, got, c.hop)
		}
		looked := rs.Look(c.sender, c.domain, c.released)
		why, end := "", len(looked)-1
		if looked[end].Matched {
			end--
		}
		if end >= 0 {
			why = looked[end].Why
		}
		if why != c.last {
			t.Errorf("%s: %q, want %q; all: %+v", name, why, c.last, looked)
		}
		if r, _, ok := rs.find(c.hop); !ok || (r == nil) != (c.hop == c.domain) {
			t.Errorf("%s: hop %q is not found again", name, c.hop)
		}
	}
	if got := rs.Retry("short.test via dns:").ExpireAfter; got != time.Hour {
		t.Errorf("a route's own time: %v", got)
	}
	if got := rs.Retry("smtp://isp.test").ExpireAfter; got != queue.DefaultRetry.ExpireAfter {
		t.Errorf("the time of others: %v", got)
	}
	if text, no := rs.Refused("u@x.test", "gone.test"); !no || text != "no more" {
		t.Errorf("reject: %q %v", text, no)
	}
	if _, no := rs.Refused("u@x.test", "hold.test"); no {
		t.Error("a held domain is refused at the door")
	}
	var none *Routes
	if none.HopOf("u@x.test", "b.test", false) != "b.test" || none.Look("", "b.test", false) != nil || none.Fingerprint() != "" {
		t.Error("without routes a domain is its own hop")
	}
}

// TestFingerprint: what files mail elsewhere, or changes its times, shows; a
// password does not.
func TestFingerprint(t *testing.T) {
	base := Route{Domains: []string{"a.test"}, To: []NextHop{{URL: "smtp://h", Kind: ByHost, Host: "h", Login: &Login{"u", "hush"}}}}
	of := func(change func(*Route), relay ...string) string {
		r := base
		change(&r)
		return NewRoutes([]Route{r}, relay, queue.DefaultRetry).Fingerprint()
	}
	same := of(func(*Route) {})
	if strings.Contains(same, "hush") {
		t.Error("the password is in the fingerprint")
	}
	for name, other := range map[string]string{
		"domain":  of(func(r *Route) { r.Domains = []string{"b.test"} }),
		"sender":  of(func(r *Route) { r.Senders = []string{"@b.test"} }),
		"action":  of(func(r *Route) { r.Action = Reject }),
		"url":     of(func(r *Route) { r.To = []NextHop{{URL: "smtp://i", Kind: ByHost}} }),
		"expiry":  of(func(r *Route) { r.Retry = queue.Retry{ExpireAfter: time.Hour} }),
		"relay":   of(func(*Route) {}, "home.test"),
		"nothing": NewRoutes(nil, nil, queue.DefaultRetry).Fingerprint(),
	} {
		if other == same {
			t.Errorf("%s: the same fingerprint", name)
		}
	}
	if again := of(func(r *Route) {}); again != same {
		t.Error("not stable")
	}
}

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
		n.Level, n.Names, n.Login = TLSVerify, names, &Login{"me", "hush"}
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
		{name: "we are in the domain's MX: a smarthost behind would be a detour", to: []NextHop{rules, host("50.0.0.9", 587)}, zone: "a.test MX 10 m.test\na.test MX 20 us.test\nm.test A 50.0.0.1\nus.test A 60.0.0.1",
			want: "sent mx\n+ 10 m.test:25 50.0.0.1 | may\n- 20 us.test:25 60.0.0.1 self\n? SRV _smtp._tcp.a.test\n? MX a.test"},
		{name: "a hop of a route that is gone", to: []NextHop{rules}, hop: "route old", want: "defer 4.3.5 route-gone"},
		{name: "a domain's hop of a route that is gone", to: []NextHop{rules}, hop: "a.test via mx:", want: "defer 4.3.5 route-gone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rs := NewRoutes([]Route{{Domains: []string{"a.test"}, To: c.to}}, nil, queue.DefaultRetry)
			if c.hop == "" {
				c.hop = rs.HopOf("u@x.test", "a.test", false)
			}
			z := newZone(t, c.zone)
			cfg := base()
			cfg.Routes, cfg.Own = rs, Own{Listeners: addrPorts("60.0.0.1:25"), Machine: machine()}
			p := New(cfg, z, nil).Plan(t.Context(), c.hop)
			z.asked = withoutAddrs(z.asked)
			if got := renderRouted(p, z.asked); got != c.want {
				t.Errorf("plan:\n%s\nwant:\n%s\nnotes: %q", got, c.want, p.Notes)
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
	}, []string{"home.test"}, queue.DefaultRetry)
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

// TestHopNames: every hop that HopOf says leads back to its route, whatever the
// route is called, and no route is taken for another.
func TestHopNames(t *testing.T) {
	rules := NextHop{URL: "dns:", Kind: ByRules}
	socket := NextHop{URL: "lmtp:///run/a via dns:", Kind: ByHost, Path: "/run/a via dns:"}
	rs := NewRoutes([]Route{
		{Domains: []string{"a.test"}, To: []NextHop{socket}},
		{Domains: []string{"b.test"}, To: []NextHop{socket, rules}},
		{Domains: []string{"c.test"}, To: []NextHop{rules}},
		{Domains: []string{"d.test"}, To: []NextHop{rules}, Retry: queue.Retry{Schedule: []time.Duration{time.Minute}}},
		{Domains: []string{"e.test"}, Action: Hold},
		{Domains: []string{"f.test"}, Action: Hold},
		{Domains: []string{"g.test"}, Name: "hold"},
		{Domains: []string{"h.test"}, Name: "mx:"},
		{Domains: []string{"i.test"}, To: []NextHop{socket}},
	}, nil, queue.DefaultRetry)
	seen := map[string]bool{}
	for i := range rs.list {
		domain := rs.list[i].Domains[0]
		hop := rs.HopOf("", domain, false)
		r, of, ok := rs.find(hop)
		if r != &rs.list[i] || !ok || rs.list[i].perDomain() != (of == domain) || seen[hop] {
			t.Errorf("%s: hop %q leads to %+v, %q, %v", domain, hop, r, of, ok)
		}
		seen[hop] = true
	}
	for hop, known := range map[string]bool{
		"j.test": true, "[50.0.0.1]": true, "j.test via route hold": false, "route x": false, "smtp://x": false, "c.test via smtp://x": false, "dns:": false,
	} {
		if r, of, ok := rs.find(hop); ok != known || r != nil || of != hop {
			t.Errorf("%s: %v %q %v", hop, r, of, ok)
		}
	}
}

// BenchmarkRoutes: what 1000 routes cost a recipient.
func BenchmarkRoutes(b *testing.B) {
	var list []Route
	for i := range 1000 {
		list = append(list, Route{Domains: []string{fmt.Sprintf("d%d.test", i)}, To: []NextHop{{URL: fmt.Sprintf("smtp://h%d.test", i), Kind: ByHost}}})
	}
	rs := NewRoutes(list, nil, queue.DefaultRetry)
	for b.Loop() {
		rs.Retry(rs.HopOf("a@b.test", "d999.test", false))
	}
}
