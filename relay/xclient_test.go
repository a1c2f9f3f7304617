package relay

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"srvrelay/queue"
)

// fromEdge makes loopback a peer of every door that may say XCLIENT. The
// trusted door trusts only some networks, loopback among them.
func fromEdge(trusted ...string) func(*Config) {
	return func(cfg *Config) {
		behindProxy(trusted...)(cfg)
		for i := range cfg.Listeners {
			cfg.Listeners[i].ProxyFrom, cfg.Listeners[i].XClientFrom = nil, loopback
		}
	}
}

// TestXClient: the client is the one that the peer names, in the envelope, in
// Received and in what is refused, for one message after the other.
func TestXClient(t *testing.T) {
	f := start(t, fromEdge())
	c := f.dial(inboundDoor)
	if r := c.do("EHLO edge.example", "250-"); !strings.Contains(r, xclientOffer) {
		t.Errorf("not offered: %q", r)
	}
	for i, tc := range []struct{ say, addr, helo, with string }{
		{"NAME=[UNAVAILABLE] ADDR=203.0.113.7 PORT=4711 PROTO=SMTP HELO=client.example", "203.0.113.7:4711", "client.example", "with SMTP id"},
		{"name=mail.x.example addr=IPV6:2001:db8::7 port=[UNAVAILABLE] helo=h+2Bx.example", "[2001:db8::7]:0", "h+x.example", "with ESMTP id"},
		{"ADDR=::ffff:203.0.113.8 PORT=1 LOGIN=alice", "", "", ""}, // LOGIN is not offered
		{"ADDR=2001:db8::8 DESTADDR=192.0.2.1 DESTPORT=25", "[2001:db8::8]:0", "edge.example", "with ESMTP id"},
		{"ADDR=::ffff:203.0.113.8 HELO=[TEMPUNAVAIL]", "203.0.113.8:0", "edge.example", "with ESMTP id"},
		{"ADDR=203.0.113.8|HELO=last.example PROTO=SMTP", "203.0.113.8:0", "last.example", "with SMTP id"},
	} {
		if tc.addr == "" {
			c.do("XCLIENT "+tc.say, "501 5.5.4")
			continue
		}
		for _, say := range strings.Split(tc.say, "|") {
			c.do("XCLIENT "+say, "220 relay.example.net ESMTP")
		}
		c.do("MAIL FROM:<a@x.example>", "503") // a new session: it greets first
		if r := c.do("EHLO edge.example", "250-"); !strings.Contains(r, xclientOffer) {
			t.Errorf("not offered again: %q", r)
		}
		c.do("MAIL FROM:<a@x.example>", "250")
		c.do("XCLIENT ADDR=203.0.113.9", "503 5.5.1")
		c.do("RCPT TO:<b@elsewhere.example>", "550 5.7.1")
		c.do("RCPT TO:<b@home.example>", "250")
		c.do("DATA", "354")
		c.send(hello + ".\r\n")
		c.want("250 2.0.0")
		all := f.queue.all()
		got, want := all[len(all)-1], netip.MustParseAddrPort(tc.addr)
		if got.env.Client.Addr != want || got.env.Client.Helo != tc.helo {
			t.Errorf("%s: client %+v", tc.say, got.env.Client)
		}
		if !strings.Contains(got.body, want.Addr().String()+"]") || strings.Contains(got.body, "127.0.0.1") || !strings.Contains(got.body, tc.with) {
			t.Errorf("%s: Received:\n%s", tc.say, got.body)
		}
		f.events.mu.Lock()
		if r := f.events.refused[len(f.events.refused)-1]; r.Client.Addr != want {
			t.Errorf("%d: refused: %+v", i, r)
		}
		f.events.mu.Unlock()
	}
}

