package delivery

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/dnsutil"
	"srvrelay/queue"
)

// dynDNS is a caching resolver in front of zones that change: each domain has
// an SRV record of port 25 at one host.
type dynDNS struct {
	mu    sync.Mutex
	ttl   time.Duration
	slow  bool // look-ups of hosts of dN.test never end
	addrs map[string]netip.Addr
	cache map[string]cachedAddr
	asked []time.Time // for addresses, beyond the cache
}

type cachedAddr struct {
	addr  netip.Addr
	until time.Time
}

func newDynDNS(ttl time.Duration) *dynDNS {
	return &dynDNS{ttl: ttl, addrs: map[string]netip.Addr{}, cache: map[string]cachedAddr{}}
}

func (r *dynDNS) set(domain, addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addrs["mx."+domain] = netip.MustParseAddr(addr)
}

func (r *dynDNS) SRV(_ context.Context, name string) (dnsutil.Answer[dnsutil.SRV], error) {
	_, domain, _ := strings.Cut(name, "_tcp.")
	return dnsutil.Answer[dnsutil.SRV]{Records: []dnsutil.SRV{{Port: 25, Target: "mx." + domain}}, TTL: time.Hour}, nil
}

func (r *dynDNS) MX(_ context.Context, name string) (dnsutil.Answer[dnsutil.MX], error) {
	return dnsutil.Answer[dnsutil.MX]{}, &dnsutil.NotFound{Name: name, Type: "MX", TTL: time.Hour}
}

func (r *dynDNS) Addrs(ctx context.Context, host string) (dnsutil.Answer[netip.Addr], error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	c := r.cache[host]
	if !now.Before(c.until) {
		r.asked = append(r.asked, now)
		if r.slow && strings.HasPrefix(host, "mx.d") {
			r.mu.Unlock()
			<-ctx.Done()
			r.mu.Lock()
			return dnsutil.Answer[netip.Addr]{}, ctx.Err()
		}
		c = cachedAddr{r.addrs[host], now.Add(r.ttl)}
		r.cache[host] = c
	}
	if !c.addr.IsValid() {
		return dnsutil.Answer[netip.Addr]{}, &dnsutil.NotFound{Name: host, Type: "A", NXDomain: true, TTL: c.until.Sub(now)}
	}
	return dnsutil.Answer[netip.Addr]{Records: []netip.Addr{c.addr}, TTL: c.until.Sub(now)}, nil
}

// lookups is how often the DNS was asked since a time.
func (r *dynDNS) lookups(since time.Time) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, at := range r.asked {
		if !at.Before(since) {
			n++
		}
	}
	return n
}

// playDNS runs a deliverer that plans by the rules; home.test is carried home.
func playDNS(t *testing.T, dns *dynDNS, n *network, do func(q *memQueue, d *Deliverer)) {
	t.Helper()
	planner := plan.New(plan.Config{
		RelayDomains: []string{"home.test", ".home.test"}, Own: plan.Own{Machine: func() ([]netip.Addr, error) { return nil, nil }},
	}, dns, nil)
	playWith(t, nil, n, func(c *Config) { c.Planner = planner }, do)
}

const oldHome, newHome = "5.5.5.1", "5.5.5.2"

// TestHomeMoves: whenever a home answers at a new address, its mail is there
// five seconds after the end of the old record's TTL at the latest.
func TestHomeMoves(t *testing.T) {
	for _, ttl := range []time.Duration{20 * time.Second, 45 * time.Second, time.Minute} {
		for _, domain := range []string{"home.test", "stranger.test"} {
			var worst time.Duration
			for moves := time.Duration(0); moves < 4*time.Minute; moves += 13 * time.Second {
				took := homeMoves(t, domain, ttl, moves)
				worst = max(worst, took)
				if took > ttl+5*time.Second {
					t.Errorf("%s, TTL %v, moved after %v: its mail came %v later", domain, ttl, moves, took)
				}
			}
			t.Logf("%s, TTL %v: the first message comes %v after the move at most", domain, ttl, worst.Round(time.Millisecond))
		}
	}
}

