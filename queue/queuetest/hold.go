package queuetest

import (
	"time"

	"srvrelay/queue"
)

// holdCases: what is kept back, by a route or by a person.
var holdCases = []testCase{
	{"what a route holds waits for nothing", routeHolds},
	{"new routes offer again what a route held", routeHoldEnds},
	{"so does a restart with new routes", routeHoldEndsAtOpen},
}

var held = queue.Outcome{Result: queue.Hold, Status: queue.Status{Code: "4.7.0", Text: "held by a route", Reason: queue.ReasonRouteHold}}

func routeHolds(f *fixture) {
	f.routes = "b.example=hold"
	f.reopen()
	id := f.put("b@b.example", "c@c.example")
	fx := f.settle(f.claim("hold"), held)
	if tr := fx.Transitions[0]; tr.From != queue.Queued || tr.Rcpt.State != queue.Held || tr.Rcpt.Attempts != 0 || tr.Rcpt.Last != held.Status || !tr.Rcpt.Next.IsZero() {
		f.Errorf("%+v", tr)
	}
	f.none("hold")
	if at, ok := f.s.Next("hold"); ok {
		f.Errorf("its hop has something due at %v", at)
	}
	f.settle(f.claim("c.example"), refused)
	f.settle(f.claim("a.example"), sent) // its report
	time.Sleep(24 * time.Hour)
	if fx := f.sweep(); len(fx.Transitions)+len(fx.Reports) > 0 {
		f.Errorf("a held recipient expires or is late: %+v", fx)
	}
	f.reopen()
	f.none("hold")
	if r := f.get(id).Recipients[0]; r.State != queue.Held {
		f.Errorf("%+v", r)
	}
}

func routeHoldEnds(f *fixture) {
	f.routes = "b.example=hold"
	f.reopen()
	id := f.put("b@b.example", "b2@b.example")
	f.settle(f.claim("hold"), held)
	time.Sleep(time.Hour)
	f.routes = "b.example=hold c.example=c.example"
	f.reroute() // they are asked again, and say the same
	f.settle(f.claim("hold"), held)
	f.routes = "b.example=smarthost"
	f.reroute()
	l := f.claim("smarthost")
	if r := l.Rcpts[0]; len(l.Rcpts) != 2 || r.State != queue.Queued || !r.Next.Equal(time.Now()) || r.Last != (queue.Status{}) || !r.Released.IsZero() {
		f.Errorf("%+v", l.Rcpts)
	}
	f.settle(l, greylist)
	if r := f.get(id).Recipients[0]; r.State != queue.Deferred {
		f.Errorf("%+v", r)
	}
}

func routeHoldEndsAtOpen(f *fixture) {
	f.routes = "b.example=hold"
	f.reopen()
	f.put("b@b.example")
	f.settle(f.claim("hold"), held)
	f.routes = ""
	f.reopen()
	f.settle(f.claim("b.example"), sent)
	f.empty()
}
