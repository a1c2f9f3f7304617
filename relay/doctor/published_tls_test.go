package doctor

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"srvrelay/dnsutil"
	"srvrelay/relay/publish"
)

// TestShownKeys: each address of a server is judged, and as hard as senders are.
func TestShownKeys(t *testing.T) {
	const host = "mx.d.example"
	good, other := (*authority)(nil).sign(t, leafFor(host, 40)).cert, (*authority)(nil).sign(t, leafFor(host, 40)).cert
	sum := sha256.Sum256(good.RawSubjectPublicKeyInfo)
	record := dnsutil.TLSA{Usage: dnsutil.DANEEE, Selector: 1, Matching: 1, Data: string(sum[:])}
	right, wrong := visit{}, visit{}
	right.chain, wrong.chain = append(right.chain, good), append(wrong.chain, other)
	plain, refused, busy, down := visit{tls: errNoTLS}, visit{tls: errors.New("EHLO: it says 550 no")}, visit{tls: errors.New("timeout")}, visit{err: errors.New("connection refused")}
	all := func(v ...visit) []visit { return v }
	for _, c := range []struct {
		visits  []visit
		trustAD bool
		signed  bool
		named   bool
		want    string
	}{
		{visits: all(right, right), want: "ok (192.0.2.1) is that; ok (192.0.2.2) is that"},
		{visits: all(right, wrong), want: "ok (192.0.2.1) is that; error (192.0.2.2) is not that"},
		{visits: all(wrong, right), want: "error (192.0.2.1) is not that; ok (192.0.2.2) is that"},
		{visits: all(right, plain), want: "ok (192.0.2.1) is that; error (192.0.2.2) it offers no STARTTLS"},
		{visits: all(down, right), want: "ok (192.0.2.2) is that"},
		{visits: all(refused, busy), want: "skipped (192.0.2.1) EHLO; skipped (192.0.2.2) timeout"},
		{visits: all(down), want: "skipped it could not be seen"},
		{visits: all(wrong), trustAD: true, signed: true, named: true, want: "error (192.0.2.1) is not that"},
		{visits: all(wrong), trustAD: true, signed: true, want: "note few go by; warning (192.0.2.1) is not that"},
		{visits: all(plain), trustAD: true, signed: true, want: "note few go by; warning (192.0.2.1) it offers no STARTTLS"},
		{visits: all(wrong), trustAD: true, named: true, want: "note do nothing; warning (192.0.2.1) is not that"},
	} {
		p := published{Domain: Domain{Name: "d.example"}, trustAD: c.trustAD, connect: true}
		for i, v := range c.visits {
			v.host, v.ep = host, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 25)
			p.tried = append(p.tried, v, v) // by SRV and by MX
		}
		k := keyed{Target: publish.Target{Host: host, Port: 25}, named: c.named}
		k.Records, k.Secure = []dnsutil.TLSA{record}, c.signed
		found := p.judgeKeyed(k)
		if !c.trustAD { // that nothing is known of signatures
			found = found[1:]
		}
		wants := strings.Split(c.want, "; ")
		if len(found) != len(wants) {
			t.Errorf("want %s, got:\n%s", c.want, texts(found))
			continue
		}
		for i, want := range wants {
			level, rest, _ := strings.Cut(want, " ")
			address, text, some := strings.Cut(rest, ") ")
			if !some {
				address, text = "", rest
			}
			if f := found[i]; string(f.Level) != level || !strings.Contains(f.What, address) || !strings.Contains(f.What, text) {
				t.Errorf("want %s, got:\n%s", c.want, texts(found))
			}
		}
	}
}

// TestManyServers: what is said of a domain with more servers than are asked for.
func TestManyServers(t *testing.T) {
	zone := "d.example. MX 10 mx.d.example.\n_mta-sts.d.example. TXT \"v=STSv1; id=1\"\n"
	for i := range maxKeyed {
		zone += fmt.Sprintf("_smtp._tcp.d.example. SRV 10 0 25 s%d.d.example.\n", i)
	}
	w := newDomainWorld(t, zone, edge, nil)
	p := w.look(t.Context(), Domain{Name: "d.example"})
	if sts := texts(judgeMTASTS(p)); !strings.Contains(sts, "mx: mx.d.example") || !strings.Contains(sts, "mx: s11.d.example") {
		t.Error(sts)
	}
	if tlsa := texts(judgeTLSA(p)); len(p.tlsa) != maxKeyed || !strings.Contains(tlsa, "skipped the TLSA records of mx.d.example port 25: d.example has more than 12 servers") {
		t.Error(tlsa)
	}
	p.mx.Records = nil
	for i := range 1000 {
		p.mx.Records = append(p.mx.Records, dnsutil.MX{Host: fmt.Sprintf("m%d.d.example", i)})
	}
	if sts := texts(judgeMTASTS(p)); !strings.Contains(sts, "and 962 more") || len(sts) > 2000 {
		t.Error(sts)
	}
}

// TestEndlessAnswer: also after STARTTLS not more is read of a server than before.
func TestEndlessAnswer(t *testing.T) {
	by := (*authority)(nil).sign(t, leafFor("mx.d.example", 40))
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		defer theirs.Close()
		said := bufio.NewReader(theirs)
		_, _ = said.ReadString('\n')
		_, _ = io.WriteString(theirs, "250-mx.d.example\r\n250 STARTTLS\r\n")
		_, _ = said.ReadString('\n')
		_, _ = io.WriteString(theirs, "220 go on\r\n")
		c := tls.Server(theirs, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{by.cert.Raw}, PrivateKey: by.key}}})
		_, _ = io.WriteString(c, strings.Repeat("221-"+strings.Repeat("x", 58)+"\r\n", maxGreeting/64+1)+"221 bye\r\n")
	}()
	p := &peer{Conn: ours, text: bound(ours)}
	if chain, err := p.certificate("relay.example.net", "mx.d.example"); err != nil || len(chain) != 1 {
		t.Fatal(chain, err)
	}
	if text, err := p.reply(221); err == nil {
		t.Errorf("%d bytes were read", len(text))
	}
}

// TestWhoseDMARC: only what is a DMARC record keeps senders from the organization's.
func TestWhoseDMARC(t *testing.T) {
	for _, c := range []struct{ zone, at, want string }{
		{"", "a.o.test", ""},
		{"_dmarc.o.test. TXT \"v=DMARC1; p=none\"", "o.test", "v=DMARC1; p=none"},
		{"_dmarc.a.o.test. TXT \"google-site\"\n_dmarc.o.test. TXT \"v=DMARC1; p=none\"", "o.test", "v=DMARC1; p=none"},
		{"_dmarc.a.o.test. TXT \"v=DMARC1; p=reject\"\n_dmarc.o.test. TXT \"v=DMARC1; p=none\"", "a.o.test", "v=DMARC1; p=reject"},
		{"_dmarc.a.o.test. TXT \"google-site\"\n_dmarc.o.test. TXT \"other\"", "a.o.test", "google-site"},
		{"_dmarc.o.test. TXT \"other\"", "a.o.test", ""},
		{";!servfail _dmarc.a.o.test. TXT\n_dmarc.o.test. TXT \"v=DMARC1; p=none\"", "a.o.test", "unknown"},
		{";!servfail _dmarc.o.test. TXT", "o.test", "unknown"},
	} {
		l, at := newWorld(t, c.zone, "", nil).dmarcOf(t.Context(), "a.o.test")
		got := strings.Join(l.Records, "|")
		if l.unknown() {
			got = "unknown"
		}
		if at != c.at || got != c.want {
			t.Errorf("%q: %s %q", c.zone, at, got)
		}
	}
}