// homeMoves lets a server answer at a new address, so long after it could not
// be reached at its old one, and returns when the first message came.
func homeMoves(t *testing.T, domain string, ttl, moves time.Duration) (took time.Duration) {
	dns, n := newDynDNS(ttl), newNetwork()
	n.hosts[oldHome+":25"] = &host{down: true}
	n.hosts[newHome+":25"] = &host{}
	dns.set(domain, oldHome)
	playDNS(t, dns, n, func(q *memQueue, d *Deliverer) {
		q.put(domain, 20)
		time.Sleep(moves + time.Millisecond)
		moved := time.Now()
		dns.set(domain, newHome)
		for q.delivered(domain) == 0 && time.Since(moved) < time.Hour {
			time.Sleep(100 * time.Millisecond)
		}
		took = time.Since(moved)
		time.Sleep(10 * time.Second)
		if got := q.delivered(domain); got != 20 {
			t.Errorf("%s: %d of 20 messages came with the first", domain, got)
		}
	})
	return took
}

// TestHomeGetsAnAddress: mail for a home without any record waits, and goes when
// it has one.
func TestHomeGetsAnAddress(t *testing.T) {
	dns, n := newDynDNS(20*time.Second), newNetwork()
	n.hosts[newHome+":25"] = &host{}
	playDNS(t, dns, n, func(q *memQueue, d *Deliverer) {
		q.put("home.test", 1)
		time.Sleep(10*time.Minute + time.Second) // just after a look
		dns.set("home.test", newHome)
		time.Sleep(25 * time.Second)
		if got := q.delivered("home.test"); got != 1 {
			t.Errorf("%d of 1 delivered", got)
		}
	})
}

// TestHomeComesBackToAnOldAddress: where a home was not found a moment ago it
// may be now, if its records say so; a stranger's do not make us look again.
func TestHomeComesBackToAnOldAddress(t *testing.T) {
	for domain, dials := range map[string]int{"home.test": 2, "stranger.test": 1} {
		dns, n := newDynDNS(5*time.Second), newNetwork()
		n.hosts[oldHome+":25"] = &host{down: true}
		n.hosts[newHome+":25"] = &host{down: true}
		dns.set(domain, oldHome)
		playDNS(t, dns, n, func(q *memQueue, d *Deliverer) {
			q.put(domain, 1)
			time.Sleep(time.Second)
			dns.set(domain, newHome)
			time.Sleep(10 * time.Second)
			dns.set(domain, oldHome)
			time.Sleep(10 * time.Second)
			if got := len(n.dialled(oldHome + ":25")); got != dials {
				t.Errorf("%s: %d connects to the old address, want %d", domain, got, dials)
			}
		})
	}
}

// TestRecordsThatRotate: a stranger whose dead servers have turns in his records
// costs no more connects than the probes of each.
func TestRecordsThatRotate(t *testing.T) {
	dns, n := newDynDNS(5*time.Second), newNetwork()
	playDNS(t, dns, n, func(q *memQueue, d *Deliverer) {
		for i := range 600 {
			dns.set("stranger.test", fmt.Sprintf("5.5.5.%d", 1+i%3))
			if i == 0 {
				q.put("stranger.test", 1)
			}
			time.Sleep(6 * time.Second)
		}
		for i := range 3 {
			addr := fmt.Sprintf("5.5.5.%d:25", 1+i)
			if got := len(n.dialled(addr)); got == 0 || got > 20 {
				t.Errorf("%d connects to %s in an hour", got, addr)
			}
		}
		if got := q.claimed(); got > 60 {
			t.Errorf("%d attempts in an hour: some that could not connect to anything", got)
		}
	})
}

