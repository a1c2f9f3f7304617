package queuetest

import (
	"strings"
	"time"

	"srvrelay/queue"
)

// holdCases: what is kept back, by a route or by a person.
var holdCases = []testCase{
	{"what a route holds waits for nothing", routeHolds},
	{"new routes offer again what a route held", routeHoldEnds},
	{"so does a restart with new routes", routeHoldEndsAtOpen},
	{"a person holds and releases", personHolds},
	{"a person's hold outlasts new routes", personHoldStays},
	{"a released recipient is tried for a day at least", releaseGrace},
	{"release passes over the route that held", releasePassesRoute},
	{"what is put on hold from the beginning waits for its release", heldFromTheBeginning},
	{"fail tells the sender, delete does not", failAndDelete},
	{"an attempt under way is left alone", actsAroundLeases},
	{"what is retried first goes before all others", retryFirst},
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
	if at, ok := f.next("hold"); ok {
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

// only picks one recipient of a message.
func only(addr string) func(*queue.Envelope, *queue.Recipient) bool {
	return func(_ *queue.Envelope, r *queue.Recipient) bool { return r.Address == addr }
}

func personHolds(f *fixture) {
	id := f.put("b@b.example", "b2@b.example", "c@c.example")
	f.settle(f.claim("b.example"), greylist)
	a := f.act(queue.Action{Verb: queue.VerbHold, Pick: only("b@b.example")}, id)
	if a.Messages != 1 || a.Recipients != 1 || len(a.Effects.Transitions) != 1 || len(a.Hops) != 0 {
		f.Errorf("%+v", a)
	}
	if tr := a.Effects.Transitions[0]; tr.From != queue.Deferred || tr.Rcpt.State != queue.Held || tr.Rcpt.Last != greylist.Status || tr.Hop != "b.example" {
		f.Errorf("%+v", tr)
	}
	if a := f.act(queue.Action{Verb: queue.VerbHold, Pick: only("b@b.example")}, id); a.Messages != 0 {
		f.Errorf("held twice: %+v", a)
	}
	time.Sleep(time.Minute)
	if l := f.claim("b.example"); len(l.Rcpts) != 1 || l.Rcpts[0].Address != "b2@b.example" {
		f.Errorf("%+v", l.Rcpts)
	} else {
		f.settle(l, sent)
	}
	f.settle(f.claim("c.example"), sent)
	f.reopen()
	if a := f.act(queue.Action{Verb: queue.VerbRetry}, id); a.Messages != 0 {
		f.Errorf("a held recipient is retried: %+v", a)
	}
	time.Sleep(48 * time.Hour)
	if fx := f.sweep(); len(fx.Transitions)+len(fx.Reports) > 0 {
		f.Errorf("%+v", fx)
	}
	a = f.act(queue.Action{Verb: queue.VerbRelease}, id)
	if a.Recipients != 1 || len(a.Hops) != 1 || a.Hops[0] != "b.example" {
		f.Errorf("%+v", a)
	}
	if r := a.Effects.Transitions[0].Rcpt; r.State != queue.Queued || !r.Released.Equal(time.Now()) || r.Last != greylist.Status {
		f.Errorf("%+v", r)
	}
	f.settle(f.claim("b.example"), sent)
	f.empty()
}

func personHoldStays(f *fixture) {
	f.routes = "b.example=hold"
	f.reopen()
	id := f.put("b@b.example")
	f.settle(f.claim("hold"), held)
	f.routes = "b.example=smarthost"
	f.reroute()
	f.act(queue.Action{Verb: queue.VerbHold}, id) // before the smarthost was asked
	f.routes = ""
	f.reroute()
	f.reopen()
	f.none("b.example")
	if r := f.get(id).Recipients[0]; r.State != queue.Held {
		f.Errorf("%+v", r)
	}
}

func releaseGrace(f *fixture) {
	id := f.put("b@b.example")
	f.act(queue.Action{Verb: queue.VerbHold}, id)
	time.Sleep(10 * time.Hour) // five times what it would have had
	f.act(queue.Action{Verb: queue.VerbRelease}, id)
	f.noReport(f.sweep())
	for range 3 {
		if fx := f.settle(f.claim("b.example"), greylist); fx.Transitions[0].Rcpt.State != queue.Deferred {
			f.Fatalf("%+v", fx.Transitions)
		}
		time.Sleep(10 * time.Minute)
	}
	f.oneReport(f.sweep(), queue.ReportDelayed, "alice@a.example") // late since its release
	if err := f.s.Park(ctx, "b.example", time.Now().Add(90*time.Hour), queue.Status{}); err != nil {
		f.Fatal(err)
	}
	time.Sleep(23*time.Hour + 29*time.Minute)
	f.act(queue.Action{Verb: queue.VerbRetry}, id)
	for _, tr := range f.sweep().Transitions {
		if tr.ID == id {
			f.Errorf("early: %+v", tr)
		}
	}
	time.Sleep(time.Minute)
	expired := false
	for _, tr := range f.sweep().Transitions {
		expired = expired || tr.ID == id && tr.Rcpt.State == queue.Expired
	}
	if !expired {
		f.Error("it never expires")
	}
}

func releasePassesRoute(f *fixture) {
	f.routes = "b.example=hold *=smarthost"
	f.reopen()
	id := f.put("b@b.example")
	f.settle(f.claim("hold"), held)
	if a := f.act(queue.Action{Verb: queue.VerbRelease}, id); a.Recipients != 1 || a.Hops[0] != "smarthost" {
		f.Errorf("%+v", a)
	}
	f.settle(f.claim("smarthost"), greylist)
	f.routes = "b.example=hold *=other"
	f.reroute()
	time.Sleep(time.Minute)
	f.settle(f.claim("other"), sent)
	f.empty()
}

func failAndDelete(f *fixture) {
	id := f.put("b@b.example", "b2@b.example", "c@c.example", "d@d.example")
	f.settle(f.claim("b.example"), greylist)
	f.act(queue.Action{Verb: queue.VerbHold, Pick: only("c@c.example")}, id)
	gone := f.act(queue.Action{Verb: queue.VerbDelete, Pick: only("b2@b.example")}, id)
	f.noReport(gone.Effects)
	f.settle(f.claim("d.example"), sent)
	a := f.act(queue.Action{Verb: queue.VerbFail, Text: "the project has ended"}, id)
	if a.Recipients != 2 || len(a.Effects.Removed) != 1 {
		f.Errorf("%+v", a)
	}
	for _, tr := range a.Effects.Transitions {
		if tr.Rcpt.State != queue.Failed || tr.Rcpt.Last.Reason != queue.ReasonOperatorFailed || tr.Rcpt.Last.Code != "5.7.0" {
			f.Errorf("%+v", tr)
		}
	}
	_, report := f.oneReport(a.Effects, queue.ReportFailed, "alice@a.example")
	f.names(report, []string{"b@b.example", "c@c.example"}, []string{"b2@b.example", "d@d.example"})
	if !strings.Contains(report, "the project has ended") || !strings.Contains(report, "Status: 5.7.0\r\n") {
		f.Error(report)
	}
	f.none("b.example")
	f.settle(f.claim("a.example"), sent)
	f.empty()
}

func actsAroundLeases(f *fixture) {
	id := f.put("b@b.example", "c@c.example")
	other := f.put("b@b.example")
	l := f.claim("b.example")
	for _, verb := range []queue.Verb{queue.VerbRetry, queue.VerbHold, queue.VerbFail} {
		a := f.act(queue.Action{Verb: verb, Pick: only("b@b.example")}, id)
		if a.Messages != 0 || len(a.Leased) != 1 || a.Leased[0] != id {
			f.Errorf("%s: %+v", verb, a)
		}
	}
	if a := f.act(queue.Action{Verb: queue.VerbRelease}, id); len(a.Leased) != 0 {
		f.Errorf("a lease is in the way of nothing: %+v", a)
	}
	if a := f.act(queue.Action{Verb: queue.VerbHold}, id, "01ARZ3NDEKTSV4RRFFQ69G5FAV", other); a.Messages != 2 || a.Recipients != 2 || len(a.Leased) != 1 || len(a.Missing) != 1 {
		f.Errorf("%+v", a)
	}
	f.none("c.example")
	f.settle(l, sent)
	f.none("b.example")
}

func retryFirst(f *fixture) {
	f.put("b1@b.example")
	f.put("b2@b.example")
	last := f.put("b3@b.example", "c@c.example")
	time.Sleep(time.Hour) // all of them are long due, in a parked hop
	f.act(queue.Action{Verb: queue.VerbRetry, First: true}, last)
	if l := f.claim("b.example"); l.Envelope.ID != last {
		f.Error("another one goes first")
	} else {
		f.settle(l, greylist)
	}
	time.Sleep(30 * time.Second)
	f.act(queue.Action{Verb: queue.VerbRetry}, last) // not first: behind the others
	if l := f.claim("b.example"); l.Envelope.ID == last {
		f.Error("it goes first")
	}
}

func heldFromTheBeginning(f *fixture) {
	why := queue.Status{Code: "4.7.0", Text: "odd", Reason: queue.ReasonAnomalyHold}
	env := &queue.Envelope{Sender: "alice@a.example", Mode: queue.Submission, Client: queue.Client{User: "alice"}, Hold: why,
		To: []queue.Recipient{{Address: "b@b.example", Domain: "b.example"}, {Address: "c@c.example", Domain: "c.example"}}}
	id, err := f.s.Put(ctx, env, strings.NewReader("Subject: x\r\n\r\ny\r\n"))
	if err != nil {
		f.Fatal(err)
	}
	for range 2 {
		f.none("b.example")
		if at, ok := f.next("b.example"); ok {
			f.Errorf("its hop has something due at %v", at)
		}
		for _, r := range f.get(id).Recipients {
			if r.State != queue.Held || r.Last != why || !r.Next.IsZero() || r.Attempts != 0 {
				f.Errorf("%+v", r)
			}
		}
		time.Sleep(48 * time.Hour)
		if fx := f.sweep(); len(fx.Transitions)+len(fx.Reports) > 0 {
			f.Errorf("it expires or is late: %+v", fx)
		}
		f.routes = "c.example=smarthost"
		f.reroute() // does not let it go
		f.reopen()
	}
	a := f.act(queue.Action{Verb: queue.VerbRelease}, id)
	if tr := a.Effects.Transitions; len(tr) != 2 || len(a.Hops) != 2 || tr[0].Client.User != "alice" || tr[0].Mode != queue.Submission || tr[0].Rcpt.Last != (queue.Status{}) {
		f.Errorf("%+v", a)
	}
	f.settle(f.claim("b.example"), sent)
	f.settle(f.claim("smarthost"), sent)
	f.empty()
}
