package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"srvrelay/queue"
)

// someTimes: what is carried home waits longer.
var someTimes = Times{Home: queue.Retry{Schedule: queue.DefaultRetry.Schedule, ExpireAfter: 14 * 24 * time.Hour}, Other: queue.DefaultRetry}

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
		{Domains: []string{"short.test"}, To: []NextHop{{URL: "dns:", Kind: ByRules}}, Times: Times{Other: queue.Retry{Schedule: []time.Duration{time.Second}, ExpireAfter: time.Hour}}},
		{Domains: []string{"home.test"}, Senders: []string{"<>"}, To: host("smtp://reports.test")},
		{Senders: []string{"@.staff.test"}, To: host("smtp://staff.test")},
		{Domains: []string{"[50.0.0.1]"}, Action: Hold},
		{Domains: []string{"*"}, To: host("smtp://rest.test")},
	}, []string{"home.test", ".home.test"}, someTimes)
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
		{"other@x.test", "a.test", false, "smtp://isp.test", "only from @app.test, boss@x.test"},
		{"", "a.test", false, "smtp://isp.test", "only from @app.test, boss@x.test"},
		{"u@sub.app.test", "a.test", false, "smtp://isp.test", "only from @app.test, boss@x.test"},
		{"u@x.test", "deep.sub.a.test", false, "smtp://isp.test", "only from @app.test, boss@x.test"},
		{"u@x.test", "ba.test", false, "smtp://rest.test", "only for [50.0.0.1]"},
		{"u@x.test", "hold.test", false, "route quiet", "only for a.test, .a.test"},
		{"u@x.test", "hold.test", true, "smtp://isp.test (route 4)", "released: not held again"},
		{"u@x.test", "gone.test", false, "route reject", "only for hold.test"},
		{"u@x.test", "gone.test", true, "route reject", "only for hold.test"},
		{"u@x.test", "mx.test", false, "mx.test via mx:", "only for gone.test"},
		{"u@x.test", "mx2.test", false, "mx2.test via mx:", "only for gone.test"},
		{"u@x.test", "short.test", false, "short.test via dns:", "only for mx.test, mx2.test"},
		{"", "home.test", false, "smtp://reports.test", "only for short.test"},
		{"u@x.test", "home.test", false, "home.test", "* does not include relay_domains"},
		{"u@x.test", "below.home.test", false, "below.home.test", "* does not include relay_domains"},
		{"u@a.staff.test", "home.test", false, "smtp://staff.test", "only from <>"},
		{"u@staff.test", "home.test", false, "home.test", "* does not include relay_domains"},
		{"u@x.test", "[50.0.0.1]", false, "route hold", "only from @.staff.test"},
		{"u@x.test", "[50.0.0.2]", false, "smtp://rest.test", "only for [50.0.0.1]"},
		{"u@x.test", "", false, "smtp://rest.test", "only for [50.0.0.1]"},
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
	if got := rs.Retry("short.test via dns:", "short.test").ExpireAfter; got != time.Hour {
		t.Errorf("a route's own time: %v", got)
	}
	if got := rs.Retry("smtp://isp.test", "x.test").ExpireAfter; got != queue.DefaultRetry.ExpireAfter {
		t.Errorf("the time of others: %v", got)
	}
	for _, hop := range []string{"home.test", "smtp://reports.test"} { // with a route, and without
		if got := rs.Retry(hop, "home.test"); got.ExpireAfter != someTimes.Home.ExpireAfter || got.DelayNotice != 0 {
			t.Errorf("the times of what is carried home by %s: %v", hop, got)
		}
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
	base := Route{Domains: []string{"a.test"}, To: []NextHop{{URL: "smtp://h", Kind: ByHost, Host: "h", Login: &Login{User: "u", Password: "hush"}}}}
	of := func(change func(*Route), relay ...string) string {
		r := base
		change(&r)
		return NewRoutes([]Route{r}, relay, someTimes).Fingerprint()
	}
	same := of(func(*Route) {})
	if strings.Contains(same, "hush") {
		t.Error("the password is in the fingerprint")
	}
	for name, other := range map[string]string{
		"domain":    of(func(r *Route) { r.Domains = []string{"b.test"} }),
		"sender":    of(func(r *Route) { r.Senders = []string{"@b.test"} }),
		"action":    of(func(r *Route) { r.Action = Reject }),
		"url":       of(func(r *Route) { r.To = []NextHop{{URL: "smtp://i", Kind: ByHost}} }),
		"expiry":    of(func(r *Route) { r.Times.Home.ExpireAfter = time.Hour }),
		"by domain": of(func(r *Route) { r.To = append(r.To[:1:1], NextHop{URL: "dns:", Kind: ByRules}) }),
		"default":   NewRoutes([]Route{base}, nil, Times{Other: queue.Retry{ExpireAfter: time.Hour}}).Fingerprint(),
		"relay":     of(func(*Route) {}, "home.test"),
		"nothing":   NewRoutes(nil, nil, someTimes).Fingerprint(),
	} {
		if other == same {
			t.Errorf("%s: the same fingerprint", name)
		}
	}
	if again := of(func(r *Route) {}); again != same {
		t.Error("not stable")
	}
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
		{Domains: []string{"d.test"}, To: []NextHop{rules}, Times: Times{Other: queue.Retry{Schedule: []time.Duration{time.Minute}}}},
		{Domains: []string{"e.test"}, Action: Hold},
		{Domains: []string{"f.test"}, Action: Hold},
		{Domains: []string{"g.test"}, Name: "hold"},
		{Domains: []string{"h.test"}, Name: "mx:"},
		{Domains: []string{"i.test"}, To: []NextHop{socket}},
	}, nil, someTimes)
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
	rs := NewRoutes(list, nil, someTimes)
	for b.Loop() {
		rs.Retry(rs.HopOf("a@b.test", "d999.test", false), "d999.test")
	}
}
