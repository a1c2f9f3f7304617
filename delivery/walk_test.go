package delivery

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/queue"
)

// leaseFor is a message to some recipients of a hop.
func leaseFor(hop string, rcpts ...string) *queue.Lease {
	l := &queue.Lease{
		Hop: hop, Envelope: &queue.Envelope{ID: queue.NewID(time.Now()), Sender: "a@b.test", Received: time.Now(), Size: 5},
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("a: b\r\n\r\nc\r\n")), nil },
	}
	for _, r := range rcpts {
		l.Rcpts = append(l.Rcpts, queue.Recipient{Address: r + "@" + hop, Domain: hop, State: queue.Queued, Next: time.Now()})
	}
	return l
}

// walkOnce makes one attempt and gives its outcomes by recipient's local part.
func walkOnce(ctx context.Context, d *Deliverer, l *queue.Lease) (map[string]queue.Outcome, hopOutcome) {
	w := d.newWalk(l, false)
	out, h := w.attempt(ctx)
	byName := map[string]queue.Outcome{}
	for _, o := range out {
		name, _, _ := strings.Cut(l.Rcpts[o.Rcpt].Address, "@")
		byName[name] = o
	}
	return byName, h
}

// alone runs do in virtual time with a deliverer that nobody else uses, and
// checks that all slots come back.
func alone(t *testing.T, p Planner, n *network, events Events, do func(d *Deliverer)) {
	synctest.Test(t, func(t *testing.T) {
		if events == nil {
			events = quiet{t: t}
		}
		d := New(Config{Settings: Settings{Hostname: "relay.test"}, Queue: newMemQueue(queue.DefaultRetry), Planner: p, Events: events, Dial: n.dial}, NewMemory(noFacts{}))
		do(d)
		d.closeAll(d.pool.expired(time.Now().Add(time.Hour)))
		for ap, st := range d.health.targets {
			if st.conns != 0 {
				t.Errorf("%s: %d slots were not given back", ap, st.conns)
			}
		}
	})
}

// TestRestIsNotBlamed: a server that takes two recipients a transaction refuses
// one of them and hangs up. Those whom it was not asked about must not inherit
// the refusal.
func TestRestIsNotBlamed(t *testing.T) {
	for name, last := range map[string]string{"dropped at DATA": "DATA", "dropped at the dot": "."} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork()
			n.hosts[deadAddr] = &host{ext: "LIMITS RCPTMAX=2", say: func(line string) string {
				switch {
				case strings.HasPrefix(line, "RCPT TO:<b@"):
					return "550 5.1.1 nobody"
				case line == last:
					return "drop"
				}
				return ""
			}}
			n.hosts[liveAddr] = &host{}
			alone(t, plans{"x.test": {deadAddr, liveAddr}}, n, nil, func(d *Deliverer) {
				out, _ := walkOnce(context.Background(), d, leaseFor("x.test", "a", "b", "c", "d"))
				if out["b"].Result != queue.Fail {
					t.Errorf("b: %+v, want failed", out["b"])
				}
				for _, r := range []string{"c", "d"} {
					if out[r].Result != queue.Sent {
						t.Errorf("%s: %+v, want sent by the other target", r, out[r])
					}
				}
			})
		})
	}
}

// TestRestIsNotTakenForSent: told to stop right after the first transaction of
// two, the relay must not take the recipients of the second for delivered.
func TestRestIsNotTakenForSent(t *testing.T) {
	n := newNetwork()
	alone(t, plans{"x.test": {liveAddr}}, n, nil, func(d *Deliverer) {
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		n.hosts[liveAddr] = &host{ext: "LIMITS RCPTMAX=1", say: func(line string) string {
			if line == "." {
				stop()
				return "250 2.0.0 ok"
			}
			return ""
		}}
		out, _ := walkOnce(ctx, d, leaseFor("x.test", "a", "b"))
		if o, said := out["b"]; said && o.Result == queue.Sent {
			t.Errorf("b: %+v, but it was never sent", o)
		}
	})
}

