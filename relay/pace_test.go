package relay

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"srvrelay/queue"
)

// TestConnectionRate: so many connections a minute from one address and from
// one network, and not more; trusted clients are not counted.
func TestConnectionRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := doorman(t, func(c *Config) {
			c.Listeners[0].Trusted = []netip.Prefix{netip.MustParsePrefix("203.0.113.200/32")}
			c.Limits = Limits{PerMinute: 5, NetPerMinute: 12}
		})
		come := func(addr, want string) {
			t.Helper()
			c := b.come(addr)
			c.want(want)
			c.conn.Close() // it is the number that counts
		}
		const full = "421 4.7.0 too many connections in a short time"
		for range 5 {
			come("203.0.113.1", "220 ")
			come("2001:db8:0:1::1", "220 ")
			come("203.0.113.200", "220 ")
			come("127.0.0.1", "220 ")
		}
		come("203.0.113.1", full)
		come("2001:db8:0:1::2", full)
		come("203.0.113.200", "220 ")
		come("127.0.0.1", "220 ")
		for range 5 {
			come("203.0.113.2", "220 ")
			come("2001:db8:0:2::1", "220 ")
		}
		for range 2 {
			come("203.0.113.3", "220 ")
			come("2001:db8:0:3::1", "220 ")
		}
		come("203.0.113.3", full) // it is the network's
		come("2001:db8:0:3::1", full)
		come("203.0.114.1", "220 ")
		come("2001:db8:1:1::1", "220 ")
		time.Sleep(time.Minute + time.Second)
		come("203.0.113.1", "220 ")
		come("2001:db8:0:1::1", "220 ")
		b.events.mu.Lock()
		n := len(b.events.refused)
		b.events.mu.Unlock()
		if n != 2 { // the first, and the others with their number
			t.Errorf("%d lines in the log", n)
		}

		free := doorman(t, nil)
		for range 1000 {
			c := free.come("203.0.113.1")
			c.want("220 ")
			c.conn.Close()
			synctest.Wait()
		}
	})
}

// TestConnectionRateBehindProxy: it is the client's, not the proxy's.
func TestConnectionRateBehindProxy(t *testing.T) {
	f := start(t, func(c *Config) {
		behindProxy()(c)
		c.Limits = Limits{PerMinute: 2}
	})
	for i, want := range []string{"220 ", "220 ", "421 4.7.0"} {
		for _, client := range []string{"203.0.113.1:1", "203.0.113.2:1"} {
			c := f.connect(inboundDoor)
			c.send(proxyHeader(t, 1, client))
			if got := c.reply(); !strings.HasPrefix(got, want) {
				t.Errorf("%s, connection %d: %q", client, i, got)
			}
		}
	}
}

// noops sends n commands at once, and reads their replies.
func noops(c *client, n int) {
	go func() { _, _ = io.WriteString(c.conn, strings.Repeat("NOOP\r\n", n)) }()
	for range n {
		c.want("250 2.0.0")
	}
}

// TestCommandRate: what comes faster is answered later, over all connections of
// an address, and not for others; in the middle of a message nobody waits.
func TestCommandRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := doorman(t, func(c *Config) {
			c.Listeners[0] = Listener{Mode: queue.Inbound}
			c.Limits = Limits{PerSecond: 100, Commands: 1 << 30}
		})
		begin := time.Now()
		within := func(what string, least, most time.Duration) {
			t.Helper()
			if d := time.Since(begin); d < least || d > most {
				t.Errorf("%s took %s, want %s to %s", what, d, least, most)
			}
			begin = time.Now()
		}
		one, two := b.come("203.0.113.1"), b.come("203.0.113.1")
		one.want("220 ")
		two.want("220 ")
		noops(one, 100)
		within("100 commands", 0, 0)
		noops(one, 1000)
		within("1000 more", 9*time.Second, 11*time.Second)
		var both sync.WaitGroup
		both.Go(func() { noops(one, 500) })
		both.Go(func() { noops(two, 500) })
		both.Wait()
		within("1000 more over two connections", 9*time.Second, 11*time.Second)
		for range 50 { // and one at a time
			one.do("NOOP", "250")
		}
		within("50 one by one", 400*time.Millisecond, time.Second)
		for _, addr := range []string{"203.0.113.2", "127.0.0.1"} {
			c := b.come(addr)
			c.want("220 ")
			if noops(c, 90); addr == "127.0.0.1" {
				noops(c, 5000)
			}
			within("commands from "+addr, 0, 0)
		}
		time.Sleep(time.Hour)
		one.do("EHLO x.example", "250-")
		one.do("MAIL FROM:<a@x.example>", "250")
		begin = time.Now()
		for i := range 95 {
			one.do(fmt.Sprintf("RCPT TO:<r%d@home.example>", i), "250")
		}
		one.do("DATA", "354")
		one.send(hello + strings.Repeat("a line of the text\r\n", 20_000) + ".\r\n")
		one.want("250 2.0.0")
		within("a message", 0, 0)
	})
}