// TestXClientStranger: who is not listed is not offered it, is refused, and
// stays who he is; so is one whom a proxy names with a loopback address.
func TestXClientStranger(t *testing.T) {
	f := start(t, func(cfg *Config) {
		fromEdge("192.168.7.0/24")(cfg)
		for i := range cfg.Listeners {
			cfg.Listeners[i].XClientFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}
		cfg.Listeners[plainDoor] = Listener{Address: "127.0.0.1:0", Mode: cfg.Listeners[inboundDoor].Mode, ProxyFrom: loopback, XClientFrom: loopback}
		cfg.Listeners[plainDoor].XClientFrom = append(loopback, netip.MustParsePrefix("192.0.2.0/24"))
	})
	c := f.dial(trustedDoor)
	for range 2 { // before and after the greeting
		c.do("XCLIENT ADDR=192.168.7.9", "550 5.7.0")
		if r := c.do("EHLO client.example", "250-"); strings.Contains(r, "XCLIENT") {
			t.Errorf("offered: %q", r)
		}
		c.do("MAIL FROM:<a@x.example>", "530 5.7.0")
	}
	for client, want := range map[string]string{"127.0.0.1:9": "550 5.7.0", "203.0.113.7:9": "550 5.7.0", "": "550 5.7.0", "192.0.2.9:9": "220 "} {
		c := f.connect(plainDoor)
		c.send(proxyHeader(t, 2, client))
		c.want("220 ")
		if r := c.do("EHLO x.example", "250-"); strings.Contains(r, "XCLIENT") != (want == "220 ") {
			t.Errorf("%q: %q", client, r)
		}
		c.do("XCLIENT ADDR=203.0.113.8", want)
	}
	defer f.events.lock()()
	for _, r := range f.events.refused {
		if a := r.Client.Addr.Addr().String(); a == "192.168.7.9" || a == "203.0.113.8" {
			t.Errorf("a stranger became %s", a)
		}
	}
}

// TestXClientTrust: an address in XCLIENT makes trusted only where it is in a
// trusted network, never as this machine and never as nobody; what the peer
// itself may, or has logged in for, is over.
func TestXClientTrust(t *testing.T) {
	f := start(t, fromEdge("192.168.7.0/24", "127.0.0.0/8", "::1/128", "0.0.0.0/8"))
	c := f.ready(trustedDoor)
	c.do("MAIL FROM:<a@x.example>", "250")
	c.do("RSET", "250")
	for _, tc := range []struct{ addr, want string }{
		{"192.168.7.9", "250"},
		{"203.0.113.7", "530 5.7.0"},
		{"127.0.0.1", "530 5.7.0"},
		{"IPV6:::1", "530 5.7.0"},
		{"::ffff:127.0.0.1", "530 5.7.0"},
		{"0.0.0.0", "530 5.7.0"},
		{"[UNAVAILABLE]", "530 5.7.0"},
	} {
		c.do("XCLIENT ADDR="+tc.addr, "220 ")
		c.do("EHLO edge.example", "250-")
		c.send("MAIL FROM:<a@x.example>\r\n")
		if r := c.reply(); !strings.HasPrefix(r, tc.want) {
			t.Errorf("%s: %q, want %s", tc.addr, r, tc.want)
		}
		c.do("RSET", "250")
	}
	s := f.secure(authDoor)
	s.do("AUTH PLAIN AGFsaWNlAHMzY3JldA==", "235")
	s.do("XCLIENT ADDR=203.0.113.7", "220 ")
	s.do("EHLO edge.example", "250-")
	s.do("MAIL FROM:<a@x.example>", "530 5.7.0")
	s.do("AUTH PLAIN AGFsaWNlAHMzY3JldA==", "235") // TLS is still there
}

// TestXClientMalformed: with an attribute that is wrong nothing is taken.
func TestXClientMalformed(t *testing.T) {
	f := start(t, fromEdge())
	c := f.ready(inboundDoor)
	for _, arg := range []string{
		"", "ADDR", "ADDR=", "=203.0.113.7", "ADDR=203.0.113.777", "ADDR=mail.example", "ADDR=fe80::1%25eth0",
		"ADDR=203.0.113.7 PORT=70000", "ADDR=203.0.113.7 PORT=-1", "ADDR=203.0.113.7 HELO=a+20b", "ADDR=203.0.113.7 HELO=a+1Bb",
		"ADDR=203.0.113.7 HELO=a+0D+0Ab", "ADDR=203.0.113.7 HELO=a+b", "ADDR=203.0.113.7 PROTO=HTTP", "ADDR=203.0.113.7 FOO=1",
		"ADDR=203.0.113.7 HELO=" + strings.Repeat("x", 256), strings.Repeat("NAME=x ", maxXClientAttrs+1),
	} {
		c.do("XCLIENT "+arg, "501 5.5.4")
	}
	c.envelope("b@home.example") // the session is as it was
	c.do("DATA", "354")
	c.send(hello + ".\r\n")
	c.want("250 2.0.0")
	if a := f.queue.one(t).env.Client; !a.Addr.Addr().IsLoopback() || a.Helo != "client.example" {
		t.Errorf("client %+v", a)
	}
}

