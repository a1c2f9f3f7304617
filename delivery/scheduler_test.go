package delivery

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/queue"
)

// plans is a planner made of a map: hop -> "addr:port" targets in order.
type plans map[string][]string

func (p plans) Plan(_ context.Context, domain string) plan.Plan {
	pl := plan.Plan{Domain: domain, Source: queue.ReasonSRV, Verdict: queue.Sent}
	for i, t := range p[domain] {
		ap := netip.MustParseAddrPort(t)
		pl.Targets = append(pl.Targets, plan.Target{
			Host: fmt.Sprintf("mx%d.%s", i, domain), Port: ap.Port(), Priority: uint16(10 * i), Addrs: []netip.Addr{ap.Addr()}, TLS: plan.TLSRule{Level: plan.TLSMay},
		})
	}
	if len(pl.Targets) == 0 {
		pl.Verdict, pl.Status = queue.Defer, queue.Status{Code: "4.4.3", Text: "no answer", Reason: queue.ReasonDNSFailed}
	}
	return pl
}

func (p plans) Home(string) bool { return false }

func (p plans) PlanMX(ctx context.Context, domain string) plan.Plan { return p.Plan(ctx, domain) }
func (p plans) HopOf(_, domain string, _ bool) string               { return domain }
func (p plans) Refused(string, netip.AddrPort) string               { return "" }

// memQueue is a queue of one-recipient messages in memory.
type memQueue struct {
	queue.Queue
	mu     sync.Mutex
	retry  queue.Retry
	watch  func(string, queue.Lane, time.Time)
	hops   map[string][]*item
	parked map[string]time.Time
	done   map[string]int
	claims int
}

type item struct {
	env    *queue.Envelope
	rcpt   queue.Recipient
	lane   queue.Lane
	leased bool
}

func newMemQueue(r queue.Retry) *memQueue {
	return &memQueue{retry: r, hops: map[string][]*item{}, parked: map[string]time.Time{}, done: map[string]int{}}
}

func (q *memQueue) put(hop string, n int) { q.putIn(queue.Light, hop, n) }

func (q *memQueue) putIn(lane queue.Lane, hop string, n int) {
	q.mu.Lock()
	for range n {
		q.hops[hop] = append(q.hops[hop], &item{
			lane: lane,
			env:  &queue.Envelope{ID: queue.NewID(time.Now()), Sender: "a@b.test", Received: time.Now(), Size: 5},
			rcpt: queue.Recipient{Address: "u@" + hop, Domain: hop, State: queue.Queued, Next: time.Now()},
		})
	}
	watch := q.watch
	q.mu.Unlock()
	if watch != nil {
		watch(hop, lane, time.Now())
	}
}

func (q *memQueue) Watch(fn func(string, queue.Lane, time.Time)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.watch = fn
	for hop, items := range q.hops {
		for _, it := range items {
			fn(hop, it.lane, it.rcpt.Next)
		}
	}
}

func (q *memQueue) Next(hop string) queue.Waiting {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.next(hop)
}

func (q *memQueue) next(hop string) queue.Waiting {
	var firsts [queue.NumLanes]time.Time
	for _, it := range q.hops[hop] {
		if first := &firsts[it.lane]; !it.leased && (first.IsZero() || it.rcpt.Next.Before(*first)) {
			*first = it.rcpt.Next
		}
	}
	var w queue.Waiting
	for l, first := range firsts {
		if !first.IsZero() {
			w.Note(queue.Lane(l), first, time.Now())
		}
	}
	return w
}

func (q *memQueue) Claim(_ context.Context, hop string, lanes queue.Lanes) (*queue.Lease, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.hops[hop] {
		if !it.leased && lanes.Has(it.lane) && !it.rcpt.Next.After(time.Now()) {
			it.leased = true
			q.claims++
			return &queue.Lease{Hop: hop, Lane: it.lane, Rest: q.next(hop), Envelope: it.env, Rcpts: []queue.Recipient{it.rcpt}, Open: func() (io.ReadCloser, error) {
				return io.NopCloser(strings.NewReader("a: b\r\n\r\nc\r\n")), nil
			}}, nil
		}
	}
	return nil, nil
}

func (q *memQueue) Settle(_ context.Context, l *queue.Lease, out []queue.Outcome, _ *queue.Attempt) (queue.Effects, error) {
	q.mu.Lock()
	var at time.Time
	var lane queue.Lane
	q.hops[l.Hop] = slices.DeleteFunc(q.hops[l.Hop], func(it *item) bool {
		if it.env != l.Envelope {
			return false
		}
		it.leased = false
		for _, o := range out {
			it.rcpt = q.retry.Advance(it.rcpt, o, it.env.Received.Add(q.retry.ExpireAfter), time.Now(), 0.5)
		}
		if it.rcpt.State == queue.Delivered {
			q.done[l.Hop]++
		}
		at, lane = it.rcpt.Next, it.lane
		return it.rcpt.State.Final()
	})
	q.mu.Unlock()
	if !at.IsZero() {
		q.watch(l.Hop, lane, at)
	}
	return queue.Effects{}, nil
}