// TestLooksAreBounded: however many hops are parked, the DNS is asked so often
// and no more; and the homes among them do not wait for strangers' DNS.
func TestLooksAreBounded(t *testing.T) {
	dns, n := newDynDNS(10*time.Second), newNetwork()
	playDNS(t, dns, n, func(q *memQueue, d *Deliverer) {
		for i := range 3000 {
			domain := fmt.Sprintf("d%d.test", i)
			dns.set(domain, fmt.Sprintf("6.6.%d.%d", i/200, 1+i%200))
			q.put(domain, 1)
		}
		dns.set("home.test", oldHome)
		q.put("home.test", 1)
		time.Sleep(4 * time.Minute) // the probes are at 0:00, 1:00, 3:00 and 7:00
		asked := time.Now()
		time.Sleep(time.Minute)
		got, most := dns.lookups(asked), int(time.Minute/lookPause)+10
		if got > most || got < most/2 {
			t.Errorf("%d look-ups in a minute, want some %d", got, most)
		}

		dns.mu.Lock()
		dns.slow = true
		dns.mu.Unlock()
		time.Sleep(70 * time.Second) // not at the home's own probe
		n.mu.Lock()
		n.hosts[newHome+":25"] = &host{}
		n.mu.Unlock()
		dns.set("home.test", newHome)
		time.Sleep(15 * time.Second)
		if q.delivered("home.test") != 1 {
			t.Error("the home waits for strangers' DNS")
		}
	})
}

// TestLooksEnd: of hops that have nothing any more nothing is looked at, or
// remembered.
func TestLooksEnd(t *testing.T) {
	dns, n := newDynDNS(20*time.Second), newNetwork()
	playDNS(t, dns, n, func(q *memQueue, d *Deliverer) {
		dns.set("home.test", oldHome)
		q.put("home.test", 1)
		time.Sleep(time.Second)
		q.mu.Lock()
		q.hops = map[string][]*item{} // somebody removes it
		q.mu.Unlock()
		time.Sleep(10 * time.Minute)
		since := time.Now()
		time.Sleep(10 * time.Minute)
		if got := dns.lookups(since); got != 0 {
			t.Errorf("%d look-ups for nobody's mail", got)
		}
		if hops, _ := remembered(d); hops != 0 || len(d.homes.looks) != 0 {
			t.Errorf("%d hops and %d looks are remembered", hops, len(d.homes.looks))
		}
	})
}

// TestRecoveredTargetWakesAll: the hops that wait for the same server are all
// tried when it has greeted one of them, long before their own probes.
func TestRecoveredTargetWakesAll(t *testing.T) {
	n := newNetwork()
	n.hosts[deadAddr] = &host{down: true}
	p := plans{}
	for i := range 50 {
		p[fmt.Sprintf("d%d.test", i)] = []string{deadAddr}
	}
	play(t, p, n, func(q *memQueue, d *Deliverer) {
		for hop := range p {
			q.put(hop, 3)
		}
		time.Sleep(time.Hour + 42*time.Second)
		n.set(deadAddr, func(h *host) { h.down = false })
		if err := d.Unpark(t.Context(), "d7.test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		for hop := range p {
			if got := q.delivered(hop); got != 3 {
				t.Errorf("%s has %d of 3", hop, got)
			}
			if !q.parkedUntil(hop).IsZero() {
				t.Errorf("%s is still parked for the queue", hop)
			}
		}
	})
}

// TestSightOf: what is compared, and when the look is due.
func TestSightOf(t *testing.T) {
	now := time.Now()
	target := plan.Target{Port: 25, Addrs: []netip.Addr{netip.MustParseAddr(oldHome), netip.MustParseAddr(newHome)}}
	for _, c := range []struct {
		name    string
		answers []plan.Lookup
		ends    time.Time
	}{
		{"no answers", nil, time.Time{}},
		{"the first end counts", []plan.Lookup{{TTL: time.Hour}, {TTL: time.Minute}}, now.Add(time.Minute)},
		{"nothing there", []plan.Lookup{{TTL: time.Minute, Problem: "NXDOMAIN"}}, now.Add(time.Minute)},
		{"failures have no end", []plan.Lookup{{Problem: "timeout"}}, time.Time{}},
	} {
		s := sightOf(&plan.Plan{Verdict: queue.Sent, Targets: []plan.Target{target}, Answers: c.answers}, now)
		if !s.ends.Equal(c.ends) || !slices.Equal(s.named, target.Endpoints()) {
			t.Errorf("%s: %+v", c.name, s)
		}
	}
}
