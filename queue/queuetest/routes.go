package queuetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"srvrelay/queue"
)

// routeCases: what is queued while the operator's routes change.
var routeCases = []testCase{
	{"new routes move what is queued and keep its time", rerouteMoves},
	{"what waited in a parked hop is due in the new one", rerouteParked},
	{"what is leased moves too", rerouteLeased},
	{"a group whose domains part ways is split", rerouteSplits},
	{"a reroute that ends early is made good", rerouteCutShort},
	{"each hop has its own times", timesByHop},
	{"new times count for what is queued", rerouteTimes},
	{"routes that flap while everything goes on lose nothing", rerouteUnderLoad},
}

// reroute uses the routes and times that the case has set.
func (f *fixture) reroute() {
	f.Helper()
	if err := f.s.Reroute(ctx, f.routing()); err != nil {
		f.Fatalf("reroute: %v", err)
	}
}

func rerouteMoves(f *fixture) {
	f.put("b@b.example", "c@c.example", "d@d.example")
	f.settle(f.claim("b.example"), greylist)
	due := time.Now().Add(time.Minute)
	heard := map[string]time.Time{}
	f.s.Watch(func(hop string, _ queue.Lane, at time.Time) { heard[hop] = at })
	f.routes = "b.example=one c.example=two d.example=two"
	f.reroute()
	for _, hop := range []string{"b.example", "c.example", "d.example"} {
		f.none(hop)
	}
	if !heard["one"].Equal(due) || !heard["two"].Equal(time.Now()) {
		f.Errorf("the watcher heard %v", heard)
	}
	f.none("one")
	l := f.claim("two")
	if len(l.Rcpts) != 2 {
		f.Errorf("they do not share the hop: %+v", l.Rcpts)
	}
	f.settle(l, sent)
	f.put("new@b.example")
	f.settle(f.claim("one"), sent)
	time.Sleep(time.Minute)
	f.settle(f.claim("one"), sent)
	f.empty()
}

func rerouteParked(f *fixture) {
	f.put("b@b.example")
	f.settle(f.claim("b.example"), queue.Outcome{Result: queue.Defer, HopWaits: true, Status: queue.Status{Code: "4.4.1"}})
	if err := f.s.Park(ctx, "b.example", time.Now().Add(time.Hour), queue.Status{Code: "4.4.1"}); err != nil {
		f.Fatal(err)
	}
	f.routes = "*=smarthost"
	f.reroute()
	f.settle(f.claim("smarthost"), sent)
	f.empty()
}

func rerouteLeased(f *fixture) {
	f.put("b@b.example")
	f.put("c@c.example")
	id := f.put("d@d.example")
	deferred, back, over := f.claim("b.example"), f.claim("c.example"), f.claim("d.example")
	f.routes = "*=smarthost"
	f.reroute()
	f.none("smarthost")
	if _, err := f.s.Settle(ctx, back, nil, nil); err != nil {
		f.Fatal(err)
	}
	l := f.claim("smarthost")
	if l.Rcpts[0].Address != "c@c.example" || l.Rcpts[0].State != queue.Queued {
		f.Errorf("%+v", l.Rcpts)
	}
	f.settle(l, sent)
	if fx := f.settle(deferred, greylist); fx.Transitions[0].Hop != "b.example" {
		f.Errorf("the attempt was of the hop %s", fx.Transitions[0].Hop)
	}
	f.none("b.example")
	f.reopen() // and the lease of d ends
	l = f.claim("smarthost")
	if l.Envelope.ID != id {
		f.Errorf("%s came first", l.Envelope.ID)
	}
	_, err := f.s.Settle(ctx, over, []queue.Outcome{sent}, nil)
	f.is(err, queue.ErrLeaseLost)
	f.settle(l, sent)
	time.Sleep(time.Minute)
	f.settle(f.claim("smarthost"), sent)
	f.empty()
}