func (q *memQueue) Park(_ context.Context, hop string, until time.Time, _ queue.Status) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.parked[hop] = until
	return nil
}

func (q *memQueue) Sweep(context.Context) (queue.Effects, time.Time, error) {
	return queue.Effects{}, time.Now().Add(time.Hour), nil
}

func (q *memQueue) delivered(hop string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.done[hop]
}

func (q *memQueue) claimed() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.claims
}

func (q *memQueue) parkedUntil(hop string) time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.parked[hop]
}

// noFacts is a store of facts that forgets.
type noFacts struct{}

func (noFacts) Fact(context.Context, string) (string, error)  { return "", nil }
func (noFacts) SetFact(context.Context, string, string) error { return nil }

// quiet is nobody who listens; trouble fails the test.
type quiet struct{ t *testing.T }

func (quiet) Attempted(*queue.Lease, *queue.Attempt) {}
func (quiet) Settled(queue.Effects)                  {}
func (quiet) Hop(HopEvent)                           {}
func (q quiet) Trouble(t Trouble)                    { q.t.Errorf("trouble: %+v", t) }

// play runs a deliverer in virtual time until the play is over.
func play(t *testing.T, p plans, n *network, do func(q *memQueue, d *Deliverer)) {
	playWith(t, p, n, func(*Config) {}, do)
}

// playWith is play with another configuration.
func playWith(t *testing.T, p plans, n *network, configure func(*Config), do func(q *memQueue, d *Deliverer)) {
	synctest.Test(t, func(t *testing.T) {
		retry := queue.DefaultRetry
		q := newMemQueue(retry)
		cfg := Config{Settings: Settings{Hostname: "relay.test", Retry: retry}, Queue: q, Planner: p, Events: quiet{t: t}, Dial: n.dial}
		configure(&cfg)
		d := New(cfg, NewMemory(noFacts{}))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); d.Run(ctx) }()
		do(q, d)
		stop()
		<-ended
		if d.crew.busy != [parts]int{} || d.crew.large != 0 {
			t.Errorf("attempts are still counted: %+v", d.crew)
		}
		for ap, st := range d.health.targets {
			if st.conns != 0 || st.large != 0 {
				t.Errorf("%s: %d slots were not given back, %d for large messages", ap, st.conns, st.large)
			}
		}
	})
}

const deadAddr, liveAddr = "192.0.2.1:2525", "192.0.2.2:2525"

// TestDeadTargetIsProbedByRule: thousands of messages for a dead hop cost one
// connect an interval, not one each, and a live hop does not notice.
func TestDeadTargetIsProbedByRule(t *testing.T) {
	n := newNetwork()
	n.hosts[deadAddr] = &host{down: true}
	n.hosts[liveAddr] = &host{}
	play(t, plans{"dead.test": {deadAddr}, "live.test": {liveAddr}}, n, func(q *memQueue, d *Deliverer) {
		q.put("dead.test", 5000)
		q.put("live.test", 10)
		time.Sleep(time.Second)
		if got := q.delivered("live.test"); got != 10 {
			t.Errorf("the live hop has %d of 10 messages after a second", got)
		}
		time.Sleep(2 * time.Hour)
		dials := n.dialled(deadAddr)
		// Two attempts may begin at once; then 1, 2, 4 and ever 5 minutes.
		if len(dials) < 20 || len(dials) > 30 {
			t.Errorf("%d connects to the dead target in two hours", len(dials))
		}
		for i := 3; i < len(dials); i++ {
			if gap := dials[i].Sub(dials[i-1]); gap < time.Minute || gap > 5*time.Minute+time.Second {
				t.Errorf("connect %d came %s after the one before", i, gap)
			}
		}
		n.set(deadAddr, func(h *host) { h.down = false; h.work = 100 * time.Millisecond })
		time.Sleep(6 * time.Minute)
		if got := q.delivered("dead.test"); got != 5000 {
			t.Errorf("%d of 5000 messages six minutes after the target came back", got)
		}
		if w := n.most(deadAddr); w > 10 {
			t.Errorf("%d connections at once, 10 are allowed", w)
		}
	})
}

// TestDeadPrimaryCostsOneConnect: with a live backup, a dead primary is tried
// once an interval however many messages come, and used again when it is back.
func TestDeadPrimaryCostsOneConnect(t *testing.T) {
	n := newNetwork()
	n.hosts[deadAddr] = &host{down: true}
	n.hosts[liveAddr] = &host{}
	play(t, plans{"x.test": {deadAddr, liveAddr}}, n, func(q *memQueue, d *Deliverer) {
		for range 300 { // a message a second for five minutes
			q.put("x.test", 1)
			time.Sleep(time.Second)
		}
		if got := q.delivered("x.test"); got != 300 {
			t.Errorf("%d of 300 delivered", got)
		}
		if got := len(n.dialled(deadAddr)); got < 3 || got > 5 {
			t.Errorf("%d connects to the dead primary in five minutes", got)
		}
		n.set(deadAddr, func(h *host) { h.down = false })
		for range 400 {
			q.put("x.test", 1)
			time.Sleep(time.Second)
		}
		if n.count(deadAddr) < 100 {
			t.Errorf("the primary that is back got %d messages", n.count(deadAddr))
		}
	})
}

