package relay

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"srvrelay/queue"
)

func TestConnectionLimit(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.Connections = 2 })
	a, b := f.dial(trustedDoor), f.dial(inboundDoor)
	c := f.connect(trustedDoor)
	c.want("421 4.7.0")
	c.gone()
	a.do("QUIT", "221")
	a.gone()
	f.dial(trustedDoor).do("NOOP", "250") // there is room again: the place was given back before the close
	b.do("NOOP", "250")
	defer f.events.lock()()
	if len(f.events.refused) != 1 || f.events.refused[0].Command != "CONNECT" || f.events.refused[0].Code != 421 {
		t.Errorf("events %+v", f.events.refused)
	}
}

func TestAdmission(t *testing.T) {
	a := admission{perKey: map[string]int{}}
	l := Limits{Connections: 5, PerAddress: 2}
	one, two := addressKey(netip.MustParseAddr("2001:db8::1")), addressKey(netip.MustParseAddr("2001:db8:0:0:ffff::2"))
	if one != two {
		t.Errorf("one /64 has two keys: %s, %s", one, two)
	}
	if addressKey(netip.MustParseAddr("2001:db8:0:1::1")) == one || addressKey(netip.MustParseAddr("::ffff:192.0.2.1")) != "192.0.2.1" {
		t.Error("wrong keys")
	}
	got := []bool{a.enter(one, l), a.enter(two, l), a.enter(one, l), a.enter("", l), a.enter("", l), a.enter("", l), a.enter("192.0.2.1", l)}
	want := []bool{true, true, false, true, true, true, false}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("entry %d: %v, want %v", i, got[i], want[i])
		}
	}
	a.leave(one)
	if !a.enter("192.0.2.1", l) || a.enter(one, l) {
		t.Error("a place given back is not free, or one too many is")
	}
	for _, k := range []string{one, "", "", "", "192.0.2.1"} {
		a.leave(k)
	}
	if a.total != 0 || len(a.perKey) != 0 {
		t.Errorf("left over: %+v", a)
	}
}

func TestCommandLimit(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.Commands = 10 })
	c := f.ready(trustedDoor)
	for range 3 { // a message is progress
		for range 5 {
			c.do("NOOP", "250")
		}
		c.envelope("b@x.example")
		c.do("DATA", "354")
		c.do(".", "250")
	}
	for range 10 {
		c.do("NOOP", "250")
	}
	c.do("NOOP", "421 4.7.0")
	c.gone()
	c = f.ready(trustedDoor)
	c.envelope("b@x.example")
	for range 7 {
		c.do("BDAT 0", "250") // empty chunks are none
	}
	c.do("BDAT 0", "421 4.7.0")
	c.gone()
	f = start(t, func(c *Config) { c.Limits.Commands = 10 })
	c = f.ready(trustedDoor)
	c.envelope("b@x.example")
	chunk := "BDAT 2048\r\n" + strings.Repeat(strings.Repeat("x", 1022)+"\r\n", 2)
	for range 30 { // large chunks are no empty talk
		c.send(chunk)
		c.want("250 2.0.0 2048 octets")
	}
	c.do("BDAT 0 LAST", "250 2.0.0 queued")
}

func TestBadCommandLimit(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.BadCommands = 5 })
	c := f.ready(inboundDoor)
	c.do("MAIL FROM:<>", "250")
	for range 5 { // guessing recipients
		c.do("RCPT TO:<guess@evil.example>", "550 5.7.1")
	}
	c.want("421 4.7.0")
	c.gone()
	defer f.events.lock()()
	r := f.events.refused[0]
	if len(f.events.refused) != 6 || r.Command != "RCPT" || r.Recipient != "guess@evil.example" || r.Code != 550 ||
		r.Enhanced != "5.7.1" || r.Text != "relaying denied" || r.Mode != queue.Inbound || r.Client.Helo != "client.example" || r.ID == "" {
		t.Errorf("events %+v", f.events.refused)
	}
}

func TestIdleTimeout(t *testing.T) {
	f := start(t, func(c *Config) { c.Timeouts.Command = 50 * time.Millisecond })
	c := f.dial(trustedDoor)
	c.want("421 4.4.2")
	c.gone()
}

// pipeAddr gives a net.Pipe an address.
type pipeAddr struct{ net.Conn }

func (pipeAddr) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:1000"))
}