// TestOneReplyHalvesOnce: the wish for fewer connections counts once, however
// many recipients it concerns; and one good transaction is one.
func TestOneReplyHalvesOnce(t *testing.T) {
	n := newNetwork()
	n.hosts[liveAddr] = &host{say: func(line string) string {
		if strings.HasPrefix(line, "MAIL") {
			return "451 4.7.1 slower"
		}
		return ""
	}}
	alone(t, plans{"x.test": {liveAddr}}, n, nil, func(d *Deliverer) {
		l := leaseFor("x.test", "a", "b", "c", "d", "e", "f")
		walkOnce(context.Background(), d, l)
		if got := d.Target(plan.Endpoint{AddrPort: netip.MustParseAddrPort(liveAddr)}).Limit; got != 5 {
			t.Errorf("limit %d after one 4.7.1, want 5", got)
		}
		n.set(liveAddr, func(h *host) { h.say = nil })
		walkOnce(context.Background(), d, l)
		if got := d.Target(plan.Endpoint{AddrPort: netip.MustParseAddrPort(liveAddr)}).Limit; got != 5 {
			t.Errorf("limit %d after one good transaction of six recipients, want 5", got)
		}
	})
}

// TestConnectionLimitIsNotDown: a server that greets two connections and turns
// the third away with 421 wants fewer of them; it is not down.
func TestConnectionLimitIsNotDown(t *testing.T) {
	n := newNetwork()
	n.hosts[liveAddr] = &host{work: time.Second}
	n.hosts[liveAddr].say = func(line string) string {
		if line == "banner" && n.now(liveAddr) > 2 {
			return "421 4.7.0 too many connections from you"
		}
		return ""
	}
	play(t, plans{"x.test": {liveAddr}}, n, func(q *memQueue, d *Deliverer) {
		q.put("x.test", 100)
		time.Sleep(90 * time.Second)
		if got := q.delivered("x.test"); got < 90 {
			t.Errorf("%d of 100 delivered in 90 s over two connections, a second each", got)
		}
	})
}

// TestPanicGivesSlotBack: a message that trips over a bug of ours must not eat
// up the connections of its target.
func TestPanicGivesSlotBack(t *testing.T) {
	n := newNetwork()
	n.hosts[liveAddr] = &host{}
	alone(t, plans{"x.test": {liveAddr}}, n, troubled{}, func(d *Deliverer) {
		l := leaseFor("x.test", "a")
		l.Rcpts[0].SameFirst = liveAddr
		l.Open = func() (io.ReadCloser, error) { panic("a bug") }
		out, _ := walkOnce(context.Background(), d, l)
		if o := out["a"]; o.Result != queue.Defer || o.SameFirst != liveAddr {
			t.Errorf("%+v, want deferred, and the same target first still", o)
		}
		d.cfg.Dial = func(context.Context, plan.Endpoint) (net.Conn, error) { panic("another") }
		walkOnce(context.Background(), d, l)
	})
}

// troubled is nobody who listens, and expects trouble.
type troubled struct{ quiet }

func (troubled) Trouble(Trouble) {}

// TestStaleSessionIsNoGreeting: a kept session that is gone says nothing about
// the server; when the fresh connection is refused, the hop is parked at once.
func TestStaleSessionIsNoGreeting(t *testing.T) {
	n := newNetwork()
	n.hosts[liveAddr] = &host{}
	alone(t, plans{"x.test": {liveAddr}}, n, nil, func(d *Deliverer) {
		walkOnce(context.Background(), d, leaseFor("x.test", "a"))
		n.set(liveAddr, func(h *host) {
			h.down = true
			h.say = func(string) string { return "drop" }
		})
		out, h := walkOnce(context.Background(), d, leaseFor("x.test", "b"))
		if h.Greeted || h.Wait.IsZero() || !out["b"].HopWaits {
			t.Errorf("hop %+v, recipient %+v; want the hop to wait", h, out["b"])
		}
	})
}

// TestLostRepliesAreKeptApart: recipients whose last reply was lost at
// different servers must not be offered to each other's server first.
func TestLostRepliesAreKeptApart(t *testing.T) {
	n := newNetwork()
	n.hosts[deadAddr], n.hosts[liveAddr] = &host{}, &host{}
	alone(t, plans{"x.test": {deadAddr, liveAddr}}, n, nil, func(d *Deliverer) {
		l := leaseFor("x.test", "a", "b", "c")
		l.Rcpts[0].SameFirst, l.Rcpts[1].SameFirst = liveAddr, deadAddr
		out, _ := walkOnce(context.Background(), d, l)
		if out["a"].Status.Target != liveAddr {
			t.Errorf("a went to %s", out["a"].Status.Target)
		}
		if _, tried := out["b"]; tried {
			t.Errorf("b was tried beside a: %+v", out["b"])
		}
	})
}