// TestSlowHopHoldsFewWorkers: a hop that never answers does not hold up another.
func TestSlowHopHoldsFewWorkers(t *testing.T) {
	n := newNetwork()
	n.hosts[deadAddr] = &host{silent: true}
	n.hosts[liveAddr] = &host{}
	p := plans{"live.test": {liveAddr}}
	for i := range 300 { // more silent hops than there are workers
		a := fmt.Sprintf("198.51.100.%d:%d", i%250+1, 2000+i)
		n.hosts[a] = &host{silent: true}
		p[fmt.Sprintf("tarpit%d.test", i)] = []string{a}
	}
	play(t, p, n, func(q *memQueue, d *Deliverer) {
		for i := range 300 {
			q.put(fmt.Sprintf("tarpit%d.test", i), 20)
		}
		time.Sleep(time.Minute)
		for range 10 {
			q.put("live.test", 1)
			time.Sleep(15 * time.Second)
		}
		if got := q.delivered("live.test"); got != 10 {
			t.Errorf("%d of 10 delivered beside the tarpits", got)
		}
	})
}

// TestSharedTarget: hops that share a target share its connections, and none
// of them starves.
func TestSharedTarget(t *testing.T) {
	n := newNetwork()
	n.hosts[liveAddr] = &host{work: time.Second}
	p := plans{}
	for i := range 40 {
		p[fmt.Sprintf("d%d.test", i)] = []string{liveAddr}
	}
	play(t, p, n, func(q *memQueue, d *Deliverer) {
		for hop := range p {
			q.put(hop, 5)
		}
		time.Sleep(2 * time.Minute)
		for hop := range p {
			if got := q.delivered(hop); got != 5 {
				t.Errorf("%s has %d of 5", hop, got)
			}
		}
		if w := n.most(liveAddr); w > 10 {
			t.Errorf("%d connections at once, 10 are allowed", w)
		}
		if got := q.claimed(); got > 2000 {
			t.Errorf("%d claims for 200 messages: waiting for a slot is polling", got)
		}
	})
}

// TestBusyServerGetsFewerConnections: 421 halves what a server gets.
func TestBusyServerGetsFewerConnections(t *testing.T) {
	h := newHealth(queue.DefaultRetry, 10)
	ap := plan.Endpoint{AddrPort: netip.MustParseAddrPort(liveAddr)}
	h.slower(ap)
	h.slower(ap)
	if got := h.info(ap).Limit; got != 2 {
		t.Fatalf("limit %d after two wishes for fewer, want 2", got)
	}
	for range 5 {
		h.faster(ap)
	}
	if got := h.info(ap).Limit; got != 4 {
		t.Errorf("limit %d after five good transactions, want 4", got)
	}
	for range 5 {
		h.slower(ap)
	}
	if got := h.info(ap).Limit; got != 1 {
		t.Errorf("limit %d, want at least 1", got)
	}
}

// TestDNSFailureParksTheHop: one look at a domain without an answer decides
// for all its messages.
func TestDNSFailureParksTheHop(t *testing.T) {
	play(t, plans{}, newNetwork(), func(q *memQueue, d *Deliverer) {
		q.put("broken.test", 1000)
		time.Sleep(time.Hour)
		if got := q.claimed(); got > 20 {
			t.Errorf("%d attempts in an hour", got)
		}
		if q.parkedUntil("broken.test").Before(time.Now()) {
			t.Error("the hop is not parked")
		}
	})
}

// TestSharedDeadTarget: hops that share a dead target do not spin while one of
// them probes it, and all go when it is back.
func TestSharedDeadTarget(t *testing.T) {
	n := newNetwork()
	n.hosts[deadAddr] = &host{silent: true} // a probe takes ten seconds
	p := plans{}
	for i := range 20 {
		p[fmt.Sprintf("d%d.test", i)] = []string{deadAddr}
	}
	play(t, p, n, func(q *memQueue, d *Deliverer) {
		for hop := range p {
			q.put(hop, 5)
		}
		time.Sleep(time.Hour)
		if got := q.claimed(); got > 5000 {
			t.Errorf("%d claims in an hour", got)
		}
		n.set(deadAddr, func(h *host) { h.silent = false })
		time.Sleep(15 * time.Minute)
		for hop := range p {
			if got := q.delivered(hop); got != 5 {
				t.Errorf("%s has %d of 5", hop, got)
			}
		}
	})
}