// TestCommandRateIsBounded: nobody is kept waiting for more than a minute, nor when the
// relay stops; the table of clients does not grow without end.
func TestCommandRateIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := doorman(t, func(c *Config) { c.Limits = Limits{PerSecond: 2, Commands: 1 << 30} })
		fast := b.come("203.0.113.1")
		fast.want("220 ")
		go func() { _, _ = io.WriteString(fast.conn, strings.Repeat("NOOP\r\n", 2000)) }()
		if got := fast.gone(); !strings.HasSuffix(got, "421 4.7.0 too many commands in a short time, try again in a minute\r\n") {
			t.Errorf("%q", got)
		}
		slow := b.come("203.0.113.2")
		slow.want("220 ")
		go func() { _, _ = io.WriteString(slow.conn, strings.Repeat("NOOP\r\n", 100)) }()
		synctest.Wait() // it waits for 49 s
		begin := time.Now()
		var end string
		var read sync.WaitGroup
		read.Go(func() { end = slow.gone() })
		if err := b.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		read.Wait()
		if d := time.Since(begin); d > 0 || !strings.HasSuffix(end, "421 4.3.2 shutting down, try again later\r\n") {
			t.Errorf("it stopped after %s, and said %q", d, end)
		}
	})
	now := time.Now()
	p := pace{paid: map[string]time.Time{}}
	for i := range maxPaced + 100 {
		p.take(fmt.Sprint(i), 1000, 1, now)
	}
	if len(p.paid) > maxPaced {
		t.Errorf("%d clients", len(p.paid))
	}
}

// TestGreetDelay: a stranger who waits for the banner gets it after that time,
// and one who speaks before does not.
func TestGreetDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := doorman(t, func(c *Config) {
			c.Listeners[0] = Listener{Mode: queue.Inbound, GreetDelay: 5 * time.Second, ProxyFrom: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/32")}}
			c.BanRules.Exempt = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
		})
		begin := time.Now()
		after := func(who string, c *client, want string, wait time.Duration) {
			t.Helper()
			c.want(want)
			if d := time.Since(begin); d != wait {
				t.Errorf("%s: %q after %s, want %s", who, want, d, wait)
			}
			begin = time.Now()
		}
		const early = "554 5.5.1 you spoke before the banner, closing"
		stranger := b.come("203.0.113.1")
		after("a stranger", stranger, "220 ", 5*time.Second)
		time.Sleep(time.Minute) // the deadline of the wait is not that of commands
		stranger.do("EHLO x.example", "250-")

		begin = time.Now()
		hasty := b.come("203.0.113.2")
		time.Sleep(4 * time.Second)
		hasty.send("E")
		after("one who cannot wait", hasty, early, 4*time.Second)
		hasty.gone()
		exempt := b.come("198.51.100.1")
		go func() { _, _ = io.WriteString(exempt.conn, "EHLO x.example\r\n") }()
		after("an exempt one", exempt, "220 ", 0)
		after("this machine", b.come("127.0.0.1"), "220 ", 0)

		proxied := func(header string) *client {
			c := b.come("192.0.2.10")
			c.send(header)
			return c
		}
		after("a client of the proxy", proxied(proxyHeader(t, 2, "203.0.113.3:1")), "220 ", 5*time.Second)
		after("a hasty one", proxied(proxyHeader(t, 2, "203.0.113.3:1")+"EHLO x.example\r\n"), early, 0)
		after("the proxy itself", proxied(proxyHeader(t, 2, "")), "220 ", 0)

		left := b.come("203.0.113.4")
		synctest.Wait()
		left.conn.Close()
		synctest.Wait()
		begin = time.Now()
		waiting := b.come("203.0.113.5")
		synctest.Wait()
		go func() { _ = b.Shutdown(context.Background()) }()
		after("at the end", waiting, "421 4.3.2", 0)
		synctest.Wait()
		b.events.mu.Lock()
		defer b.events.mu.Unlock()
		var said []string
		for _, r := range b.events.refused {
			said = append(said, r.Command+" "+r.Enhanced)
		}
		if got := strings.Join(said, ", "); !strings.HasPrefix(got, "CONNECT 5.5.1, CONNECT 5.5.1, ") || strings.Count(got, "5.5.1") != 2 {
			t.Errorf("events: %s", got)
		}
	})
}

// TestGreetDelayUnderTLS: where TLS comes first, the wait is after it, and what
// is a part of the handshake is not taken for haste.
func TestGreetDelayUnderTLS(t *testing.T) {
	delayed := func(d time.Duration) *fixture {
		return start(t, func(c *Config) {
			behindProxy()(c)
			c.Listeners[implicitDoor].Mode = queue.Inbound
			c.Listeners[implicitDoor].GreetDelay = d
		})
	}
	f := delayed(20 * time.Millisecond)
	c := f.connect(implicitDoor)
	c.send(proxyHeader(t, 2, "203.0.113.1:1"))
	c.handshake()
	c.want("220 ")
	c.do("EHLO x.example", "250-")
	c.do("NOOP", "250")
	hasty := delayed(time.Hour).connect(implicitDoor)
	hasty.send(proxyHeader(t, 2, "203.0.113.1:1"))
	hasty.handshake()
	hasty.send("EHLO x.example\r\n")
	hasty.want("554 5.5.1")
}

// TestGreetDelayIsInbound: programs that log in do not wait.
func TestGreetDelayIsInbound(t *testing.T) {
	for _, l := range []Listener{{Mode: queue.Submission, GreetDelay: time.Second}, {Mode: queue.Inbound, GreetDelay: -1}} {
		if _, err := New(Config{Hostname: "a.example", Queue: &memQueue{}, Listeners: []Listener{l}}); err == nil || !strings.Contains(err.Error(), "greet delay") {
			t.Errorf("%+v: %v", l, err)
		}
	}
}
