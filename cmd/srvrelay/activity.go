package main

import (
	"maps"
	"sync"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/admin"
)

// activity is what the relay did lately, and with which hops it has trouble, for
// `srvrelay status`. It is in memory only: a restart begins anew.
type activity struct {
	mu       sync.Mutex
	started  time.Time
	total    admin.Counts
	minutes  ring
	hours    ring
	troubles map[string]trouble // by hop
	failed   failure            // the newest
	pruned   time.Time          // when troubles were last looked through for old ones
}

// trouble is of a hop to which nothing could be delivered since some time.
type trouble struct {
	since, last time.Time
	status      queue.Status // the newest
}

// failure is a recipient that was given up.
type failure struct {
	at     time.Time
	domain string
	status queue.Status
}

// Strangers' mail makes the entries.
const (
	maxTroubles   = 10_000
	forgetTrouble = 24 * time.Hour // when there is no room
)

func newActivity(now time.Time) *activity {
	return &activity{
		started: now, troubles: map[string]trouble{},
		minutes: ring{step: time.Minute, slots: make([]slot, 60)}, hours: ring{step: time.Hour, slots: make([]slot, 24)},
	}
}

// ring counts by steps of time, the newest of which are kept.
type ring struct {
	step  time.Duration
	slots []slot
}

type slot struct {
	n int64 // the number of the step since 1970
	admin.Counts
}

func (r *ring) add(now time.Time, c admin.Counts) {
	n := now.UnixNano() / int64(r.step)
	s := &r.slots[n%int64(len(r.slots))]
	if s.n != n {
		*s = slot{n: n}
	}
	s.Add(c)
}

// last is the sum of the newest steps, of which the one that now is in is one.
func (r *ring) last(now time.Time, steps int) (sum admin.Counts) {
	n := now.UnixNano() / int64(r.step)
	for _, s := range r.slots {
		if s.n > n-int64(steps) && s.n <= n {
			sum.Add(s.Counts)
		}
	}
	return sum
}

// count enters what was done.
func (a *activity) count(now time.Time, c admin.Counts) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.add(now, c)
}

func (a *activity) add(now time.Time, c admin.Counts) {
	a.total.Add(c)
	a.minutes.add(now, c)
	a.hours.add(now, c)
}

// settled learns from all that changed in the queue. The relay's own reports and
// notices are not counted: nobody has handed them in.
func (a *activity) settled(now time.Time, fx queue.Effects) {
	if len(fx.Transitions) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var c admin.Counts
	var attempt *queue.Attempt
	for i := range fx.Transitions {
		t := &fx.Transitions[i]
		byHand := t.Rcpt.State == queue.Failed && (t.Rcpt.Last.Reason == queue.ReasonOperatorFailed || t.Rcpt.Last.Reason == queue.ReasonOperatorDeleted)
		if t.Mode == queue.Internal || byHand { // somebody knows of that
			continue
		}
		switch t.Rcpt.State {
		case queue.Delivered:
			c.Delivered++
			delete(a.troubles, t.Hop)
		case queue.Deferred:
			c.Deferred++
			if t.Attempt != nil && t.Attempt != attempt { // its recipients follow each other
				attempt = t.Attempt
				c.PutOff++
			}
			a.trouble(t.Hop, t.Rcpt.Last, now)
		case queue.Failed, queue.Expired:
			c.Failed++
			a.failed = failure{now, t.Rcpt.Domain, t.Rcpt.Last}
			if t.Rcpt.State == queue.Failed && t.Attempt != nil { // its server has answered
				delete(a.troubles, t.Hop)
			}
		}
	}
	a.add(now, c)
}

// over forgets the trouble with hops for which nothing waits any more.
func (a *activity) over(hops []queue.HopInfo) {
	wait := make(map[string]bool, len(hops))
	for _, h := range hops {
		wait[h.Hop] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for hop := range a.troubles {
		if !wait[hop] {
			delete(a.troubles, hop)
		}
	}
}

func (a *activity) trouble(hop string, st queue.Status, now time.Time) {
	t, known := a.troubles[hop]
	if !known {
		if len(a.troubles) >= maxTroubles && now.Sub(a.pruned) >= time.Minute { // it looks at all of them
			a.pruned = now
			for h, old := range a.troubles {
				if now.Sub(old.last) > forgetTrouble {
					delete(a.troubles, h)
				}
			}
		}
		if len(a.troubles) >= maxTroubles {
			return
		}
		t.since = now
	}
	t.last, t.status = now, st
	a.troubles[hop] = t
}

// counts sums up.
func (a *activity) counts(now time.Time) admin.Activity {
	a.mu.Lock()
	defer a.mu.Unlock()
	return admin.Activity{
		FiveMinutes: a.minutes.last(now, 5), QuarterHour: a.minutes.last(now, 15), Hour: a.minutes.last(now, 60),
		Day: a.hours.last(now, 24), SinceStart: a.total,
	}
}

// since tells for each hop that nothing could be delivered to since when, and why.
func (a *activity) since() map[string]trouble {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.troubles)
}

// newestFailure is the last recipient that was given up within the last hour.
func (a *activity) newestFailure(now time.Time) (f failure, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failed, now.Sub(a.failed.at) < time.Hour
}
