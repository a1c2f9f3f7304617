package smtpclient

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/pires/go-proxyproto"
)

func TestXClientCommand(t *testing.T) {
	all := []string{"NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT"}
	long := string(bytes.Repeat([]byte("x"), 256))
	for _, c := range []struct {
		o       Origin
		offered []string
		want    string
	}{
		{Origin{netip.MustParseAddrPort("203.0.113.7:4711"), "c.example", ""}, all, "XCLIENT NAME=[UNAVAILABLE] ADDR=203.0.113.7 PORT=4711 HELO=c.example LOGIN=[UNAVAILABLE]"},
		{Origin{netip.MustParseAddrPort("[2001:db8::7]:0"), "", "a b@x+y"}, all, "XCLIENT NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::7 PORT=[UNAVAILABLE] HELO=[UNAVAILABLE] LOGIN=a+20b@x+2By"},
		{Origin{netip.MustParseAddrPort("[::ffff:203.0.113.7]:1"), "a\r\nQUIT", "u"}, []string{"HELO", "ADDR"}, "XCLIENT ADDR=203.0.113.7 HELO=a+0D+0AQUIT"},
		{Origin{netip.MustParseAddrPort("203.0.113.7:1"), long, long}, []string{"ADDR", "HELO", "LOGIN"}, "XCLIENT ADDR=203.0.113.7 HELO=[UNAVAILABLE] LOGIN=[UNAVAILABLE]"},
	} {
		if got := string(appendXClient(nil, c.o, c.offered)); got != c.want {
			t.Errorf("%+v:\n%s, want\n%s", c.o, got, c.want)
		}
	}
}

// TestXClient: after the command the session is as new; what the server says
// to the command, and what it says to the client, are two things.
func TestXClient(t *testing.T) {
	const offer = greeting + "S: 250-mx.example\nS: 250-PIPELINING\nS: 250 XCLIENT ADDR HELO\n"
	const cmd = "C: XCLIENT ADDR=203.0.113.7 HELO=c.example\n"
	who := Origin{Addr: netip.MustParseAddrPort("203.0.113.7:4711"), Helo: "c.example"}
	for _, c := range []struct {
		name, dialogue string
		who            Origin
		refused        int
		reply          int // of the error
		err            error
		alive          bool
	}{
		{"taken", cmd + "S: 220 again\nC: EHLO c.example\nS: 250-x\nS: 250 DSN", who, 0, 0, nil, true},
		{"HELO", cmd + "S: 220 again\nC: EHLO c.example\nS: 502 no\nC: HELO c.example\nS: 250 x", who, 0, 0, nil, true},
		{"a name that is none", "C: XCLIENT ADDR=203.0.113.7 HELO=c!+3Dexample\nS: 220 again\nC: EHLO me.example\nS: 250 x", Origin{who.Addr, "c!=example", ""}, 0, 0, nil, true},
		{"not from us", cmd + "S: 550 5.7.0 insufficient authorization", who, 550, 0, nil, true},
		{"bad syntax", cmd + "S: 501 5.5.4 bad", who, 501, 0, nil, true},
		{"the client is refused", cmd + "S: 554 5.7.1 you are listed\nC: EOF", who, 0, 554, nil, false},
		{"the client is refused at EHLO", cmd + "S: 220 again\nC: EHLO c.example\nS: 550 5.7.1 not you\nC: EOF", who, 0, 550, nil, false},
		{"later", cmd + "S: 450 4.7.1 slow down\nC: EOF", who, 0, 450, nil, false},
		{"421", cmd + "S: 421 4.7.0 too many\nC: EOF", who, 0, 421, nil, false},
		{"250 is no banner", cmd + "S: 250 ok\nC: EOF", who, 0, 0, ErrProtocol, false},
		{"closed", cmd + "S: EOF", who, 0, 0, ErrClosed, false},
		{"closed after it", cmd + "S: 220 again\nS: EOF", who, 0, 0, ErrClosed, false},
		{"two banners", cmd + "S- 220 a\\r\\n220 b\\r\\n\nC: EOF", who, 0, 0, ErrProtocol, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			nc, finish := serve(t, offer+c.dialogue)
			s := greeted(t, nc)
			if !s.Ext().OffersXClient() {
				t.Error("the offer is not seen")
			}
			refused, err := s.XClient(context.Background(), c.who)
			if (refused == nil) != (c.refused == 0) || refused != nil && refused.Code != c.refused {
				t.Errorf("refused: %v", refused)
			}
			switch {
			case c.reply != 0:
				if err == nil || err.Reply == nil || err.Reply.Code != c.reply || err.Stage != StageMail {
					t.Errorf("error: %v", err)
				}
			case c.err != nil:
				if err == nil || !errors.Is(err, c.err) || err.Stage != StageMail {
					t.Errorf("error: %v", err)
				}
			case err != nil:
				t.Errorf("error: %v", err)
			}
			if c.name == "taken" && (!s.Ext().DSN || s.Ext().Pipelining || s.Ext().OffersXClient()) {
				t.Errorf("what was offered before counts: %+v", s.Ext())
			}
			if s.dead == c.alive {
				t.Errorf("usable: %v", !s.dead)
			}
			nc.Close()
			finish()
		})
	}
}

