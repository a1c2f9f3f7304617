package relay

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pires/go-proxyproto"

	"srvrelay/queue"
)

// behindProxy makes every door one that a proxy on loopback stands before.
func behindProxy(trusted ...string) func(*Config) {
	return func(cfg *Config) {
		for i := range cfg.Listeners {
			cfg.Listeners[i].ProxyFrom = loopback
		}
		cfg.Listeners[trustedDoor].Trusted = nil
		for _, n := range trusted {
			cfg.Listeners[trustedDoor].Trusted = append(cfg.Listeners[trustedDoor].Trusted, netip.MustParsePrefix(n))
		}
	}
}

// proxyHeader is a PROXY protocol header for a client; "" = LOCAL.
func proxyHeader(t *testing.T, version byte, client string) string {
	t.Helper()
	h := &proxyproto.Header{Version: version, Command: proxyproto.LOCAL}
	if client != "" {
		from := netip.MustParseAddrPort(client)
		to := netip.MustParseAddrPort("192.0.2.1:25")
		h = proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(to))
	}
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestProxyClient: the address of the header is the client's, in the envelope,
// in Received and in what is refused; in clear, behind STARTTLS and with TLS
// from the first byte.
func TestProxyClient(t *testing.T) {
	for _, client := range []string{"203.0.113.7:4711", "[2001:db8::7]:4711"} {
		for _, version := range []byte{1, 2} {
			t.Run(fmt.Sprintf("v%d_%s", version, client), func(t *testing.T) {
				f := start(t, behindProxy())
				c := f.connect(inboundDoor)
				// In one packet with a command: nothing of it may be lost.
				c.send(proxyHeader(t, version, client) + "EHLO client.example\r\n")
				c.want("220 relay.example.net ESMTP")
				c.want("250-")
				c.do("MAIL FROM:<a@x.example>", "250")
				c.do("RCPT TO:<b@elsewhere.example>", "550 5.7.1")
				c.do("RCPT TO:<b@home.example>", "250")
				c.do("DATA", "354")
				c.send(hello + ".\r\n")
				c.want("250 2.0.0")
				got := f.queue.one(t)
				want := netip.MustParseAddrPort(client)
				if got.env.Client.Addr != want {
					t.Errorf("client %v, want %v", got.env.Client.Addr, want)
				}
				if !strings.Contains(got.body, want.Addr().String()+"]") || strings.Contains(got.body, "127.0.0.1") {
					t.Errorf("Received:\n%s", got.body)
				}
				f.events.lock()()
				if r := f.events.refused; len(r) != 1 || r[0].Client.Addr != want {
					t.Errorf("refused: %+v", r)
				}

				tls := f.connect(implicitDoor)
				tls.send(proxyHeader(t, version, client))
				tls.handshake()
				tls.want("220 ")
				start := f.connect(authDoor)
				start.send(proxyHeader(t, version, client))
				start.want("220 ")
				start.do("EHLO x.example", "250-")
				start.do("STARTTLS", "220")
				start.handshake()
				start.do("EHLO x.example", "250-")
			})
		}
	}
}

// TestProxyTrust: a header makes a client trusted only by naming an address of
// a trusted network, and never by naming this machine or by naming nobody.
func TestProxyTrust(t *testing.T) {
	// All that could be trusted by accident is in the list.
	f := start(t, behindProxy("192.168.7.0/24", "127.0.0.0/8", "::1/128", "0.0.0.0/8"))
	for _, tc := range []struct{ client, want string }{
		{"192.168.7.9:1", "250"},
		{"192.168.8.9:1", "530 5.7.0"},
		{"127.0.0.1:1", "530 5.7.0"},
		{"[::1]:1", "530 5.7.0"},
		{"0.0.0.0:1", "530 5.7.0"},
		{"", "530 5.7.0"}, // LOCAL, and UNKNOWN of version 1
	} {
		for _, version := range []byte{1, 2} {
			c := f.connect(trustedDoor)
			c.send(proxyHeader(t, version, tc.client))
			c.want("220 ")
			c.do("EHLO client.example", "250-")
			c.send("MAIL FROM:<a@x.example>\r\n")
			if r := c.reply(); !strings.HasPrefix(r, tc.want) {
				t.Errorf("v%d %q: %q, want %s", version, tc.client, r, tc.want)
			}
		}
	}
	// ::ffff:127.0.0.1 is 127.0.0.1.
	c := f.connect(trustedDoor)
	c.send("PROXY TCP6 ::ffff:127.0.0.1 ::ffff:127.0.0.1 1 25\r\n")
	c.want("220 ")
	c.do("EHLO client.example", "250-")
	c.do("MAIL FROM:<a@x.example>", "530 5.7.0")
}