// TestSameFirstOutlivesADNSFailure: an attempt that had no plan has not tried
// the target that may have the message.
func TestSameFirstOutlivesADNSFailure(t *testing.T) {
	alone(t, plans{}, newNetwork(), nil, func(d *Deliverer) {
		l := leaseFor("x.test", "a")
		l.Rcpts[0].SameFirst = liveAddr
		if out, _ := walkOnce(context.Background(), d, l); out["a"].SameFirst != liveAddr {
			t.Errorf("%+v: the target that may have the message is forgotten", out["a"])
		}
	})
}

// TestTransferTimeIsNotConnectTime: the bound on connecting and greeting does
// not count the time that a server took over a transaction.
func TestTransferTimeIsNotConnectTime(t *testing.T) {
	n := newNetwork()
	n.hosts[deadAddr] = &host{say: func(line string) string {
		if line == "." {
			time.Sleep(6 * time.Minute)
			return "451 4.3.0 no"
		}
		return ""
	}}
	n.hosts[liveAddr] = &host{}
	alone(t, plans{"x.test": {deadAddr, liveAddr}}, n, nil, func(d *Deliverer) {
		if out, _ := walkOnce(context.Background(), d, leaseFor("x.test", "a")); out["a"].Result != queue.Sent {
			t.Errorf("%+v, want sent by the second target", out["a"])
		}
	})
}

// TestUntriedComesFirst: at most ten connects an attempt; what was left out
// comes first the next time.
func TestUntriedComesFirst(t *testing.T) {
	n := newNetwork()
	var targets []string
	for i := range 15 {
		a := fmt.Sprintf("192.0.2.%d:2525", i+1)
		targets = append(targets, a)
		n.hosts[a] = &host{down: i < 14}
	}
	alone(t, plans{"x.test": targets}, n, nil, func(d *Deliverer) {
		l := leaseFor("x.test", "a")
		out, _ := walkOnce(context.Background(), d, l)
		if out["a"].Result != queue.Defer || out["a"].SameFirst != targets[10] {
			t.Fatalf("%+v, want deferred with %s first", out["a"], targets[10])
		}
		l.Rcpts[0].SameFirst = out["a"].SameFirst
		if out, _ = walkOnce(context.Background(), d, l); out["a"].Status.Target != targets[14] {
			t.Errorf("%+v, want sent by %s", out["a"], targets[14])
		}
	})
}

// guarded is a planner whose guard changes its mind between plan and dial.
type guarded struct{ plans }

func (guarded) Refused(string, netip.AddrPort) string { return queue.ReasonEgressOwn }

// TestRefusalAtDialTimeDefers: the plan thought otherwise a moment ago. What a
// refusal comes to, and for relay domains it is no failure, is the next plan's
// to say.
func TestRefusalAtDialTimeDefers(t *testing.T) {
	n := newNetwork()
	n.hosts[liveAddr] = &host{}
	alone(t, guarded{plans{"x.test": {liveAddr}}}, n, nil, func(d *Deliverer) {
		out, _ := walkOnce(context.Background(), d, leaseFor("x.test", "a"))
		if out["a"].Result != queue.Defer || out["a"].Status.Code != "4.7.1" {
			t.Errorf("%+v, want deferred", out["a"])
		}
		if len(n.dialled(liveAddr)) != 0 {
			t.Error("dialled")
		}
	})
}

// TestSilentSessionIsNotTriedAgain: only a kept session that turns out closed
// earns a fresh one; a server that keeps silent at MAIL has had its time.
func TestSilentSessionIsNotTriedAgain(t *testing.T) {
	n := newNetwork()
	n.hosts[deadAddr], n.hosts[liveAddr] = &host{}, &host{}
	alone(t, plans{"x.test": {deadAddr, liveAddr}}, n, nil, func(d *Deliverer) {
		walkOnce(context.Background(), d, leaseFor("x.test", "a"))
		n.set(deadAddr, func(h *host) {
			h.say = func(string) string { time.Sleep(time.Hour); return "drop" }
		})
		out, _ := walkOnce(context.Background(), d, leaseFor("x.test", "b"))
		if out["b"].Status.Target != liveAddr || len(n.dialled(deadAddr)) != 1 {
			t.Errorf("%+v after %d connects to the silent server, want sent by the other after one", out["b"], len(n.dialled(deadAddr)))
		}
		time.Sleep(time.Hour)
	})
}

