package delivery

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"srvrelay/queue"
)

// asks runs do in virtual time with a CallForward to a home server at liveAddr.
func asks(t *testing.T, h *host, do func(t *testing.T, f *CallForward, n *network, log *troubles)) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		if h != nil {
			n.hosts[liveAddr] = h
		}
		log := &troubles{quiet: quiet{t: t}}
		d := New(Config{
			Settings: Settings{Hostname: "relay.test"}, Queue: newMemQueue(queue.DefaultRetry), Planner: plans{"home.test": {liveAddr}, "loop.test": nil},
			Events: log, Dial: n.dial,
		}, NewMemory(noFacts{}))
		f := NewCallForward(d, CallForwardConfig{HopOf: func(_, domain string) string { return domain }})
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { d.Run(ctx); close(ended) }()
		do(t, f, n, log)
		stop()
		<-ended
		time.Sleep(time.Minute) // for servers that sleep
		for ap, st := range d.health.targets {
			if st.conns != 0 {
				t.Errorf("%s: %d slots were not given back", ap, st.conns)
			}
		}
		if got := f.Ask(context.Background(), rcptAt("late@home.test")); got.Known != Unknown {
			t.Errorf("after the stop: %v", got)
		}
	})
}

// troubles is quiet, and counts what is said in the log.
type troubles struct {
	quiet
	mu   sync.Mutex
	said []Trouble
}

func (l *troubles) Trouble(x Trouble) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, x)
}

// all waits for what is on its way, and returns what has been said.
func (l *troubles) all() []Trouble {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.said)
}

func rcptAt(address string) queue.Recipient {
	_, domain, _ := strings.Cut(address, "@")
	return queue.Recipient{Address: address, Domain: domain}
}

// recorded is a server that keeps what it was told.
func recorded(reply func(line string) string) (*host, func() []string) {
	var mu sync.Mutex
	var lines []string
	h := &host{say: func(line string) string {
		mu.Lock()
		lines = append(lines, line)
		mu.Unlock()
		if reply == nil {
			return ""
		}
		return reply(line)
	}}
	return h, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), lines...)
	}
}

