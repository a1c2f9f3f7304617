package relay

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"srvrelay/queue"
)

// another is the configuration of start, changed.
func another(f *fixture, change func(*Config)) Config {
	cfg := f.srv.current.Load().Config
	cfg.Listeners = append([]Listener(nil), cfg.Listeners...)
	change(&cfg)
	return cfg
}

func (f *fixture) reconfigure(change func(*Config)) {
	f.Helper()
	if err := f.srv.Reconfigure(another(f, change)); err != nil {
		f.Fatal(err)
	}
}

// TestReconfigureSettings: open connections see new settings at their next
// transaction; one that is open ends as it began.
func TestReconfigureSettings(t *testing.T) {
	f := start(t, nil)
	busy, idle := f.ready(inboundDoor), f.ready(inboundDoor)
	busy.do("MAIL FROM:<a@x.example>", "250")
	busy.do("RCPT TO:<b@home.example>", "250")
	trusty := f.ready(trustedDoor)
	f.reconfigure(func(c *Config) {
		c.Hostname, c.RelayDomains, c.MaxMessageSize, c.MaxRecipients = "new.example", []string{"new.example"}, 4000, 1
		c.Listeners[trustedDoor].Trusted = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		c.Users = secrets{"bob": "other"}
	})
	busy.do("RCPT TO:<c@home.example>", "250")
	busy.do("DATA", "354")
	busy.do(hello+strings.Repeat(strings.Repeat("x", 80)+"\r\n", 100)+".", "250 2.0.0 queued")
	if m := f.queue.one(t); !strings.Contains(m.body, "relay.example.net") {
		t.Errorf("the transaction has changed on the way: %.200s", m.body)
	}
	for _, c := range []*client{busy, idle} {
		ehlo := c.do("EHLO y", "250-new.example greets y")
		if !strings.Contains(ehlo, "SIZE 4000\r\n") || !strings.Contains(ehlo, "250-LIMITS RCPTMAX=1\r\n") {
			t.Errorf("EHLO: %q", ehlo)
		}
		c.do("MAIL FROM:<a@x.example> SIZE=4001", "552")
		c.do("MAIL FROM:<a@x.example>", "250")
		c.do("RCPT TO:<b@home.example>", "550 5.7.1 relaying denied")
		c.do("RCPT TO:<b@new.example>", "250")
		c.do("RCPT TO:<c@new.example>", "452 4.5.3")
	}
	trusty.do("MAIL FROM:<a@x.example>", "530 5.7.0")
	f.connect(inboundDoor).want("220 new.example ESMTP")
	s := f.connect(authDoor)
	s.want("220 new.example")
	s.do("EHLO z", "250")
	s.do("STARTTLS", "220")
	s.handshake()
	s.do("EHLO z", "250")
	s.do("AUTH PLAIN AGFsaWNlAHMzY3JldA==", "535")
	s.do("AUTH PLAIN AGJvYgBvdGhlcg==", "235")
}

// TestReconfigureListeners: new ones are bound before anything changes, those
// that are gone stop, those that stay are never closed.
func TestReconfigureListeners(t *testing.T) {
	f := start(t, nil)
	addrs := f.srv.Addrs()
	old := f.secure(authDoor)
	gone := addrs[authDoor].String()

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	fresh := "127.0.0.2:" + taken.Addr().String()[len("127.0.0.1:"):]
	bad := another(f, func(c *Config) {
		c.Hostname = "bad.example"
		c.Listeners = append(c.Listeners, Listener{Address: fresh, Mode: queue.Inbound}, Listener{Address: taken.Addr().String(), Mode: queue.Inbound})
	})
	if err := f.srv.Reconfigure(bad); err == nil || !strings.Contains(err.Error(), "listeners[6]") {
		t.Errorf("Reconfigure: %v", err)
	}
	if err := f.srv.Reconfigure(another(f, func(c *Config) { c.Hostname = "a b" })); err == nil {
		t.Error("a bad hostname is taken")
	}
	if got := f.srv.Addrs(); fmt.Sprint(got) != fmt.Sprint(addrs) {
		t.Errorf("listeners %v after an error, want %v", got, addrs)
	}
	f.dial(inboundDoor)
	if c, err := net.Dial("tcp", fresh); err == nil {
		c.Close()
		t.Error("a listener of the configuration that failed is open")
	}

	f.reconfigure(func(c *Config) {
		// The second is gone: of addresses that are written alike, the last are.
		for i := range c.Listeners {
			c.Listeners[i].Address = "127.0.0.1:0"
		}
		c.Listeners = []Listener{c.Listeners[0], {Address: "127.0.0.2:0", Mode: queue.Inbound}}
	})
	now := f.srv.Addrs()
	if len(now) != 2 || now[0].String() != addrs[0].String() || !strings.HasPrefix(now[1].String(), "127.0.0.2:") {
		t.Fatalf("listeners %v, were %v", now, addrs)
	}
	if c, err := net.Dial("tcp", gone); err == nil {
		c.Close()
		t.Error("a closed listener still answers")
	}
	old.do("AUTH PLAIN AGFsaWNlAHMzY3JldA==", "235")
	old.envelope("b@x.example")
	old.do("DATA", "354")
	old.do(hello+".", "250 2.0.0")
	c := f.ready(1)
	c.do("MAIL FROM:<a@x.example>", "250")
	c.do("RCPT TO:<b@home.example>", "250")

	// The same address for something else, and no TLS any more.
	plain := f.ready(0)
	f.reconfigure(func(c *Config) {
		c.Listeners = []Listener{{Address: "127.0.0.1:0", Mode: queue.Inbound}}
		c.TLS, c.InboundTLS = nil, nil
	})
	plain.do("STARTTLS", "502")
	plain.do("MAIL FROM:<a@x.example>", "530") // it is a submission connection that nobody trusts now
	if f.srv.Addrs()[0].String() != addrs[0].String() {
		t.Error("the address that stays was closed")
	}
	in := f.ready(0)
	in.do("MAIL FROM:<a@x.example>", "250")
	in.do("RCPT TO:<b@x.example>", "550 5.7.1")
}