// TestStopInTheMiddle: told to stop, a message whose last dot has left is
// stored as unknown; one in the middle goes back as it was.
func TestStopInTheMiddle(t *testing.T) {
	for _, at := range []string{"DATA", "."} {
		n := newNetwork()
		alone(t, plans{"x.test": {liveAddr}}, n, nil, func(d *Deliverer) {
			ctx, stop := context.WithCancel(context.Background())
			n.hosts[liveAddr] = &host{say: func(line string) string {
				if line == at {
					stop()
					time.Sleep(time.Second)
					return "drop"
				}
				return ""
			}}
			out, h := walkOnce(ctx, d, leaseFor("x.test", "a"))
			o, stored := out["a"]
			if unknown := o.SameFirst == liveAddr && o.Status.Reason == queue.ReasonReplyLost; stored != (at == ".") || unknown != stored {
				t.Errorf("stopped at %q: %+v", at, out)
			}
			if !h.Wait.IsZero() || d.Target(plan.Endpoint{AddrPort: netip.MustParseAddrPort(liveAddr)}).Down {
				t.Errorf("stopped at %q: the server counts as down", at)
			}
			time.Sleep(time.Second)
		})
	}
}

// TestMissingExtensionRulesOutOneTarget: a server without SMTPUTF8 is passed
// over; without any other the message fails for good, in our own words.
func TestMissingExtensionRulesOutOneTarget(t *testing.T) {
	n := newNetwork()
	n.hosts[deadAddr], n.hosts[liveAddr] = &host{}, &host{ext: "SMTPUTF8"}
	p := plans{"x.test": {deadAddr, liveAddr}, "y.test": {deadAddr}}
	alone(t, p, n, nil, func(d *Deliverer) {
		for hop, want := range map[string]queue.Result{"x.test": queue.Sent, "y.test": queue.Fail} {
			l := leaseFor(hop, "a")
			l.Envelope.UTF8 = true
			out, _ := walkOnce(context.Background(), d, l)
			if o := out["a"]; o.Result != want || (want == queue.Fail && (o.Status.Code != "5.6.7" || o.Status.Reply != "")) {
				t.Errorf("%s: %+v, want %s", hop, o, want)
			}
		}
	})
}

// TestUnreadableMessageKeepsItsFirstTarget: a body that cannot be read was sent
// to nobody, so the target that may have the message still comes first.
func TestUnreadableMessageKeepsItsFirstTarget(t *testing.T) {
	n := newNetwork()
	n.hosts[liveAddr] = &host{}
	alone(t, plans{"x.test": {liveAddr}}, n, troubled{}, func(d *Deliverer) {
		l := leaseFor("x.test", "a")
		l.Rcpts[0].SameFirst = liveAddr
		l.Open = func() (io.ReadCloser, error) { return nil, io.ErrUnexpectedEOF }
		out, _ := walkOnce(context.Background(), d, l)
		if o := out["a"]; o.Result != queue.Defer || o.SameFirst != liveAddr {
			t.Errorf("%+v, want deferred, and the same target first still", o)
		}
	})
}

// TestFirstIsTriedOnce: the target that comes first is not tried again at its
// place in the plan.
func TestFirstIsTriedOnce(t *testing.T) {
	n := newNetwork() // nobody at deadAddr
	n.hosts[liveAddr] = &host{rcpt: func(string) string { return "451 4.2.0 later" }}
	alone(t, plans{"x.test": {liveAddr, deadAddr}}, n, nil, func(d *Deliverer) {
		l := leaseFor("x.test", "a")
		l.Rcpts[0].SameFirst = deadAddr
		w := d.newWalk(l, false)
		w.attempt(context.Background())
		if len(w.results) != 2 || !strings.Contains(w.results[0], deadAddr) || !strings.Contains(w.results[1], liveAddr) {
			t.Errorf("%q, want one line for each target, %s first", w.results, deadAddr)
		}
	})
}

// TestFirstIsForgotten: a target that is not planned any more does not come
// first the next time.
func TestFirstIsForgotten(t *testing.T) {
	n := newNetwork()
	n.hosts[liveAddr] = &host{rcpt: func(string) string { return "451 4.2.0 later" }}
	alone(t, plans{"x.test": {liveAddr}}, n, nil, func(d *Deliverer) {
		l := leaseFor("x.test", "a")
		l.Rcpts[0].SameFirst = deadAddr
		out, _ := walkOnce(context.Background(), d, l)
		if o := out["a"]; o.Result != queue.Defer || o.SameFirst != "" {
			t.Errorf("%+v, want deferred, and nobody first", o)
		}
	})
}