// TestXClientLimits: the limit of an address is that of the client who is
// named, and a connection counts for one client at a time.
func TestXClientLimits(t *testing.T) {
	f := start(t, func(cfg *Config) {
		fromEdge()(cfg)
		cfg.Limits.PerAddress, cfg.Limits.BadCommands = 2, 5
	})
	as := func(c *client, host int, want string) *client {
		c.Helper()
		c.do(fmt.Sprintf("XCLIENT ADDR=203.0.113.%d", host), want)
		return c
	}
	first := as(f.dial(inboundDoor), 7, "220 ")
	as(f.dial(inboundDoor), 7, "220 ")
	as(f.dial(inboundDoor), 7, "421 4.7.0").gone()
	as(first, 8, "220 ")
	as(f.dial(inboundDoor), 7, "220 ")
	as(first, 7, "421 4.7.0").gone()
	// What one client does wrong, the next does not pay for.
	c := f.dial(inboundDoor)
	for host := range 4 {
		as(c, 20+host, "220 ")
		for range 3 {
			c.do("NONSENSE", "500")
		}
	}
	f.srv.mu.Lock()
	defer f.srv.mu.Unlock()
	if n := f.srv.counts.perKey["203.0.113.8"]; n != 0 {
		t.Errorf("%d connections are counted for a client that has none", n)
	}
}

// TestXClientReload: who may say XCLIENT changes under open connections.
func TestXClientReload(t *testing.T) {
	f := start(t, fromEdge())
	c := f.ready(inboundDoor)
	c.do("XCLIENT ADDR=203.0.113.7", "220 ")
	f.reconfigure(func(c *Config) {
		for i := range c.Listeners {
			c.Listeners[i].XClientFrom = nil
		}
	})
	c.do("XCLIENT ADDR=203.0.113.8", "550 5.7.0")
	if r := c.do("EHLO edge.example", "250-"); strings.Contains(r, "XCLIENT") {
		t.Errorf("offered: %q", r)
	}
}

// TestXClientPeerIsNoClient: a listed server has no limit and no ban of its own,
// as long as it speaks for nobody; those whom it names have.
func TestXClientPeerIsNoClient(t *testing.T) {
	l := Listener{Mode: queue.Inbound, XClientFrom: []netip.Prefix{netip.MustParsePrefix("198.51.100.1/32")}}
	f := start(t, func(cfg *Config) { cfg.Limits.PerAddress = 1 })
	come := func() *client {
		t.Helper()
		server, peer := net.Pipe()
		t.Cleanup(func() { peer.Close() })
		serveConn(f.srv, l, fromProxy{server})
		c := newClient(t, peer)
		c.want("220 ")
		return c
	}
	first, second := come(), come()
	first.do("XCLIENT ADDR=203.0.113.7", "220 ")
	second.do("XCLIENT ADDR=203.0.113.7", "421 4.7.0")
	if _, err := f.srv.Ban(netip.MustParsePrefix("203.0.113.8/32"), time.Now().Add(time.Hour), ""); err != nil {
		t.Fatal(err)
	}
	come().do("XCLIENT ADDR=203.0.113.8", "421 4.7.0 your address is banned")
	first.do("EHLO edge.example", "250-")
}

// FuzzXClient: what is taken of an XCLIENT command can stand in a Received field
// and in the log, and names an address without a zone.
func FuzzXClient(f *testing.F) {
	f.Add("NAME=[UNAVAILABLE] ADDR=203.0.113.7 PORT=4711 PROTO=SMTP HELO=client.example")
	f.Add("addr=IPV6:2001:db8::7 port=[UNAVAILABLE] helo=h+2Bx.example")
	f.Add("ADDR=fe80::1+25eth0")
	f.Add("ADDR=::ffff:203.0.113.8 HELO=a+0D+0Ab")
	f.Add("PROTO=lmtp")
	f.Fuzz(func(t *testing.T, arg string) {
		x, r := parseXClient(arg)
		if r != nil {
			if !isPrintableASCII(r.Message) {
				t.Errorf("%q: answers %q", arg, r.Message)
			}
			return
		}
		if !isPrintableASCII(x.helo) || len(x.helo) > 255 || x.addr.Zone() != "" || x.addr.Is4In6() || x.addr.IsValid() && !x.hasAddr {
			t.Errorf("%q: %+v", arg, x)
		}
		if x.proto != "" && x.proto != "SMTP" && x.proto != "ESMTP" {
			t.Errorf("%q: protocol %q", arg, x.proto)
		}
	})
}
