package publish

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// TestLines: each type as a zone file has it.
func TestLines(t *testing.T) {
	long := strings.Repeat("x", 255)
	for want, r := range map[string]Record{
		"_smtp._tcp.a.example. 300 IN SRV 10 60 2525 home.a.example.": SRV("a.example", 10, 60, 2525, "home.a.example"),
		"_smtp._tcp.a.example. 300 IN SRV 0 0 0 .":                    SRV("a.example", 0, 0, 0, "."),
		"a.example. 3600 IN MX 10 mx.a.example.":                      MX("a.example", 10, "mx.a.example"),
		"a.example. 3600 IN MX 0 .":                                   MX("a.example", 0, "."),
		"h.a.example. 60 IN A 192.0.2.1":                              Address("h.a.example", TTLDynamic, netip.MustParseAddr("::ffff:192.0.2.1")),
		"h.a.example. 60 IN AAAA 2001:db8::1":                         Address("h.a.example", TTLDynamic, netip.MustParseAddr("2001:db8::1")),
		"1.2.0.192.in-addr.arpa. 3600 IN PTR h.a.example.   ; where the address comes from: your provider":                                                   PTR(netip.MustParseAddr("192.0.2.1"), "h.a.example"),
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 3600 IN PTR h.a.example.   ; where the address comes from: your provider": PTR(netip.MustParseAddr("2001:db8::1"), "h.a.example"),
		`a.example. 3600 IN TXT "v=spf1 a:x.example a:y.example -all"`:                                                                                       SPF("a.example", "x.example", "y.example"),
		`a.example. 3600 IN TXT "say \"\\\""`:                  TXT("a.example", `say "\"`),
		`a.example. 3600 IN TXT "` + long + `"`:                TXT("a.example", long),
		"a.example. 3600 IN TXT ( \"" + long + "\"\n\t\"y\" )": TXT("a.example", long+"y"),
	} {
		if got := r.Line(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if got := TXT("a.example", long+"y").OneLine(); got != `a.example. 3600 IN TXT "`+long+`" "y"` {
		t.Error(got)
	}
}

func TestForm(t *testing.T) {
	for _, c := range []struct {
		zone   string
		r      Record
		want   Field
		inZone bool
	}{
		{"a.example", SRV("a.example", 10, 0, 2525, "h.a.example"), Field{"_smtp._tcp", "SRV", "300", "10", "0", "2525", "h.a.example"}, true},
		{"example", SRV("a.example", 10, 0, 2525, "h.a.example"), Field{"_smtp._tcp.a", "SRV", "300", "10", "0", "2525", "h.a.example"}, true},
		{"a.example", MX("a.example", 10, "mx.b.example"), Field{"@", "MX", "3600", "10", "", "", "mx.b.example"}, true},
		{"a.example", TXT("a.example", "v=spf1 -all"), Field{"@", "TXT", "3600", "", "", "", "v=spf1 -all"}, true},
		{"a.example", Address("x.ba.example", 60, netip.MustParseAddr("192.0.2.1")), Field{"x.ba.example", "A", "60", "", "", "", "192.0.2.1"}, false},
	} {
		if got, inZone := c.r.Form(c.zone); !reflect.DeepEqual(got, c.want) || inZone != c.inZone {
			t.Errorf("%s in %s: %+v %v, want %+v %v", c.r.Line(), c.zone, got, inZone, c.want, c.inZone)
		}
	}
}

// TestWays: who is tried in which order.
func TestWays(t *testing.T) {
	a, b, mx := Target{"a.example", 2525}, Target{"b.example", 2526}, "mx.example"
	for _, c := range []struct {
		what string
		w    Wanted
		want string // priority, weight, port and host
	}{
		{"a backup, and the MX host at last", Wanted{Targets: []Target{a, b}, MX: []string{mx}}, "10 0 2525 a.example.|20 0 2526 b.example.|30 0 25 mx.example."},
		{"shared", Wanted{Targets: []Target{a, b}, MX: []string{mx}, Share: true}, "10 10 2525 a.example.|10 10 2526 b.example.|20 0 25 mx.example."},
		{"nothing to share with", Wanted{Targets: []Target{a}, MX: []string{mx}, Share: true}, "10 0 2525 a.example.|20 0 25 mx.example."},
		{"the MX host is a target", Wanted{Targets: []Target{{mx, 25}, a}, MX: []string{mx}}, "10 0 25 mx.example.|20 0 2525 a.example."},
		{"no MX host", Wanted{Targets: []Target{a}}, "10 0 2525 a.example."},
		{"no mail", Wanted{Targets: []Target{{Host: "."}}, MX: []string{mx}}, "0 0 0 ."},
	} {
		c.w.Domain = "d.example"
		var got []string
		for _, r := range c.w.ways().Records {
			got = append(got, strings.TrimPrefix(r.Line(), "_smtp._tcp.d.example. 300 IN SRV "))
		}
		if g := strings.Join(got, "|"); g != c.want {
			t.Errorf("%s: %s, want %s", c.what, g, c.want)
		}
	}
}