func rerouteSplits(f *fixture) {
	f.routes = "*=smarthost"
	f.reopen()
	f.put("b@b.example", "c@c.example", "d@d.example")
	f.put("b@b.example", "c@c.example")
	leased := f.claim("smarthost")
	f.routes = "c.example=c.example *=smarthost"
	f.reroute()
	if len(leased.Rcpts) != 3 {
		f.Fatalf("%+v", leased.Rcpts)
	}
	l := f.claim("smarthost")
	if len(l.Rcpts) != 1 || l.Rcpts[0].Address != "b@b.example" {
		f.Errorf("%+v", l.Rcpts)
	}
	f.settle(l, sent)
	f.settle(f.claim("c.example"), sent)
	f.none("c.example")
	f.none("smarthost")
	if _, err := f.s.Settle(ctx, leased, nil, nil); err != nil {
		f.Fatal(err)
	}
	if l := f.claim("smarthost"); len(l.Rcpts) != 2 {
		f.Errorf("%+v", l.Rcpts)
	} else {
		f.settle(l, sent)
	}
	f.settle(f.claim("c.example"), sent)
	f.empty()
}

func rerouteCutShort(f *fixture) {
	first := f.put("b@b.example")
	second := f.put("b2@b.example")
	f.put("b3@b.example")
	for _, hop := range []string{"one", "two"} { // neither gets anywhere
		f.routes = routes("*=" + hop)
		c, cancel := context.WithCancel(ctx)
		cancel()
		if err := f.s.Reroute(c, f.routing()); !errors.Is(err, context.Canceled) {
			f.Fatalf("reroute: %v", err)
		}
	}
	f.act(queue.Action{Verb: queue.VerbDelete}, first) // it is found wherever it is filed
	f.act(queue.Action{Verb: queue.VerbRetry}, second)
	f.none("b.example") // by outdated routes
	f.none("one")
	f.settle(f.claim("two"), sent)
	f.put("b4@b.example")
	f.routes = "" // as they were before the first
	f.reopen()
	f.none("two")
	f.settle(f.claim("b.example"), sent)
	f.settle(f.claim("b.example"), sent)
	f.empty()
}

func timesByHop(f *fixture) {
	f.retries = map[string]queue.Retry{"quick": {Schedule: []time.Duration{10 * time.Second}, ExpireAfter: 10 * time.Minute, DelayNotice: 5 * time.Minute}}
	f.routes = "b.example=quick"
	f.reopen()
	id := f.put("b@b.example", "c@c.example")
	for _, hop := range []string{"quick", "c.example"} {
		f.settle(f.claim(hop), greylist)
	}
	if m := f.get(id); !m.Recipients[0].Next.Equal(time.Now().Add(10*time.Second)) || !m.Recipients[1].Next.Equal(time.Now().Add(time.Minute)) {
		f.Errorf("%+v", m.Recipients)
	}
	time.Sleep(5 * time.Minute)
	_, notice := f.oneReport(f.sweep(), queue.ReportDelayed, "alice@a.example")
	f.names(notice, []string{"b@b.example"}, []string{"c@c.example"})
	if want := time.Now().Add(5 * time.Minute).Format(time.RFC1123Z); !strings.Contains(strings.Join(strings.Fields(notice), " "), want) {
		f.Errorf("the notice does not say %q:\n%s", want, notice)
	}
	time.Sleep(5 * time.Minute)
	fx := f.settle(f.claim("quick"), greylist)
	if r := fx.Transitions[0].Rcpt; r.State != queue.Expired {
		f.Errorf("%+v", r)
	}
	if r := f.get(id).Recipients[1]; r.State != queue.Deferred {
		f.Errorf("%+v", r)
	}
	time.Sleep(20 * time.Minute)
	_, notice = f.oneReport(f.sweep(), queue.ReportDelayed, "alice@a.example")
	f.names(notice, []string{"c@c.example"}, nil)
	if err := f.s.Park(ctx, "c.example", time.Now().Add(4*time.Hour), queue.Status{}); err != nil {
		f.Fatal(err)
	}
	time.Sleep(90*time.Minute - 1)
	if fx := f.sweep(); len(fx.Transitions) > 0 {
		f.Errorf("early: %+v", fx)
	}
	time.Sleep(time.Nanosecond)
	if fx := f.sweep(); len(fx.Transitions) != 1 || fx.Transitions[0].Rcpt.Address != "c@c.example" || len(fx.Removed) != 1 {
		f.Errorf("%+v", fx)
	}
}

