package dnsserver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const zoneText = `
; ordinary comments stay what they are ! servfail
$ORIGIN example.org.
_smtp._tcp  SRV 10 0 2525 home
home   30   A   192.0.2.1
www         CNAME alias
alias       CNAME Home
lost        CNAME nowhere.example.org.
round       CNAME round2
round2      CNAME round
;!servfail sf.example.org
;!refused  rf.example.org. MX
  ;!drop   Dr.Example.org
;!truncate home.example.org A
;!wrong-question home.example.org TXT
;!nochase  www.example.org
;!nxdomain home.example.org MX
$ORIGIN example.net.
@           SOA ns hm 1 2 3 4 77
a.b         MX 5 mx.example.org.
`

func start(t *testing.T, zone string) *Server {
	t.Helper()
	s, err := Start("127.0.0.1:0", zone)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestSlow: the answer comes, and not before its time.
func TestSlow(t *testing.T) {
	s := start(t, zoneText+";!slow 30ms\n")
	begin := time.Now()
	if m := ask(t, s, "udp", "_smtp._tcp.example.org", dns.TypeSRV); len(m.Answer) != 1 || time.Since(begin) < 30*time.Millisecond {
		t.Errorf("after %v: %v", time.Since(begin), m)
	}
}

func ask(t *testing.T, s *Server, network, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	c := &dns.Client{Net: network, Timeout: 10 * time.Second}
	r, _, err := c.Exchange(m, s.Addr())
	if err != nil {
		t.Fatalf("%s %s over %s: %v", dns.Type(qtype), name, network, err)
	}
	return r
}

// summary shows what matters of a message: code, flags, answer, authority.
func summary(m *dns.Msg) string {
	var b strings.Builder
	b.WriteString(dns.RcodeToString[m.Rcode])
	for flag, set := range map[string]bool{"AA": m.Authoritative, "RA": m.RecursionAvailable} {
		if !set {
			b.WriteString(" without " + flag)
		}
	}
	if m.Truncated {
		b.WriteString(" TC")
	}
	if m.AuthenticatedData {
		b.WriteString(" AD")
	}
	for _, rr := range slices.Concat(m.Answer, m.Ns) {
		fmt.Fprintf(&b, " | %s %d %s", rr.Header().Name, rr.Header().Ttl, dns.Type(rr.Header().Rrtype))
	}
	return b.String()
}

// TestInvent: as the resolvers of some providers do it.
func TestInvent(t *testing.T) {
	s := start(t, "a.test. A 192.0.2.1\n;!invent 192.0.2.80\n")
	for name, want := range map[string]string{"a.test": "192.0.2.1", "b.test": "192.0.2.80"} {
		m := ask(t, s, "udp", name, dns.TypeA)
		if len(m.Answer) != 1 || m.Rcode != dns.RcodeSuccess || m.Answer[0].(*dns.A).A.String() != want {
			t.Errorf("%s: %v", name, m)
		}
	}
	if m := ask(t, s, "udp", "b.test", dns.TypeMX); m.Rcode != dns.RcodeNameError {
		t.Errorf("MX: %v", m)
	}
}

func TestAnswers(t *testing.T) {
	s := start(t, zoneText)
	for _, tc := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"_SMTP._tcp.example.ORG", dns.TypeSRV, "NOERROR | _smtp._tcp.example.org. 60 SRV"},
		{"home.example.org", dns.TypeAAAA, "NOERROR | example.org. 60 SOA"},
		{"_tcp.example.org", dns.TypeSRV, "NOERROR | example.org. 60 SOA"},
		{"org", dns.TypeMX, "NOERROR | org. 60 SOA"},
		{"no.example.org", dns.TypeA, "NXDOMAIN | example.org. 60 SOA"},
		{"no.such.org", dns.TypeA, "NXDOMAIN | org. 60 SOA"},
		{"no.such.tld", dns.TypeA, "NXDOMAIN | . 60 SOA"},
		{"b.example.net", dns.TypeA, "NOERROR | example.net. 30 SOA"},
		{"c.example.net", dns.TypeA, "NXDOMAIN | example.net. 30 SOA"},
		{"alias.example.org", dns.TypeA, "NOERROR | alias.example.org. 30 CNAME | home.example.org. 30 A"},
		{"alias.example.org", dns.TypeCNAME, "NOERROR | alias.example.org. 30 CNAME"},
		{"lost.example.org", dns.TypeA, "NXDOMAIN | lost.example.org. 30 CNAME | example.org. 60 SOA"},
		{"alias.example.org", dns.TypeMX, "NOERROR | alias.example.org. 30 CNAME | example.org. 60 SOA"},
		{"round.example.org", dns.TypeA, "NOERROR | round.example.org. 30 CNAME | round2.example.org. 30 CNAME"},
		{"www.example.org", dns.TypeA, "NOERROR | www.example.org. 30 CNAME"},
		{"sf.example.org", dns.TypeA, "SERVFAIL"},
		{"rf.example.org", dns.TypeMX, "REFUSED"},
		{"rf.example.org", dns.TypeA, "NXDOMAIN | example.org. 60 SOA"},
		{"home.example.org", dns.TypeMX, "NXDOMAIN | example.org. 60 SOA"},
		{"home.example.org", dns.TypeANY, "REFUSED"},
		{"example.org", dns.TypeAXFR, "REFUSED"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			if tc.qtype == dns.TypeAXFR && network == "udp" {
				continue
			}
			if got := summary(ask(t, s, network, tc.name, tc.qtype)); got != tc.want {
				t.Errorf("%s %s over %s: %s, want %s", dns.Type(tc.qtype), tc.name, network, got, tc.want)
			}
		}
	}
}