// inBubble runs a session over an in-memory pipe and virtual time.
func inBubble(t *testing.T, q *memQueue, run func(s *Server, conn net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		l := Listener{Mode: queue.Submission, TLS: TLSNone, Trusted: loopback}
		s, err := New(Config{Hostname: "relay.example.net", Queue: q, Listeners: []Listener{l}})
		if err != nil {
			t.Fatal(err)
		}
		server, peer := net.Pipe()
		s.take(newConn(s, s.current.Load(), nil, l, pipeAddr{server}))
		run(s, peer)
		peer.Close()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// virtual is a client whose waits cost nothing.
func virtual(t *testing.T, conn net.Conn) *client {
	c := newClient(t, conn)
	_ = conn.SetDeadline(time.Time{})
	c.want("220")
	c.do("EHLO x", "250")
	return c
}

// TestDribble: a client that sends an octet now and then is neither idle nor
// allowed to stay: a command line has 5 minutes, 64 KiB of a body have 3.
func TestDribble(t *testing.T) {
	for _, tc := range []struct {
		name  string
		begin []string
		limit time.Duration
	}{
		{"command line", nil, 5 * time.Minute},
		{"body", []string{"MAIL FROM:<a@b.example>", "RCPT TO:<b@x.example>", "DATA"}, 3 * time.Minute},
		{"chunk", []string{"MAIL FROM:<a@b.example>", "RCPT TO:<b@x.example>", "BDAT 6\r\nx: y", "BDAT 100000\r\n"}, 3 * time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := &memQueue{}
			inBubble(t, q, func(s *Server, conn net.Conn) {
				c := virtual(t, conn)
				for i, cmd := range tc.begin {
					c.send(cmd + "\r\n")
					if i < 3 {
						c.reply()
					}
				}
				begun := time.Now()
				var got string
				done := make(chan struct{})
				go func() {
					defer close(done)
					got, _ = c.br.ReadString('\n')
				}()
				for err := error(nil); err == nil; {
					time.Sleep(10 * time.Second) // virtual
					_, err = conn.Write([]byte("x"))
				}
				<-done
				if took := time.Since(begun); took < tc.limit-time.Minute || took > tc.limit+time.Minute {
					t.Errorf("ended after %s, want about %s", took, tc.limit)
				}
				if !strings.HasPrefix(got, "421 4.4.2") {
					t.Errorf("last words %q", got)
				}
			})
			q.none(t)
		})
	}
}

// TestSlowButSteady: a slow line that keeps the minimum rate may take hours.
func TestSlowButSteady(t *testing.T) {
	q := &memQueue{}
	inBubble(t, q, func(s *Server, conn net.Conn) {
		c := virtual(t, conn)
		c.envelope("b@x.example")
		c.do("DATA", "354")
		begun := time.Now()
		for range 60 {
			c.send(strings.Repeat(strings.Repeat("x", 1022)+"\r\n", 64))
			time.Sleep(2*time.Minute + 50*time.Second) // virtual
		}
		c.do(".", "250 2.0.0 queued")
		if time.Since(begun) < 2*time.Hour {
			t.Error("not slow")
		}
	})
	q.one(t)
}

// TestDribbleOfChunks: between chunks the time for 64 KiB goes on, whatever the
// client says there; one that keeps the rate may take as long as it likes.
func TestDribbleOfChunks(t *testing.T) {
	for what, each := range map[string]string{"commands": "NOOP\r\n", "small chunks": "BDAT 1024\r\n" + strings.Repeat("x", 1022) + "\r\n"} {
		t.Run(what, func(t *testing.T) {
			q := &memQueue{}
			inBubble(t, q, func(s *Server, conn net.Conn) {
				c := virtual(t, conn)
				c.envelope("b@x.example")
				c.do("BDAT 6\r\nx: y", "250")
				begun, last := time.Now(), make(chan string)
				go func() {
					said := ""
					for {
						l, err := c.br.ReadString('\n')
						if err != nil {
							last <- said
							return
						}
						said = l
					}
				}()
				for err := error(nil); err == nil && time.Since(begun) < time.Hour; {
					time.Sleep(10 * time.Second) // virtual
					_, err = conn.Write([]byte(each))
				}
				took := time.Since(begun)
				conn.Close()
				if said := <-last; took > 4*time.Minute || !strings.HasPrefix(said, "421 4.4.2") {
					t.Errorf("%q after %s", said, took)
				}
			})
			q.none(t)
		})
	}
	q := &memQueue{}
	inBubble(t, q, func(s *Server, conn net.Conn) {
		c := virtual(t, conn)
		c.envelope("b@x.example")
		for range 20 {
			c.do("BDAT 65536\r\n"+strings.Repeat(strings.Repeat("x", 1022)+"\r\n", 64)[:65534], "250")
			time.Sleep(2*time.Minute + 50*time.Second) // virtual
		}
		c.do("BDAT 2 LAST\r\n", "250 2.0.0 queued")
	})
	q.one(t)
}