// TestProxyLocal: the proxy's own connections keep the proxy's address.
func TestProxyLocal(t *testing.T) {
	f := start(t, behindProxy())
	for _, version := range []byte{1, 2} {
		c := f.connect(inboundDoor)
		c.send(proxyHeader(t, version, ""))
		c.want("220 ")
		c.do("NONSENSE", "500")
	}
	defer f.events.lock()()
	for _, r := range f.events.refused {
		if !r.Client.Addr.Addr().IsLoopback() {
			t.Errorf("client %v", r.Client.Addr)
		}
	}
}

// TestProxyStranger: from an address that is no proxy, a header is no header.
func TestProxyStranger(t *testing.T) {
	f := start(t, func(cfg *Config) {
		behindProxy("192.168.7.0/24")(cfg)
		for i := range cfg.Listeners {
			cfg.Listeners[i].ProxyFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}
	})
	for _, version := range []byte{1, 2} {
		c := f.connect(trustedDoor)
		c.want("220 ") // nothing is waited for
		c.send(proxyHeader(t, version, "192.168.7.9:1"))
		c.want("500 5.5.1")
	}
	c := f.dial(trustedDoor)
	c.do("PROXY TCP4 192.168.7.9 192.0.2.1 1 25", "500 5.5.1")
	c.do("EHLO client.example", "250-")
	c.do("MAIL FROM:<a@x.example>", "530 5.7.0")
	defer f.events.lock()()
	for _, r := range f.events.refused {
		if !r.Client.Addr.Addr().IsLoopback() {
			t.Errorf("client %v", r.Client.Addr)
		}
	}
}

// TestProxyMalformed: without a valid header there is no service.
func TestProxyMalformed(t *testing.T) {
	f := start(t, behindProxy("127.0.0.0/8"))
	good := proxyHeader(t, 2, "203.0.113.7:4711")
	big := []byte(good)
	big[14], big[15] = 0xff, 0xff
	for name, sent := range map[string]string{
		"a command":      "EHLO client.example\r\n",
		"an address":     "PROXY TCP4 203.0.113.777 192.0.2.1 1 25\r\n",
		"a family":       "PROXY TCP4 2001:db8::7 2001:db8::1 1 25\r\n",
		"a bare LF":      "PROXY TCP4 203.0.113.7 192.0.2.1 1 25\n",
		"a long line":    "PROXY UNKNOWN " + strings.Repeat("x", 200) + "\r\n",
		"a long header":  string(big) + strings.Repeat("x", 5000),
		"a version":      strings.Replace(good, "\x21", "\x31", 1),
		"a datagram":     strings.Replace(good, "\x21\x11", "\x21\x12", 1),
		"a Unix socket":  good[:13] + "\x31\x00\xd8" + strings.Repeat("x", 216),
		"TLS":            "\x16\x03\x01\x02\x00\x01",
		"a second guess": "\r\n\r\nPROXY TCP4 203.0.113.7 192.0.2.1 1 25\r\n",
	} {
		c := f.connect(trustedDoor)
		c.send(sent)
		if got := c.gone(); got != "" && !strings.HasPrefix(got, "421 4.3.5") {
			t.Errorf("%s: %q", name, got)
		}
	}
	// A connection that says nothing at all is no news.
	f.events.mu.Lock()
	before := len(f.events.refused)
	f.events.mu.Unlock()
	if before != 11 {
		t.Errorf("%d refusals", before)
	}
	c := f.connect(inboundDoor)
	c.conn.(*net.TCPConn).CloseWrite()
	c.gone()
	defer f.events.lock()()
	if n := len(f.events.refused); n != before {
		t.Errorf("%d refusals, want %d", n, before)
	}
}

