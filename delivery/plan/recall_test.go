package plan

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"srvrelay/queue"
)

// recallZone is with one host that has no address.
const recallZone = `
	_smtp._tcp.x.test SRV 10 3 25 a.test
	_smtp._tcp.x.test SRV 10 1 25 b.test
	_smtp._tcp.x.test SRV 20 0 25 c.test
	_smtp._tcp.x.test SRV 20 9 25 none.test
	a.test A 192.0.2.1
	b.test A 192.0.2.2
	c.test A 192.0.2.3
`

// recallPlanner may connect to what the zone names, and says what was asked.
func recallPlanner(t *testing.T, text string, own Own) (*Planner, *zone) {
	z := newZone(t, text)
	if own.Machine == nil {
		own.Machine = machine()
	}
	return New(Config{MXFallback: true, Own: own, Egress: Egress{Allow: prefixes("192.0.2.0/24")}}, z, memory{n: patienceAttempts, since: time.Now().Add(-patienceTime)}), z
}

// TestPlanIsKept: for as long as its answers hold, a plan is not composed again;
// it decides alike, with what is left of the TTLs, in an order of its own.
func TestPlanIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, z := recallPlanner(t, recallZone, Own{})
		fresh := p.Plan(t.Context(), "x.test")
		asked := len(z.asked)
		if asked != 5 {
			t.Fatalf("asked %v", z.asked)
		}
		first := map[string]int{}
		const draws = 4000
		for range draws {
			kept := p.Plan(t.Context(), "x.test")
			if len(kept.Targets) != 3 || kept.Targets[2].Host != "c.test" {
				t.Fatalf("%+v", kept.Targets)
			}
			first[kept.Targets[0].Host]++
		}
		if n := first["a.test"]; n < draws*65/100 || n > draws*75/100 { // 3.5 of 5
			t.Errorf("a came first %d times of %d", n, draws)
		}
		time.Sleep(zoneTTL - time.Second)
		kept := p.Plan(t.Context(), "x.test")
		if len(z.asked) != asked {
			t.Errorf("asked again: %v", z.asked[asked:])
		}
		if len(kept.Dropped) != 1 || kept.Dropped[0].Reason != queue.ReasonNoAddress {
			t.Errorf("dropped %+v", kept.Dropped)
		}
		if got, want := kept.Answers[0].TTL, time.Second; got != want || fresh.Answers[0].TTL != zoneTTL {
			t.Errorf("TTL %v, want %v; the first plan's %v", got, want, fresh.Answers[0].TTL)
		}
		other, _ := recallPlanner(t, recallZone, Own{})
		if a, b := kept.Fingerprint(), other.plan(t.Context(), "x.test", false).Fingerprint(); a != b || a != fresh.Fingerprint() {
			t.Errorf("fingerprint %s, of a new plan %s", a, b)
		}
	})
}

// TestPlanIsMadeAnew: when an answer's TTL has ended, when our own addresses
// have changed, when SRV is to be left out, and always when something failed or
// was left out.
func TestPlanIsMadeAnew(t *testing.T) {
	ours := machine("198.51.100.1")
	for name, c := range map[string]struct {
		zone string
		then func(ctx context.Context, p *Planner)
	}{
		"the TTL ends": {recallZone, func(context.Context, *Planner) { time.Sleep(zoneTTL) }},
		"an address is ours now": {recallZone, func(context.Context, *Planner) {
			ours = machine("192.0.2.3")
			time.Sleep(machineAge)
		}},
		"without SRV":         {recallZone, func(ctx context.Context, p *Planner) { p.PlanMX(ctx, "x.test") }},
		"a look-up failed":    {recallZone + "c.test fails A SERVFAIL", func(context.Context, *Planner) {}},
		"SRV failed for long": {"_smtp._tcp.x.test fails SRV SERVFAIL\nx.test MX 10 a.test\na.test A 192.0.2.1", func(context.Context, *Planner) {}},
		"a duplicate":         {recallZone + "_smtp._tcp.x.test SRV 10 0 25 d.test\nd.test A 192.0.2.1", func(context.Context, *Planner) {}},
		"nothing to be tried": {"x.test A 10.0.0.1", func(context.Context, *Planner) {}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, z := recallPlanner(t, c.zone, Own{
					Listeners: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:25")},
					Machine:   func() ([]netip.Addr, error) { return ours() },
				})
				p.Plan(t.Context(), "x.test")
				asked := len(z.asked)
				c.then(t.Context(), p)
				got := p.Plan(t.Context(), "x.test")
				if len(z.asked) == asked {
					t.Errorf("nothing was asked again")
				}
				if name == "an address is ours now" && (len(got.Targets) != 2 || len(got.Dropped) != 2 || got.Dropped[0].Reason != queue.ReasonSelf) {
					t.Errorf("%+v, dropped %+v", got.Targets, got.Dropped)
				}
			})
		})
	}
}

func TestKeptPlansAreBounded(t *testing.T) {
	text := "a.test A 192.0.2.1\n"
	for i := range maxKept + 50 {
		text += fmt.Sprintf("_smtp._tcp.d%d.test SRV 10 0 25 a.test\n", i)
	}
	p, _ := recallPlanner(t, text, Own{})
	for i := range maxKept + 50 {
		if pl := p.Plan(t.Context(), fmt.Sprintf("d%d.test", i)); pl.Verdict != queue.Sent {
			t.Fatalf("%+v", pl)
		}
	}
	if n := len(p.recall.plans); n != maxKept {
		t.Errorf("%d plans are kept, want %d", n, maxKept)
	}
}
