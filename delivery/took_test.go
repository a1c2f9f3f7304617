package delivery

import (
	"context"
	"net"
	"testing"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/queue"
)

// slowPlans takes its time.
type slowPlans struct{ plans }

func (p slowPlans) Plan(ctx context.Context, hop string) plan.Plan {
	time.Sleep(4 * time.Second)
	return p.plans.Plan(ctx, hop)
}

// TestTook: each part of an attempt has its own time, a connection that failed
// is in the whole only, and one that is used again has no connect.
func TestTook(t *testing.T) {
	n := newNetwork()
	n.hosts[liveAddr] = &host{say: func(line string) string {
		switch {
		case len(line) > 4 && line[:4] == "EHLO":
			time.Sleep(2 * time.Second)
		case line == ".":
			time.Sleep(3 * time.Second)
			return "250 2.0.0 ok"
		}
		return ""
	}}
	alone(t, slowPlans{plans{"x.test": {deadAddr, liveAddr}}}, n, nil, func(d *Deliverer) {
		dial := d.cfg.Dial
		d.cfg.Dial = func(ctx context.Context, ep plan.Endpoint) (net.Conn, error) {
			time.Sleep(time.Second)
			return dial(ctx, ep)
		}
		took := func() queue.Took {
			w := d.newWalk(leaseFor("x.test", "a"), false)
			w.attempt(context.Background())
			got := w.record().Took
			for _, part := range []*time.Duration{&got.All, &got.Plan, &got.Connect, &got.TLS, &got.Greeting, &got.Transfer} {
				*part = part.Round(100 * time.Millisecond) // the network takes some ms
			}
			return got
		}
		const s = time.Second
		if got, want := took(), (queue.Took{All: 11 * s, Plan: 4 * s, Connect: s, Greeting: 2 * s, Transfer: 3 * s}); got != want {
			t.Errorf("the first attempt:\n%+v, want\n%+v", got, want)
		}
		if got, want := took(), (queue.Took{All: 7 * s, Plan: 4 * s, Transfer: 3 * s}); got != want {
			t.Errorf("the second attempt:\n%+v, want\n%+v", got, want)
		}
		if got, want := d.Targets(), (Targets{Down: 1, Connections: 1}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
}