// TestProxySilent: a header is not waited for longer than proxyWait, however it
// dribbles in.
func TestProxySilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Listener{Mode: queue.Inbound, ProxyFrom: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("128.0.0.0/1")}}
		events := &recorder{}
		s, err := New(Config{Hostname: "a.example", Queue: &memQueue{}, Listeners: []Listener{l}, Events: events})
		if err != nil {
			t.Fatal(err)
		}
		server, peer := net.Pipe()
		t.Cleanup(func() { peer.Close() })
		began := time.Now()
		serveConn(s, l, pipeAddr{server})
		dribbled := make(chan struct{})
		go func() {
			defer close(dribbled)
			for _, b := range []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c") {
				if _, err := peer.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(3 * time.Second)
			}
		}()
		buf := make([]byte, 200)
		for {
			if _, err := peer.Read(buf); err != nil {
				break
			}
		}
		if d := time.Since(began); d > proxyWait+time.Second || d < proxyWait {
			t.Errorf("ended after %v, want %v", d, proxyWait)
		}
		<-dribbled
		synctest.Wait()
		if s.Connections() != 0 {
			t.Error("the connection still counts")
		}
	})
}

// TestProxyLimits: the limit of an address is the client's, not the proxy's.
func TestProxyLimits(t *testing.T) {
	f := start(t, func(cfg *Config) {
		behindProxy()(cfg)
		cfg.Limits.PerAddress = 2
	})
	come := func(client, want string) *client {
		t.Helper()
		c := f.connect(inboundDoor)
		c.send(proxyHeader(t, 2, client))
		c.want(want)
		return c
	}
	first := come("203.0.113.7:1", "220 ")
	come("203.0.113.7:2", "220 ")
	come("203.0.113.7:3", "421 4.7.0")
	come("203.0.113.8:1", "220 ")
	come("127.0.0.1:1", "220 ") // named, so it is not this machine, and not exempt
	come("127.0.0.1:2", "220 ")
	come("127.0.0.1:3", "421 4.7.0")
	for range 4 {
		come("", "220 ") // the proxy's own
	}
	first.do("QUIT", "221")
	first.gone()
	come("203.0.113.7:4", "220 ")
}

// fromProxy is a connection from a proxy on another machine.
type fromProxy struct{ net.Conn }

func (fromProxy) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 1000}
}

// TestProxyIsNoClient: the proxy itself has no limit, and its clients have one each.
func TestProxyIsNoClient(t *testing.T) {
	l := Listener{Mode: queue.Inbound, ProxyFrom: []netip.Prefix{netip.MustParsePrefix("198.51.100.1/32")}}
	f := start(t, func(cfg *Config) { cfg.Limits.PerAddress = 1 })
	for i, want := range []string{"220 ", "220 ", "421 4.7.0"} {
		server, peer := net.Pipe()
		t.Cleanup(func() { peer.Close() })
		serveConn(f.srv, l, fromProxy{server})
		c := newClient(t, peer)
		c.send(proxyHeader(t, 2, fmt.Sprintf("203.0.113.%d:1", min(i, 1))))
		if i < 2 {
			c.want(want)
		} else if got := c.gone(); got != "" && !strings.HasPrefix(got, want) { // a pipe has no buffer
			t.Errorf("%q, want %s", got, want)
		}
	}
}

// brittle is Events that fail when something is refused.
type brittle struct{ *recorder }

func (brittle) Refused(Refusal) { panic("brittle") }

// TestProxyPanic: a panic over a header ends its connection and no other.
func TestProxyPanic(t *testing.T) {
	events := &recorder{}
	f := start(t, func(cfg *Config) {
		behindProxy()(cfg)
		cfg.Events = brittle{events}
	})
	c := f.connect(inboundDoor)
	c.send("EHLO client.example\r\n")
	c.gone()
	c = f.connect(inboundDoor)
	c.send(proxyHeader(t, 2, "203.0.113.7:1"))
	c.want("220 ")
	defer events.lock()()
	if len(events.faults) != 1 {
		t.Errorf("faults: %v", events.faults)
	}
}
