package queuetest

import (
	"fmt"
	"math/rand/v2"
	"time"

	"srvrelay/queue"
)

// timeCases: when things are due.
var timeCases = []testCase{
	{"deferred by the schedule", deferred},
	{"a hop that waits is due at once", hopWaits},
	{"the earliest comes first", earliestFirst},
	{"more than fits in memory, in order", manyQueued},
	{"retry makes all due now", retryNow},
	{"the watcher hears of all that is due", watch},
	{"hops and parks", hopsAndParks},
}

func deferred(f *fixture) {
	id := f.put("bob@b.example")
	for i, wait := range []time.Duration{time.Minute, 5 * time.Minute, 10 * time.Minute, 10 * time.Minute} {
		o := greylist
		o.SameFirst = "192.0.2.1:25"
		fx := f.settle(f.claim("b.example"), o)
		r := fx.Transitions[0].Rcpt
		if r.State != queue.Deferred || r.Attempts != i+1 || !r.Next.Equal(time.Now().Add(wait)) || r.Last != greylist.Status || r.SameFirst != o.SameFirst {
			f.Fatalf("after attempt %d: %+v", i+1, r)
		}
		if got := f.get(id).Recipients[0]; !got.Next.Equal(r.Next) || got.Attempts != r.Attempts || got.Last != r.Last || got.SameFirst != r.SameFirst {
			f.Fatalf("stored %+v, returned %+v", got, r)
		}
		if due, ok := f.next("b.example"); !ok || !due.Equal(r.Next) {
			f.Errorf("next %v, %v", due, ok)
		}
		time.Sleep(wait - 1)
		f.none("b.example")
		time.Sleep(time.Nanosecond)
	}
	f.settle(f.claim("b.example"), sent)
	f.empty()
}

func hopWaits(f *fixture) {
	f.put("bob@b.example")
	o := queue.Outcome{Result: queue.Defer, HopWaits: true, Status: queue.Status{Code: "4.4.1", Text: "no server answers", Reason: queue.ReasonConnectTimeout}}
	f.settle(f.claim("b.example"), o)
	if l := f.claim("b.example"); l.Rcpts[0].State != queue.Deferred || l.Rcpts[0].Attempts != 1 {
		f.Errorf("%+v", l.Rcpts[0])
	}
}

func earliestFirst(f *fixture) {
	first := f.put("b1@b.example")
	time.Sleep(time.Second)
	second := f.put("b2@b.example")
	l := f.claim("b.example")
	if l.Envelope.ID != first {
		f.Fatal("the second came first")
	}
	f.settle(l, greylist)
	if l := f.claim("b.example"); l.Envelope.ID != second {
		f.Fatal("the second did not come next")
	}
}

// manyQueued has far more messages in one hop than an engine should keep in
// memory, with due times in another order than their arrival.
func manyQueued(f *fixture) {
	const n = 400
	chance := rand.New(rand.NewPCG(1, 2))
	f.cfg.Chance = func() float64 { return chance.Float64() }
	f.reopen()
	for i := range n {
		f.put(fmt.Sprintf("b%d@b.example", i))
	}
	if hops, err := f.s.Hops(ctx); err != nil || hops[0].Waiting != n {
		f.Fatalf("%+v, %v", hops, err)
	}
	drain := func(o queue.Outcome, want int) {
		f.Helper()
		var last time.Time
		for i := range want {
			l := f.claim("b.example")
			if due := l.Rcpts[0].Next; due.Before(last) {
				f.Fatalf("lease %d is due at %v, after one of %v", i, due, last)
			} else {
				last = due
			}
			switch {
			case i%50 == 7: // give it back and take it again
				if _, err := f.s.Settle(ctx, l, nil, nil); err != nil {
					f.Fatal(err)
				}
				l = f.claim("b.example")
				fallthrough
			default:
				f.settle(l, o)
			}
		}
		f.none("b.example")
	}
	drain(greylist, n)
	time.Sleep(2 * time.Minute)
	f.put("new@b.example")
	drain(greylist, n+1)
	f.reopen()
	time.Sleep(10 * time.Minute)
	drain(sent, n+1)
	f.empty()
}

func retryNow(f *fixture) {
	id := f.put("b@b.example", "c@c.example", "d@d.example")
	f.settle(f.claim("b.example"), greylist)
	leased := f.claim("c.example")
	f.settle(f.claim("d.example"), sent)
	if a := f.act(queue.Action{Verb: queue.VerbRetry}, id); a.Messages != 1 || a.Recipients != 1 || len(a.Leased) != 1 || len(a.Effects.Transitions) != 0 {
		f.Errorf("%+v", a)
	}
	l := f.claim("b.example")
	if !l.Rcpts[0].Next.Equal(time.Now()) || l.Rcpts[0].State != queue.Deferred {
		f.Errorf("%+v", l.Rcpts[0])
	}
	f.none("c.example")
	f.none("d.example")
	f.settle(l, sent)
	f.settle(leased, sent)
	f.empty()
	if a := f.act(queue.Action{Verb: queue.VerbRetry}, id, "nonsense"); len(a.Missing) != 2 {
		f.Errorf("%+v", a)
	}
}

func watch(f *fixture) {
	f.put("b@b.example")
	type event struct {
		hop string
		due time.Time
	}
	var events []event
	f.s.Watch(func(hop string, _ queue.Lane, due time.Time) { events = append(events, event{hop, due}) })
	want := func(hop string, due time.Time) {
		f.Helper()
		if len(events) != 1 || events[0].hop != hop || !events[0].due.Equal(due) {
			f.Errorf("the watcher heard %v; want %s at %v", events, hop, due)
		}
		events = nil
	}
	start := time.Now()
	want("b.example", start)
	f.put("c@c.example")
	want("c.example", start)
	l := f.claim("b.example")
	f.settle(l, greylist)
	want("b.example", start.Add(time.Minute))
	l = f.claim("c.example")
	if _, err := f.s.Settle(ctx, l, nil, nil); err != nil {
		f.Fatal(err)
	}
	want("c.example", start)
	f.settle(f.claim("c.example"), refused) // its report
	want("a.example", start)
}

func hopsAndParks(f *fixture) {
	f.put("b@b.example")
	f.put("c@c.example")
	why := queue.Status{Code: "4.4.1", Text: "no server answers"}
	until := time.Now().Add(time.Hour)
	if err := f.s.Park(ctx, "b.example", until, why); err != nil {
		f.Fatal(err)
	}
	f.claim("b.example") // parks are the scheduler's business
	hops, err := f.s.Hops(ctx)
	if err != nil || len(hops) != 2 {
		f.Fatalf("%+v, %v", hops, err)
	}
	if h := hops[0]; h.Hop != "b.example" || h.Waiting != 1 || !h.Due.Equal(time.Now()) || !h.Parked.Equal(until) || h.Status != why {
		f.Errorf("%+v", h)
	}
	if h := hops[1]; h.Hop != "c.example" || !h.Parked.IsZero() || h.Status != (queue.Status{}) {
		f.Errorf("%+v", h)
	}
	if err := f.s.Park(ctx, "b.example", time.Time{}, queue.Status{}); err != nil {
		f.Fatal(err)
	}
	if hops, _ := f.s.Hops(ctx); !hops[0].Parked.IsZero() {
		f.Errorf("still parked: %+v", hops[0])
	}
}