func count(lines []string, prefix string) (n int) {
	for _, l := range lines {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

// TestAskedAnswers: what each answer of a home server says about a recipient.
func TestAskedAnswers(t *testing.T) {
	for _, tc := range []struct {
		at, say string // to lines that begin so
		want    Known
	}{
		{"", "", Taken},
		{"RCPT", "250 2.1.5 fine", Taken},
		{"RCPT", "252 cannot verify, will try", Taken},
		{"RCPT", "550 5.1.1 nobody", Refused},
		{"RCPT TO:<a@", "550 no such user", Refused},
		{"RCPT TO:<a@", "550 5.0.0 no such user", Refused},
		{"RCPT TO:<a@", "553 mailbox name not allowed", Refused},
		{"RCPT", "550 5.1.10 null MX", Refused},
		{"RCPT", "550 5.2.1 disabled", Refused},
		{"RCPT", "552 5.2.2 full", Refused},
		{"RCPT", "550 no null senders here", Unknown},
		{"RCPT", "550 5.5.0 no null senders here", Unknown},
		{"RCPT", "554 5.7.1 <>: sender address rejected", Unknown},
		{"RCPT", "550 5.7.1 client host blocked", Unknown},
		{"RCPT", "550 5.1.8 sender's domain does not exist", Unknown},
		{"RCPT", "554 transaction failed", Unknown},
		{"RCPT", "550 5.4.6 loop", Unknown},
		{"RCPT", "450 4.7.1 greylisted", Unknown},
		{"RCPT", "421 4.3.2 closing", Unknown},
		{"RCPT", "drop", Unknown},
		{"MAIL", "550 5.1.1 no null senders", Unknown},
		{"MAIL", "530 5.7.0 authenticate", Unknown},
		{"MAIL", "451 4.3.0 later", Unknown},
		{"EHLO", "drop", Unknown},
		{"banner", "554 no service", Unknown},
	} {
		t.Run(tc.at+" "+tc.say, func(t *testing.T) {
			h, lines := recorded(func(line string) string {
				if tc.at != "" && strings.HasPrefix(line, tc.at) {
					return tc.say
				}
				return ""
			})
			asks(t, h, func(t *testing.T, f *CallForward, n *network, _ *troubles) {
				a := f.Ask(context.Background(), rcptAt("a@home.test"))
				if a.Known != tc.want {
					t.Errorf("%v (%s), want %v", a.Known, a.Status, tc.want)
				}
				synctest.Wait()
				if count(lines(), "DATA") > 0 || count(lines(), "MAIL FROM:<>") != count(lines(), "MAIL") {
					t.Errorf("said %q", lines())
				}
				if tc.want == Refused && (a.Status.Reply != tc.say || count(lines(), "RSET") != count(lines(), "RCPT")) {
					t.Errorf("status %+v, said %q", a.Status, lines())
				}
			})
		})
	}
}

// TestAskedWithoutAWay: no host, or a plan without targets.
func TestAskedWithoutAWay(t *testing.T) {
	asks(t, nil, func(t *testing.T, f *CallForward, n *network, log *troubles) {
		for i := range 5 {
			if a := f.Ask(context.Background(), rcptAt(fmt.Sprintf("u%d@home.test", i))); a.Known != Unknown {
				t.Errorf("%v", a)
			}
		}
		if got := len(n.dialled(liveAddr)); got != 1 {
			t.Errorf("%d connects to a server that is down, want 1", got)
		}
		if said := log.all(); len(said) != 1 || said[0].Hop != "home.test" {
			t.Errorf("log %+v, want one line a minute", said)
		}
		time.Sleep(complainEach)
		f.Ask(context.Background(), rcptAt("another@home.test"))
		if said := log.all(); len(said) != 2 {
			t.Errorf("log %+v, want a second line", said)
		}
		if a := f.Ask(context.Background(), rcptAt("x@loop.test")); a.Known != Unknown {
			t.Errorf("a plan that fails: %v", a)
		}
	})
}

// TestAskedFindsItBack: a question may be what finds out that a server is up.
func TestAskedFindsItBack(t *testing.T) {
	h := &host{down: true}
	asks(t, h, func(t *testing.T, f *CallForward, n *network, _ *troubles) {
		if a := f.Ask(context.Background(), rcptAt("a@home.test")); a.Known != Unknown {
			t.Errorf("%v", a)
		}
		n.set(liveAddr, func(h *host) { h.down = false })
		time.Sleep(2 * time.Minute) // the first probe is due
		if a := f.Ask(context.Background(), rcptAt("a@home.test")); a.Known != Taken {
			t.Errorf("%v, want taken: it is back", a)
		}
	})
}

// TestAskedEndsAPark: mail that is parked goes as soon as a question has found
// a way.
func TestAskedEndsAPark(t *testing.T) {
	asks(t, &host{}, func(t *testing.T, f *CallForward, n *network, _ *troubles) {
		q := f.d.cfg.Queue.(*memQueue)
		q.put("loop.test", 1)
		time.Sleep(15 * time.Minute) // some attempts: the park is long
		synctest.Wait()
		f.d.cfg.Planner.(plans)["loop.test"] = []string{liveAddr}
		if a := f.Ask(context.Background(), rcptAt("a@loop.test")); a.Known != Taken || q.delivered("loop.test") > 0 {
			t.Errorf("%v, %d delivered", a, q.delivered("loop.test"))
		}
		time.Sleep(time.Second)
		if q.delivered("loop.test") != 1 {
			t.Errorf("%d delivered within a second", q.delivered("loop.test"))
		}
	})
}

// TestAskedOnce: answers are remembered for their time, and one question serves
// all who have it.
func TestAskedOnce(t *testing.T) {
	refuse := atomic.Bool{}
	h, lines := recorded(func(line string) string {
		if strings.HasPrefix(line, "RCPT") {
			time.Sleep(time.Second)
			if refuse.Load() || strings.Contains(line, "nobody") {
				return "550 5.1.1 nobody"
			}
		}
		return ""
	})
	asks(t, h, func(t *testing.T, f *CallForward, _ *network, _ *troubles) {
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if a := f.Ask(context.Background(), rcptAt("a@home.test")); a.Known != Taken {
					t.Errorf("%v", a)
				}
			})
		}
		wg.Wait()
		expect := func(rcpt string, want Known, asked int) {
			t.Helper()
			if a := f.Ask(context.Background(), rcptAt(rcpt)); a.Known != want {
				t.Errorf("%s: %v, want %v", rcpt, a.Known, want)
			}
			if got := count(lines(), "RCPT TO:<"+rcpt); got != asked {
				t.Errorf("%s was asked about %d times, want %d", rcpt, got, asked)
			}
		}
		expect("a@home.test", Taken, 1)
		expect("nobody@home.test", Refused, 1)
		refuse.Store(true)
		time.Sleep(4 * time.Minute)
		expect("nobody@home.test", Refused, 1)
		time.Sleep(time.Minute)
		expect("nobody@home.test", Refused, 2)
		time.Sleep(50 * time.Minute)
		expect("a@home.test", Taken, 1)
		time.Sleep(6 * time.Minute)
		expect("a@home.test", Refused, 2)
	})
}

