package delivery

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pires/go-proxyproto"

	"srvrelay/delivery/plan"
	"srvrelay/delivery/smtpclient"
	"srvrelay/queue"
)

// TestOriginOf: whom a server is told of.
func TestOriginOf(t *testing.T) {
	for addr, want := range map[string]string{
		"203.0.113.7:4711": "203.0.113.7:4711", "[2001:db8::7]:1": "[2001:db8::7]:1", "192.168.7.9:1": "192.168.7.9:1",
		"[::ffff:203.0.113.7]:1": "203.0.113.7:1",
		"127.0.0.1:1":            "", "[::1]:1": "", "0.0.0.0:1": "", "169.254.1.1:1": "", "[fe80::1]:1": "", "[::ffff:127.0.0.1]:1": "", "": "",
	} {
		var c queue.Client
		if addr != "" {
			c = queue.Client{Addr: netip.MustParseAddrPort(addr), Helo: "c.example", User: "u"}
		}
		got := originOf(&queue.Envelope{Client: c})
		switch {
		case want == "" && got != (smtpclient.Origin{}):
			t.Errorf("%s: %+v is told", addr, got)
		case want != "" && got != (smtpclient.Origin{Addr: netip.MustParseAddrPort(want), Helo: "c.example", Login: "u"}):
			t.Errorf("%s: %+v", addr, got)
		}
	}
}

// from is a message of a client; "" is one of our own.
func from(client string) *queue.Lease {
	l := leaseFor("x.test", "a")
	if client != "" {
		l.Envelope.Client = queue.Client{Addr: netip.MustParseAddrPort(client + ":4711"), Helo: "c.example"}
	}
	return l
}

// told is a planner with one target that is told of clients.
func told(o plan.Origin) *routed {
	p := &routed{plan: plan.Plan{Source: queue.ReasonRoute, Verdict: queue.Sent}}
	p.plan.Targets = []plan.Target{targetAt(liveAddr, func(t *plan.Target) { named(t); t.Origin = o })}
	return p
}

// trusting is a host that takes XCLIENT, but where refuse says otherwise.
func trusting(refuse func(line string) string) (*host, func() []string) {
	h, lines := recorded(func(line string) string {
		switch r := refuse(line); {
		case r != "":
			return r
		case strings.HasPrefix(line, "XCLIENT"):
			return "220 again"
		}
		return ""
	})
	h.ext = "XCLIENT NAME ADDR PORT HELO LOGIN"
	return h, lines
}

func nothing(string) string { return "" }

// spoken leaves of a dialogue who greets and who is told of.
func spoken(lines []string) (out []string) {
	for _, l := range lines {
		switch {
		case l == "banner" || strings.HasPrefix(l, "EHLO") || l == "DATA":
			out = append(out, l)
		case strings.HasPrefix(l, "XCLIENT"):
			out = append(out, strings.Fields(l)[2])
		}
	}
	return out
}

// TestXClientReuse: a connection goes on from one client to the next by another
// XCLIENT, never to a message of nobody's, and says it once for one client.
func TestXClientReuse(t *testing.T) {
	n := newNetwork()
	h, lines := trusting(nothing)
	n.hosts[liveAddr] = h
	alone(t, told(plan.OriginXClient), n, nil, func(d *Deliverer) {
		for _, client := range []string{"", "203.0.113.7", "203.0.113.7", "203.0.113.8", "", "203.0.113.9", "127.0.0.1"} {
			if out, _ := walkOnce(context.Background(), d, from(client)); out["a"].Result != queue.Sent {
				t.Errorf("%q: %+v", client, out["a"])
			}
		}
		want := []string{
			"banner", "EHLO relay.test", "DATA",
			"ADDR=203.0.113.7", "EHLO c.example", "DATA", "DATA", "ADDR=203.0.113.8", "EHLO c.example", "DATA",
			"banner", "EHLO relay.test", "DATA", "ADDR=203.0.113.9", "EHLO c.example", "DATA",
			"banner", "EHLO relay.test", "DATA",
		}
		if got := spoken(lines()); !slices.Equal(got, want) {
			t.Errorf("said %q\nwant %q", got, want)
		}
		if open := n.now(liveAddr); open != 1 {
			t.Errorf("%d connections are open: one that is of no use keeps its slot", open)
		}
	})
}

// TestXClientPieces: in the transactions of one message a client is told once.
func TestXClientPieces(t *testing.T) {
	n := newNetwork()
	h, lines := trusting(nothing)
	h.ext += "\r\n250-LIMITS RCPTMAX=1"
	n.hosts[liveAddr] = h
	alone(t, told(plan.OriginXClient), n, nil, func(d *Deliverer) {
		l := leaseFor("x.test", "a", "b", "c")
		l.Envelope.Client = from("203.0.113.7").Envelope.Client
		out, _ := walkOnce(context.Background(), d, l)
		if len(out) != 3 || out["c"].Result != queue.Sent {
			t.Errorf("%+v", out)
		}
		if got := strings.Join(spoken(lines()), " "); strings.Count(got, "ADDR=") != 1 || strings.Count(got, "DATA") != 3 {
			t.Errorf("said %q", got)
		}
	})
}