func rerouteTimes(f *fixture) {
	f.put("b@b.example")
	f.put("c@c.example")
	f.settle(f.claim("b.example"), greylist)
	for _, hop := range []string{"b.example", "c.example"} {
		if err := f.s.Park(ctx, hop, time.Now().Add(9*time.Hour), queue.Status{}); err != nil {
			f.Fatal(err)
		}
	}
	f.retries = map[string]queue.Retry{
		"b.example": {Schedule: f.retry.Schedule, ExpireAfter: 10 * time.Minute},
		"c.example": {Schedule: f.retry.Schedule, ExpireAfter: 5 * time.Hour},
	}
	f.reroute()
	time.Sleep(10 * time.Minute)
	if fx := f.sweep(); len(fx.Transitions) != 1 || fx.Transitions[0].Rcpt.Address != "b@b.example" || fx.Transitions[0].Rcpt.State != queue.Expired {
		f.Errorf("%+v", fx)
	}
	f.settle(f.claim("a.example"), sent) // its report
	time.Sleep(4 * time.Hour)
	if fx := f.sweep(); len(fx.Transitions) != 0 {
		f.Errorf("%+v", fx)
	}
	time.Sleep(50 * time.Minute)
	if fx := f.sweep(); len(fx.Transitions) != 1 {
		f.Errorf("%+v", fx)
	}
}

// rerouteUnderLoad: whatever a worker claims, it claims by routes that were in
// use since it asked; in the end everything was delivered once.
func rerouteUnderLoad(f *fixture) {
	const producers, each = 3, 40
	var mu sync.Mutex
	delivered := map[string]int{}
	stop := make(chan struct{})
	stopped := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	var puts, workers sync.WaitGroup
	for p := range producers {
		puts.Go(func() {
			for i := range each {
				env := &queue.Envelope{Sender: "alice@a.example", To: to(fmt.Sprintf("p%d.%d@b.example", p, i), "x@c.example")}
				if _, err := f.s.Put(ctx, env, strings.NewReader(text)); err != nil {
					f.Error(err)
				}
				time.Sleep(time.Second)
			}
		})
	}
	for w := range 4 {
		workers.Go(func() {
			for n := w; !stopped(); n++ {
				for _, hop := range []string{"b.example", "c.example", "one", "two"} {
					l, err := f.s.Claim(ctx, hop, queue.AnyLane)
					if err != nil {
						f.Error(err)
						return
					}
					if l == nil {
						continue
					}
					time.Sleep(time.Millisecond) // so that routes change meanwhile
					switch n % 3 {
					case 0:
						if _, err := f.s.Settle(ctx, l, nil, nil); err != nil {
							f.Error(err)
						}
						continue
					case 1:
						f.settleBeside(l, greylist)
						continue
					}
					f.settleBeside(l, sent)
					mu.Lock()
					for _, r := range l.Rcpts {
						delivered[string(l.Envelope.ID)+r.Address]++
					}
					mu.Unlock()
				}
				time.Sleep(time.Second)
			}
		})
	}
	workers.Go(func() {
		for n := 0; !stopped(); n++ {
			g := f.routing()
			rs := []routes{"", "*=one", "b.example=one *=two", "c.example=one"}[n%4]
			g.HopOf, g.Fingerprint = rs.hopOf, string(rs)
			c, cancel := context.WithCancel(ctx)
			if n%5 == 4 {
				cancel() // an early end
			}
			if err := f.s.Reroute(c, g); err != nil && !errors.Is(err, context.Canceled) {
				f.Error(err)
			}
			cancel()
			f.sweepBeside()
			time.Sleep(7 * time.Second)
		}
	})
	puts.Wait()
	time.Sleep(time.Hour)
	close(stop)
	workers.Wait()
	f.routes = "*=one"
	f.reroute()
	time.Sleep(time.Hour)
	for l, _ := f.s.Claim(ctx, "one", queue.AnyLane); l != nil; l, _ = f.s.Claim(ctx, "one", queue.AnyLane) {
		f.settle(l, sent)
		for _, r := range l.Rcpts {
			delivered[string(l.Envelope.ID)+r.Address]++
		}
	}
	f.empty()
	for k, n := range delivered {
		if n != 1 {
			f.Errorf("%s was delivered %d times", k, n)
		}
	}
	if len(delivered) != 2*producers*each {
		f.Errorf("%d of %d recipients were delivered", len(delivered), 2*producers*each)
	}
}