// TestReconfigureOverlap: the error says why the address is taken, and by whom.
func TestReconfigureOverlap(t *testing.T) {
	f := start(t, nil)
	_, port, _ := net.SplitHostPort(f.srv.Addrs()[0].String())
	f.reconfigure(func(c *Config) {
		c.Listeners = []Listener{{Address: "127.0.0.9:" + port, Mode: queue.Inbound}}
	})
	err := f.srv.Reconfigure(another(f, func(c *Config) {
		c.Listeners = []Listener{{Address: "0.0.0.0:" + port, Mode: queue.Inbound}}
	}))
	if err == nil || !strings.Contains(err.Error(), "this relay itself has 127.0.0.9:"+port+" open") {
		t.Errorf("Reconfigure: %v", err)
	}
}

// TestReconfigureUnderLoad: no message is lost, and no connection but those to
// listeners that are gone.
func TestReconfigureUnderLoad(t *testing.T) {
	// Those to listeners that are gone end in their own time: the rounds may be faster.
	f := start(t, func(c *Config) { c.Limits.Connections, c.Limits.PerAddress = 10_000, 10_000 })
	const clients, messages = 8, 15
	var wg sync.WaitGroup
	var left atomic.Int32
	left.Store(clients)
	for i := range clients {
		wg.Go(func() {
			defer left.Add(-1)
			for j := range messages {
				c := f.ready(trustedDoor)
				if (i+j)%2 == 0 {
					c.do("STARTTLS", "220 2.0.0")
					c.handshake()
					c.do("EHLO client.example", "250-")
				}
				for range 2 {
					c.envelope("b@home.example")
					c.do("DATA", "354")
					c.do(hello+".", "250 2.0.0")
				}
				c.do("QUIT", "221")
				c.conn.Close()
			}
		})
	}
	rounds := 0
	for ; left.Load() > 0 || rounds < 10; rounds++ {
		f.reconfigure(func(c *Config) {
			c.MaxMessageSize++
			c.Listeners = c.Listeners[:5]
			c.TLS = &tls.Config{Certificates: []tls.Certificate{testCert()}, MinVersion: tls.VersionTLS12}
			if rounds%2 == 0 {
				c.Listeners = append(c.Listeners, Listener{Address: "127.0.0.3:0", Mode: queue.Inbound})
			}
		})
		if rounds%2 == 0 {
			f.connect(5).want("220")
		}
	}
	wg.Wait()
	if got := len(f.queue.all()); got != 2*clients*messages {
		t.Errorf("%d messages, want %d", got, 2*clients*messages)
	}
	t.Logf("%d times reconfigured", rounds)
}

// TestReconfigureAfterShutdown: closed is closed.
func TestReconfigureAfterShutdown(t *testing.T) {
	f := start(t, nil)
	_ = f.srv.Shutdown(t.Context())
	if err := f.srv.Reconfigure(another(f, func(*Config) {})); err == nil {
		t.Error("no error")
	}
}