// TestAskedTooMuch: a dictionary of names, and a server that never answers.
func TestAskedTooMuch(t *testing.T) {
	h, lines := recorded(func(line string) string {
		if strings.HasPrefix(line, "RCPT") {
			return "550 5.1.1 nobody"
		}
		return ""
	})
	asks(t, h, func(t *testing.T, f *CallForward, n *network, _ *troubles) {
		overload := 0
		for i := range 2 * maxPerMinute {
			if f.Ask(context.Background(), rcptAt(fmt.Sprintf("u%d@home.test", i))).Known == Overload {
				overload++
			}
		}
		if got := count(lines(), "RCPT"); got != maxPerMinute || overload != maxPerMinute {
			t.Errorf("%d questions and %d too many, want %d of each", got, overload, maxPerMinute)
		}
		time.Sleep(time.Minute)
		if a := f.Ask(context.Background(), rcptAt("next@home.test")); a.Known != Refused {
			t.Errorf("a minute later: %v", a)
		}
	})
	h, lines = recorded(func(line string) string {
		if strings.HasPrefix(line, "RCPT") {
			time.Sleep(30 * time.Second)
		}
		return ""
	})
	asks(t, h, func(t *testing.T, f *CallForward, n *network, _ *troubles) {
		begin := time.Now()
		known := make(chan Known, 500)
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() { known <- f.Ask(context.Background(), rcptAt(fmt.Sprintf("u%d@home.test", i))).Known })
		}
		wg.Wait()
		close(known)
		sum := map[Known]int{}
		for k := range known {
			sum[k]++
		}
		if took := time.Since(begin); took > 21*time.Second {
			t.Errorf("it took %s", took)
		}
		// Those whose time ends with that of the first four may hear of it.
		if asked := count(lines(), "RCPT"); sum[Overload] < 500-maxWaiting || sum[Unknown]+sum[Overload] != 500 || asked != maxAtOnce || len(n.dialled(liveAddr)) != maxAtOnce {
			t.Errorf("%v with %d questions over %d connections", sum, asked, len(n.dialled(liveAddr)))
		}
		begin = time.Now()
		if a := f.Ask(context.Background(), rcptAt("other@home.test")); a.Known != Unknown || time.Since(begin) > 0 {
			t.Errorf("%v after %s, want unknown at once", a, time.Since(begin))
		}

	})
}

// TestAskedInUTF8: a server without SMTPUTF8 cannot take such a recipient; an
// international domain alone is no obstacle.
func TestAskedInUTF8(t *testing.T) {
	h, lines := recorded(nil)
	asks(t, h, func(t *testing.T, f *CallForward, n *network, _ *troubles) {
		to := queue.Recipient{Address: "ä@home.test", Domain: "home.test"}
		if a := f.Ask(context.Background(), to); a.Known != Refused || a.Status.Code != "5.6.7" {
			t.Errorf("%v %+v", a.Known, a.Status)
		}
		to = queue.Recipient{Address: "a@höme.test", Domain: "home.test"}
		if a := f.Ask(context.Background(), to); a.Known != Taken || count(lines(), "RCPT TO:<a@home.test>") != 1 {
			t.Errorf("%v: %q", a, lines())
		}
		n.set(liveAddr, func(h *host) { h.ext = "SMTPUTF8" })
		time.Sleep(10 * time.Minute)
		to = queue.Recipient{Address: "ä@home.test", Domain: "home.test"}
		if a := f.Ask(context.Background(), to); a.Known != Taken {
			t.Errorf("%v", a)
		}
	})
}

// TestAskedConnectionDelivers: the connection of a question serves the mail.
func TestAskedConnectionDelivers(t *testing.T) {
	n := newNetwork()
	n.hosts[liveAddr] = &host{}
	alone(t, plans{"x.test": {liveAddr}}, n, nil, func(d *Deliverer) {
		if a := d.ask(context.Background(), "x.test", "a@x.test"); a.Known != Taken {
			t.Errorf("%v", a)
		}
		out, _ := walkOnce(context.Background(), d, leaseFor("x.test", "a"))
		if out["a"].Result != queue.Sent || len(n.dialled(liveAddr)) != 1 {
			t.Errorf("%+v after %d connects", out["a"], len(n.dialled(liveAddr)))
		}
	})
}

// TestAskingIsBounded: neither the memory nor the hops grow without end.
func TestAskingIsBounded(t *testing.T) {
	f := NewCallForward(New(Config{}, nil), CallForwardConfig{})
	now := time.Now()
	for i := range maxAnswers + 10 {
		f.makeRoom(now)
		f.answers[fmt.Sprint(i)] = keptAnswer{until: now.Add(time.Hour)}
	}
	for i := range maxHops + 10 {
		f.hop(fmt.Sprint(i), now)
	}
	if len(f.answers) > maxAnswers || len(f.hops) > maxHops {
		t.Errorf("%d answers, %d hops", len(f.answers), len(f.hops))
	}
	if f.hop("new", now.Add(2*time.Minute)) == nil {
		t.Error("old hops are not forgotten")
	}
}