// TestXClientAnswers: a server that does not take the word of this relay gets
// the mail all the same; what it has against the client is about his mail, and
// neither makes it down nor calls for the operator.
func TestXClientAnswers(t *testing.T) {
	for _, c := range []struct {
		at, reply string
		want      queue.Result
		code      string
		trouble   int
	}{
		{"XCLIENT", "550 5.7.0 not from you", queue.Sent, "2.0.0", 1},
		{"XCLIENT", "501 5.5.4 what?", queue.Sent, "2.0.0", 1},
		{"XCLIENT", "554 5.7.1 your client is listed", queue.Fail, "5.7.1", 0},
		{"XCLIENT", "450 4.7.1 your client comes too often", queue.Defer, "4.7.1", 0},
		{"XCLIENT", "421 4.7.0 your client comes too often", queue.Defer, "4.7.0", 0},
		{"XCLIENT", "drop", queue.Defer, "4.4.2", 0},
		{"EHLO c.example", "550 5.7.1 no such client", queue.Fail, "5.7.1", 0},
		{"MAIL", "451 4.7.1 greylisted", queue.Defer, "4.7.1", 0},
	} {
		n := newNetwork()
		active := true
		h, _ := trusting(func(line string) string {
			if active && strings.HasPrefix(line, c.at) {
				return c.reply
			}
			return ""
		})
		n.hosts[liveAddr] = h
		log := &counting{quiet: quiet{t: t}}
		alone(t, told(plan.OriginXClient), n, log, func(d *Deliverer) {
			out, o := walkOnce(context.Background(), d, from("203.0.113.7"))
			if got := out["a"]; got.Result != c.want || got.Status.Code != c.code || !o.Greeted || o.Alarm {
				t.Errorf("%s %s: %+v, %+v", c.at, c.reply, got, o)
			}
			if _, trouble := log.counts(); trouble != c.trouble {
				t.Errorf("%s %s: %d times in the log, want %d", c.at, c.reply, trouble, c.trouble)
			}
			if limit := d.Target(told(plan.OriginXClient).plan.Targets[0].Endpoints()[0]).Limit; limit != d.health.limit {
				t.Errorf("%s %s: the server gets %d connections for it", c.at, c.reply, limit)
			}
			active = false
			if out, _ := walkOnce(context.Background(), d, from("203.0.113.8")); out["a"].Result != queue.Sent {
				t.Errorf("%s %s: the next client: %+v", c.at, c.reply, out["a"])
			}
		})
	}
}

// TestXClientNotOffered: mail goes without, and the log says so once a connection.
func TestXClientNotOffered(t *testing.T) {
	for _, ext := range []string{"", "XCLIENT", "XCLIENT NAME LOGIN"} {
		n := newNetwork()
		h, lines := recorded(nil)
		h.ext = ext
		n.hosts[liveAddr] = h
		log := &counting{quiet: quiet{t: t}}
		alone(t, told(plan.OriginXClient), n, log, func(d *Deliverer) {
			for _, client := range []string{"203.0.113.7", "203.0.113.8"} {
				if out, _ := walkOnce(context.Background(), d, from(client)); out["a"].Result != queue.Sent {
					t.Errorf("%q: %+v", ext, out["a"])
				}
			}
			if _, trouble := log.counts(); trouble != 1 || len(n.dialled(liveAddr)) != 1 || slices.ContainsFunc(lines(), func(l string) bool { return strings.HasPrefix(l, "XCLIENT") }) {
				t.Errorf("%q: %d times in the log, %q", ext, trouble, lines())
			}
		})
	}
}

// TestXClientIsNotForgotten: a server that takes XCLIENT once and then not
// again is never given a message in the name of the client before.
func TestXClientIsNotForgotten(t *testing.T) {
	n := newNetwork()
	took := 0
	h, lines := trusting(func(line string) string {
		if strings.HasPrefix(line, "XCLIENT") {
			if took++; took > 1 {
				return "550 5.7.0 not again"
			}
		}
		return ""
	})
	n.hosts[liveAddr] = h
	alone(t, told(plan.OriginXClient), n, &counting{quiet: quiet{t: t}}, func(d *Deliverer) {
		for _, client := range []string{"203.0.113.7", "203.0.113.8"} {
			if out, _ := walkOnce(context.Background(), d, from(client)); out["a"].Result != queue.Sent {
				t.Errorf("%s: %+v", client, out["a"])
			}
		}
		want := []string{"banner", "EHLO relay.test", "ADDR=203.0.113.7", "EHLO c.example", "DATA", "ADDR=203.0.113.8", "banner", "EHLO relay.test", "ADDR=203.0.113.8", "DATA"}
		if got := spoken(lines()); !slices.Equal(got, want) {
			t.Errorf("said %q\nwant %q", got, want)
		}
	})
}

