package dnsutil

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const probeZone = `
$ORIGIN example.
@ SOA ns hostmaster 1 3600 600 86400 5
host A 192.0.2.1
_smtp._tcp SRV 0 0 25 host
1.2.0.192.in-addr.arpa. PTR host.example.
2.2.0.192.in-addr.arpa. CNAME 2.0/25.2.0.192.in-addr.arpa.
2.0/25.2.0.192.in-addr.arpa. PTR Other.example.
3.2.0.192.in-addr.arpa. TXT nothing
4.2.0.192.in-addr.arpa. PTR bad\032name.example.
8.b.d.0.1.0.0.2.ip6.arpa. TXT nothing
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR six.example.
;!servfail 9.2.0.192.in-addr.arpa
`

func TestNames(t *testing.T) {
	c, _ := clientFor(t, probeZone)
	for addr, want := range map[string][]string{
		"192.0.2.1": {"host.example"}, "::ffff:192.0.2.1": {"host.example"}, "2001:db8::1": {"six.example"},
		"192.0.2.2": {"other.example"}, // RFC 2317
	} {
		got, err := c.Names(ctxFor(t), netip.MustParseAddr(addr))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q", addr, got, err, want)
		}
	}
	for addr, nxdomain := range map[string]bool{"192.0.2.3": false, "192.0.2.4": false, "192.0.2.77": true} {
		_, err := c.Names(ctxFor(t), netip.MustParseAddr(addr))
		wantNotFound(t, err, nxdomain)
	}
	_, err := c.Names(ctxFor(t), netip.MustParseAddr("192.0.2.9"))
	wantProblem(t, err, "SERVFAIL")
}

// TestProbe: each fault of a resolver shows where it belongs, and nowhere else.
func TestProbe(t *testing.T) {
	for name, c := range map[string]struct {
		faults string
		want   Health
	}{
		"in order":   {"", Health{EDNS: true}},
		"validates":  {";!ad", Health{EDNS: true, AD: true}},
		"refuses us": {";!refused .", Health{UDP: "REFUSED"}},
		"silent":     {";!drop .", Health{UDP: "timeout"}},
		"drops SRV":  {";!drop _smtp._tcp.example SRV", Health{EDNS: true, SRV: "timeout"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, probeZone+c.faults+"\n")
			got := Probe(ctxFor(t), s.Addr(), "example", 200*time.Millisecond)
			if got.Server != s.Addr() || got.Took <= 0 {
				t.Errorf("%+v", got)
			}
			got.Server, got.Took = "", 0
			if got.UDP != c.want.UDP || got.TCP != "" || got.SRV != c.want.SRV || got.EDNS != c.want.EDNS || got.AD != c.want.AD || got.Invented != nil {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// TestProbeOldAndInventive: a server as in a home router, by UDP only, without
// EDNS, which has an address for every name.
func TestProbeOldAndInventive(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		m := new(dns.Msg).SetReply(req)
		if q := req.Question[0]; q.Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(203, 0, 113, 80)}}
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = srv.ActivateAndServe() }()
	defer pc.Close()
	h := Probe(ctxFor(t), pc.LocalAddr().String(), "example", time.Second)
	page := netip.MustParseAddr("203.0.113.80")
	if h.UDP != "" || h.TCP != "connection refused" || h.EDNS || !slices.Equal(h.Invented, []netip.Addr{page, page}) {
		t.Errorf("%+v", h)
	}
}