// TestXClientAfterGivingUp: a transaction that was given up is ended first.
func TestXClientAfterGivingUp(t *testing.T) {
	nc, finish := serve(t, greeting+"S: 250-mx.example\nS: 250 XCLIENT ADDR\n"+mailCmd+"S: 250\n"+rcptA+"S: 550 no\n"+
		"C: RSET\nS: 250\nC: XCLIENT ADDR=203.0.113.7\nS: 220\nC: EHLO me.example\nS: 250 x\n"+mailCmd+"S: 250\n"+rcptA+"S: 250\nC: DATA\nS: 354\n"+bodyDot+"S: 250 ok")
	s := greeted(t, nc)
	s.Send(context.Background(), mail(1))
	if refused, err := s.XClient(context.Background(), Origin{Addr: netip.MustParseAddrPort("203.0.113.7:0")}); refused != nil || err != nil {
		t.Fatal(refused, err)
	}
	if r := s.Send(context.Background(), mail(1)); r.Final == nil || r.Final.Code != 250 || r.Stage != StageDot {
		t.Errorf("%s", describe(r))
	}
	finish()
}

// TestProxyHeader: what others read from the header.
func TestProxyHeader(t *testing.T) {
	for _, c := range []struct{ client, server, from, to string }{
		{"203.0.113.7:4711", "192.0.2.1:25", "203.0.113.7:4711", "192.0.2.1:25"},
		{"[2001:db8::7]:4711", "[2001:db8::1]:2525", "[2001:db8::7]:4711", "[2001:db8::1]:2525"},
		{"203.0.113.7:4711", "[2001:db8::1]:25", "203.0.113.7:4711", "0.0.0.0:25"},
		{"[2001:db8::7]:4711", "192.0.2.1:25", "[2001:db8::7]:4711", "[::]:25"},
		{"[::ffff:203.0.113.7]:1", "[::ffff:192.0.2.1]:25", "203.0.113.7:1", "192.0.2.1:25"},
		{"203.0.113.7:4711", "", "203.0.113.7:4711", "0.0.0.0:0"}, // a Unix socket
		{"", "192.0.2.1:25", "", ""},
	} {
		var client, server netip.AddrPort
		if c.client != "" {
			client = netip.MustParseAddrPort(c.client)
		}
		if c.server != "" {
			server = netip.MustParseAddrPort(c.server)
		}
		br := bufio.NewReader(bytes.NewReader(append(AppendProxyHeader(nil, client, server), "next"...)))
		h, err := proxyproto.Read(br)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if rest, _ := br.Peek(5); string(rest) != "next" {
			t.Errorf("%+v: behind the header is %q", c, rest)
		}
		if c.client == "" {
			if !h.Command.IsLocal() {
				t.Errorf("%+v: %+v", c, h)
			}
			continue
		}
		if h.SourceAddr.String() != c.from || h.DestinationAddr.String() != c.to || h.Version != 2 || !h.Command.IsProxy() {
			t.Errorf("%+v: %+v", c, h)
		}
	}
}