// TestWildcards: RFC 4592 2.2.1, as far as there are no CNAMEs.
func TestWildcards(t *testing.T) {
	s := start(t, `
$ORIGIN example.
*        SRV 10 0 2525 host.example.
*        MX  10 host.example.
host     A   192.0.2.1
sub.deep A   192.0.2.2
*.own    TXT own
`)
	for _, tc := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"_smtp._tcp.any.example", dns.TypeSRV, "NOERROR | _smtp._tcp.any.example. 60 SRV"},
		{"ANY.example", dns.TypeMX, "NOERROR | any.example. 60 MX"},
		{"*.example", dns.TypeMX, "NOERROR | *.example. 60 MX"},
		{"any.example", dns.TypeA, "NOERROR | example. 60 SOA"},
		{"host.example", dns.TypeMX, "NOERROR | host.example. 60 SOA"},
		{"_smtp._tcp.host.example", dns.TypeSRV, "NXDOMAIN | host.example. 60 SOA"},
		{"other.deep.example", dns.TypeMX, "NXDOMAIN | deep.example. 60 SOA"},
		{"a.own.example", dns.TypeTXT, "NOERROR | a.own.example. 60 TXT"},
		{"a.own.example", dns.TypeMX, "NOERROR | own.example. 60 SOA"},
		{"own.example", dns.TypeMX, "NOERROR | own.example. 60 SOA"},
		{"any.other", dns.TypeMX, "NXDOMAIN | . 60 SOA"},
	} {
		for range 2 { // the records of the zone are not changed by an answer
			if got := summary(ask(t, s, "udp", tc.name, tc.qtype)); got != tc.want {
				t.Errorf("%s %s: %s, want %s", dns.Type(tc.qtype), tc.name, got, tc.want)
			}
		}
	}
}

func TestTruncateFault(t *testing.T) {
	s := start(t, zoneText)
	if got := summary(ask(t, s, "udp", "home.example.org", dns.TypeA)); got != "NOERROR TC" {
		t.Errorf("over UDP %s", got)
	}
	if got := summary(ask(t, s, "tcp", "home.example.org", dns.TypeA)); got != "NOERROR | home.example.org. 30 A" {
		t.Errorf("over TCP %s", got)
	}
}

func TestLargeAnswersAreTruncatedToWhatTheClientTakes(t *testing.T) {
	s := start(t, manyTXT(20))
	for _, size := range []uint16{0, 1232, 4096} {
		m := new(dns.Msg)
		m.SetQuestion("many.test.", dns.TypeTXT)
		limit := 512
		if size > 0 {
			m.SetEdns0(size, false)
			limit = 1232
		}
		r, _, err := (&dns.Client{UDPSize: 4096}).Exchange(m, s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		r.Compress = true // Len is then that of the packet
		if !r.Truncated || len(r.Answer) == 0 || r.Len() > limit || (r.IsEdns0() != nil) != (size > 0) {
			t.Errorf("size %d: %d bytes, flags %+v", size, r.Len(), r.MsgHdr)
		}
	}
	if r := ask(t, s, "tcp", "many.test", dns.TypeTXT); len(r.Answer) != 20 || r.Truncated {
		t.Errorf("over TCP %d records", len(r.Answer))
	}
}

func manyTXT(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "many.test. TXT %d-%s\n", i, strings.Repeat("x", 150))
	}
	return b.String()
}

func TestWrongQuestionFault(t *testing.T) {
	s := start(t, zoneText)
	r := ask(t, s, "udp", "home.example.org", dns.TypeTXT)
	if r.Question[0].Name == "home.example.org." {
		t.Errorf("question %v", r.Question)
	}
}

func TestDropFault(t *testing.T) {
	s := start(t, zoneText)
	m := new(dns.Msg)
	m.SetQuestion("dr.example.org.", dns.TypeA)
	_, _, err := (&dns.Client{Timeout: 500 * time.Millisecond}).Exchange(m, s.Addr())
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v, want a timeout", err)
	}
	if q := s.Queries(); !slices.Equal(q, []string{"A dr.example.org"}) {
		t.Errorf("questions %q", q)
	}
}