// proxiedNet is a network whose servers read a PROXY protocol header first.
type proxiedNet struct {
	*network
	mu    sync.Mutex
	heard []string // the client of each connection, "" = LOCAL
}

func (n *proxiedNet) dial(ctx context.Context, ep plan.Endpoint) (net.Conn, error) {
	c, err := n.network.dial(ctx, ep)
	if err != nil {
		return nil, err
	}
	return &headed{Conn: c, net: n}, nil
}

// headed takes the header off.
type headed struct {
	net.Conn
	net *proxiedNet
	got bool
}

func (h *headed) Write(p []byte) (int, error) {
	if h.got {
		return h.Conn.Write(p)
	}
	h.got = true
	header, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(p)))
	if err != nil {
		return 0, err
	}
	client := ""
	if header.Command.IsProxy() {
		client = header.SourceAddr.String()
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.net.heard = append(h.net.heard, client)
	return len(p), nil
}

// TestProxyOrigin: each message has a connection of its own, in the name of its
// client or in ours, and no other message gets it.
func TestProxyOrigin(t *testing.T) {
	n := &proxiedNet{network: newNetwork()}
	h, lines := recorded(nil)
	n.hosts[liveAddr] = h
	alone(t, told(plan.OriginProxy), n.network, nil, func(d *Deliverer) {
		d.cfg.Dial = n.dial
		for _, client := range []string{"203.0.113.7", "203.0.113.7", "", "203.0.113.8", "127.0.0.1"} {
			if out, _ := walkOnce(context.Background(), d, from(client)); out["a"].Result != queue.Sent {
				t.Errorf("%q: %+v", client, out["a"])
			}
		}
		if want := []string{"203.0.113.7:4711", "203.0.113.7:4711", "", "203.0.113.8:4711", ""}; !slices.Equal(n.heard, want) {
			t.Errorf("clients %q, want %q", n.heard, want)
		}
		if got := strings.Join(spoken(lines()), " "); !strings.HasPrefix(got, "banner EHLO c.example DATA banner EHLO c.example DATA banner EHLO relay.test DATA banner EHLO c.example DATA") {
			t.Errorf("said %q", got)
		}
		if open := n.now(liveAddr); open != 0 {
			t.Errorf("%d connections are kept", open)
		}
	})
}

// TestProxyRefusals: what the server says to a client before MAIL is about his
// mail; to us, it is as ever.
func TestProxyRefusals(t *testing.T) {
	for _, c := range []struct {
		client, at, reply string
		want              queue.Result
		down, alarm       bool
	}{
		{"203.0.113.7", "banner", "554 5.7.1 you are listed", queue.Fail, false, false},
		{"203.0.113.7", "banner", "421 4.7.0 too many from you", queue.Defer, false, false},
		{"203.0.113.7", "EHLO", "550 5.7.1 no such name", queue.Fail, false, false},
		{"203.0.113.7", "banner", "drop", queue.Defer, true, false},
		// Servers that do not expect the header.
		{"203.0.113.7", "banner", "554 SMTP synchronization error", queue.Defer, true, true},
		{"203.0.113.7", "banner", "554 5.5.0 synchronization", queue.Defer, true, true},
		{"203.0.113.7", "EHLO", "554 5.5.1 out of turn", queue.Defer, true, true},
		{"", "banner", "554 5.7.1 you are listed", queue.Defer, true, true},
		{"", "banner", "421 4.7.0 too many from you", queue.Defer, true, false},
	} {
		n := &proxiedNet{network: newNetwork()}
		h, _ := recorded(func(line string) string {
			if strings.HasPrefix(line, c.at) {
				return c.reply
			}
			return ""
		})
		n.hosts[liveAddr] = h
		log := &alarms{quiet: quiet{t: t}}
		alone(t, told(plan.OriginProxy), n.network, log, func(d *Deliverer) {
			d.cfg.Dial = n.dial
			out, o := walkOnce(context.Background(), d, from(c.client))
			info := d.Target(told(plan.OriginProxy).plan.Targets[0].Endpoints()[0])
			if out["a"].Result != c.want || info.Down != c.down || o.Greeted == c.down || log.n > 0 != c.alarm || !c.down && info.Limit != d.health.limit {
				t.Errorf("%+v: %+v, %+v, %+v, %d alarms", c, out["a"], o, info, log.n)
			}
		})
	}
}
