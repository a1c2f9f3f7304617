package queuetest

import (
	"fmt"
	"strings"
	"time"

	"srvrelay/queue"
)

// laneCases: mail of a hop that must not wait for other mail of the hop.
var laneCases = []testCase{
	{"a sender's list is in another lane than another's message", listBesideSingle},
	{"a large message is in a lane for large ones", largeLane},
	{"a claim is for the lanes that it names, the earliest first", claimByLane},
	{"a lease says what is beside it", leaseTellsTheRest},
	{"a message keeps its lane over retries, a restart and a reroute", lanesSurvive},
	{"a lane of very many loses none", longLane},
}

const list = 150 // messages, far more than a light sender's

// putList stores the messages of a list for a hop.
func (f *fixture) putList(hop string, n int) {
	f.Helper()
	for i := range n {
		f.putEnv(&queue.Envelope{Sender: "list@a.example", Mode: queue.Submission, To: to(fmt.Sprintf("u%d@%s", i, hop))}, text)
	}
}

// claimIn wants a lease from the lanes.
func (f *fixture) claimIn(hop string, lanes queue.Lanes) *queue.Lease {
	f.Helper()
	l, err := f.s.Claim(ctx, hop, lanes)
	if err != nil || l == nil {
		f.Fatalf("claim %s in %b: %v, %v; want a lease", hop, lanes, l, err)
	}
	if !lanes.Has(l.Lane) {
		f.Errorf("a lease of lane %d, of %b", l.Lane, lanes)
	}
	return l
}

func listBesideSingle(f *fixture) {
	f.putList("b.example", list)
	time.Sleep(time.Second)
	f.put("single@b.example")
	light := 0
	for l, _ := f.s.Claim(ctx, "b.example", queue.LightLane); l != nil; l, _ = f.s.Claim(ctx, "b.example", queue.LightLane) {
		light++
		if l.Rcpts[0].Address == "single@b.example" {
			break
		}
	}
	if light > 50 {
		f.Errorf("the single message came after %d of the list", light)
	}
	w := f.s.Next("b.example")
	if w.Due == 0 || w.Due.Has(queue.Light) || w.Due&queue.LargeLanes != 0 || w.Due&(w.Due-1) != 0 {
		f.Errorf("what is left is in the lanes %b; want one, for bulk", w.Due)
	}
}

func largeLane(f *fixture) {
	f.putEnv(&queue.Envelope{Sender: "alice@a.example", To: to("b@b.example")}, strings.Repeat("x", queue.LargeSize+1))
	f.put("c@b.example")
	if w := f.s.Next("b.example"); w.Due != queue.LightLane|queue.LargeLight.Set() {
		f.Errorf("lanes %b", w.Due)
	}
	if l := f.claimIn("b.example", queue.LargeLanes); l.Rcpts[0].Address != "b@b.example" || !l.Lane.Large() {
		f.Errorf("claimed %+v from lane %d", l.Rcpts, l.Lane)
	}
	if l, err := f.s.Claim(ctx, "b.example", queue.LargeLanes); l != nil || err != nil {
		f.Errorf("another large one: %+v, %v", l, err)
	}
}

func claimByLane(f *fixture) {
	f.putList("b.example", list)
	time.Sleep(time.Second)
	single := f.put("b@b.example")
	due := f.s.Next("b.example").Due
	seen, last := 0, time.Time{}
	for l, _ := f.s.Claim(ctx, "b.example", due&^queue.LightLane); l != nil; l, _ = f.s.Claim(ctx, "b.example", due&^queue.LightLane) {
		if l.Lane == queue.Light || l.Envelope.ID == single {
			f.Fatalf("a lease of lane %d", l.Lane)
		}
		if l.Rcpts[0].Next.Before(last) {
			f.Errorf("out of order: %v after %v", l.Rcpts[0].Next, last)
		}
		last = l.Rcpts[0].Next
		seen++
	}
	if seen < list/2 {
		f.Errorf("%d of the list are bulk", seen)
	}
	if l, _ := f.s.Claim(ctx, "b.example", 0); l != nil {
		f.Error("a lease of no lane")
	}
}

func leaseTellsTheRest(f *fixture) {
	now := time.Now()
	f.put("b@b.example")
	if l := f.claim("b.example"); l.Rest != (queue.Waiting{}) {
		f.Errorf("beside the only one: %+v", l.Rest)
	} else {
		f.settle(l, greylist)
	}
	f.putEnv(&queue.Envelope{Sender: "alice@a.example", To: to("large@b.example")}, strings.Repeat("x", queue.LargeSize+1))
	l := f.claimIn("b.example", queue.LargeLanes)
	if retry := now.Add(time.Minute); l.Rest.Due != 0 || l.Rest.Later != queue.LightLane || !l.Rest.Then.Equal(retry) || !l.Rest.First.Equal(retry) {
		f.Errorf("beside it: %+v; want the light lane, in a minute", l.Rest)
	}
	time.Sleep(time.Minute)
	if w := f.s.Next("b.example"); w.Due != queue.LightLane || w.Later != 0 {
		f.Errorf("a minute later: %+v", w)
	}
}

func lanesSurvive(f *fixture) {
	f.putList("b.example", list)
	before := f.s.Next("b.example").Due
	l := f.claimIn("b.example", before&^queue.LightLane)
	lane := l.Lane
	f.settle(l, greylist)
	f.reopen()
	if w := f.s.Next("b.example"); w.Due != before {
		f.Errorf("lanes %b after a restart, %b before", w.Due, before)
	}
	f.routes = "b.example=one"
	f.reroute()
	if w := f.s.Next("one"); w.Due != before {
		f.Errorf("lanes %b after a reroute, %b before", w.Due, before)
	}
	f.routes = "b.example=two"
	f.reopen() // the index is made anew
	if w := f.s.Next("two"); w.Due != before {
		f.Errorf("lanes %b after another, %b before", w.Due, before)
	}
	for l, _ := f.s.Claim(ctx, "two", lane.Set()); l != nil; l, _ = f.s.Claim(ctx, "two", lane.Set()) {
		f.settle(l, sent)
	}
	time.Sleep(time.Minute)
	if w := f.s.Next("two"); !w.Due.Has(lane) {
		f.Errorf("the one that was put off is in the lanes %b, it was in %d", w.Due, lane)
	}
}

func longLane(f *fixture) {
	f.putList("b.example", 3*list)
	f.putList("c.example", 3*list)
	f.reopen()
	for _, hop := range []string{"b.example", "c.example"} {
		n := 0
		for w := f.s.Next(hop); w.Due != 0; w = f.s.Next(hop) {
			f.settle(f.claimIn(hop, w.Due&-w.Due), sent)
			n++
		}
		if n != 3*list {
			f.Errorf("%s: %d of %d", hop, n, 3*list)
		}
	}
	f.empty()
}