func TestADFault(t *testing.T) {
	s := start(t, "a.test. A 192.0.2.1\n;!ad\n")
	for _, name := range []string{"a.test", "no.test"} {
		if !ask(t, s, "udp", name, dns.TypeA).AuthenticatedData {
			t.Errorf("%s without AD", name)
		}
	}
}

func TestSetZoneReplacesDataAndFaults(t *testing.T) {
	s := start(t, "a.test. A 192.0.2.1\n;!servfail b.test")
	if err := s.SetZone("b.test. A 192.0.2.2"); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		if got := summary(ask(t, s, "udp", "a.test", dns.TypeA)); !strings.HasPrefix(got, "NXDOMAIN") {
			t.Errorf("old name: %s", got)
		}
		if got := summary(ask(t, s, "udp", "b.test", dns.TypeA)); !strings.HasPrefix(got, "NOERROR | b.test.") {
			t.Errorf("new name: %s", got)
		}
	}
	check()
	if err := s.SetZone("b.test. A not-an-address"); err == nil {
		t.Error("a broken zone was taken")
	}
	check()
	want := []string{"A a.test", "A b.test", "A a.test", "A b.test"}
	if q := s.Queries(); !slices.Equal(q, want) {
		t.Errorf("questions %q, want %q", q, want)
	}
	s.ResetQueries()
	if q := s.Queries(); len(q) != 0 {
		t.Errorf("questions after the reset %q", q)
	}
}

func TestQueryLogIsBounded(t *testing.T) {
	s := new(Server)
	for i := range maxQueries + 1 {
		s.note(fmt.Sprint(i))
	}
	if q := s.Queries(); len(q) > maxQueries || q[len(q)-1] != fmt.Sprint(maxQueries) {
		t.Errorf("%d questions, the last %q", len(q), q[len(q)-1])
	}
}

// TestOddQueriesDoNoHarm: the second announces a question that it lacks.
func TestOddQueriesDoNoHarm(t *testing.T) {
	s := start(t, "a.test. A 192.0.2.1")
	notify := new(dns.Msg)
	notify.SetNotify("a.test.")
	notify.Question[0].Qtype = dns.TypeA
	wire, err := notify.Pack()
	if err != nil {
		t.Fatal(err)
	}
	for want, packet := range map[int][]byte{
		dns.RcodeNotImplemented: wire,
		dns.RcodeFormatError:    {0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0},
	} {
		conn, err := net.Dial("udp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		conn.Write([]byte{1, 2, 3}) // not even a header: no answer
		conn.Write(packet)
		buf := make([]byte, 512)
		n, err := conn.Read(buf)
		if err != nil || n < 12 || int(buf[3]&0xf) != want {
			t.Errorf("%x: answer %x, %v, want the code %d", packet, buf[:n], err, want)
		}
	}
	if got := summary(ask(t, s, "udp", "a.test", dns.TypeA)); got != "NOERROR | a.test. 60 A" {
		t.Errorf("afterwards: %s", got)
	}
}

func TestMistakesInTheZoneText(t *testing.T) {
	for zone, want := range map[string]string{
		"a.test. A 192.0.2.1\n;!explode a.test": "line 2",
		";!servfail":                            "line 1",
		";!drop a.test A extra":                 "line 1",
		";!drop a.test NOTYPE":                  "NOTYPE",
		";!drop a..test":                        "a..test",
		";!invent a.test":                       "not an IPv4 address",
		";!drop a.test\n;!refused A.test.":      "already",
		"\n\na.test. A 192.0.2":                 "line: 3",
		"$INCLUDE /etc/passwd":                  "INCLUDE",
	} {
		s, err := Start("127.0.0.1:0", zone)
		if err == nil {
			s.Close()
			t.Errorf("%q was taken", zone)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %q does not mention %q", zone, err, want)
		}
	}
}

func TestAddressInUseAndClose(t *testing.T) {
	s := start(t, "")
	if _, err := Start(s.Addr(), ""); err == nil {
		t.Error("two servers on one address")
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	again, err := Start(s.Addr(), "")
	if err != nil {
		t.Fatalf("the address is not free after Close: %v", err)
	}
	again.Close()
}

func FuzzZone(f *testing.F) {
	f.Add(zoneText)
	f.Add(";!ad\n$TTL 5\n$ORIGIN .\n* A 192.0.2.1")
	f.Fuzz(func(t *testing.T, text string) {
		z, err := parseZone(text)
		if err != nil {
			return
		}
		for q := range z.records {
			req := new(dns.Msg)
			req.SetQuestion(q.name, q.qtype)
			if m := z.reply(req, q, true); m != nil && len(m.Question) != 1 {
				t.Fatalf("reply to %v: %v", q, m)
			}
		}
	})
}
