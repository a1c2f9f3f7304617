package delivery

import (
	"container/heap"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"srvrelay/delivery/plan"
)

// The lookout asks the DNS about parked hops as the answers end that their last
// plan rests on: a server that has moved is found when its old record ends, and
// not at the next probe of its old address.

// minLook is the least time between two looks at a hop, whatever the TTLs.
const minLook = 3 * time.Second

// lookSlack is how long a look waits for the answers that end just after the
// first: those of one plan came within moments of each other.
const lookSlack = 250 * time.Millisecond

// Bounds of the looks at strangers' hops, and again as many at those of homes.
// When more are due than that, those whose answers ended first come first; a hop
// that has no turn before its probe is planned anew by the probe.
const (
	lookPause  = 20 * time.Millisecond // between the beginnings of two
	maxLooking = 8                     // under way at once
)

// sight is what a plan names to connect to, whatever the order.
type sight struct {
	named []plan.Endpoint
	ends  time.Time // of the first of the DNS answers; zero = it rests on none
}

// sightOf reads a plan that was made now. Failed look-ups have no end.
func sightOf(p *plan.Plan, now time.Time) (s sight) {
	for _, t := range p.Targets {
		s.named = append(s.named, t.Endpoints()...)
	}
	for _, a := range p.Answers {
		if end := now.Add(a.TTL); a.TTL > 0 && (s.ends.IsZero() || end.Before(s.ends)) {
			s.ends = end
		}
	}
	return s
}

// look is one that is to be made, or is under way.
type look struct {
	hop   *hop
	home  bool
	named []plan.Endpoint // when the hop was parked
	at    time.Time
	index int // in the heap, -1 = under way
}

// lookout is the looks of one kind, by time.
type lookout struct {
	looks []*look
	kick  chan struct{} // the first one is another
}

func newLookout() *lookout { return &lookout{kick: make(chan struct{}, 1)} }

// lookLater has a look made at a hop that was just parked when the answers end,
// if that is before its probe. The caller holds d.mu.
func (d *Deliverer) lookLater(h *hop, s sight, home bool) {
	d.stopLooking(h)
	at := s.ends.Add(lookSlack)
	if soon := time.Now().Add(minLook); at.Before(soon) {
		at = soon
	}
	if s.ends.IsZero() || !at.Before(h.parked) {
		return
	}
	h.look = &look{hop: h, home: home, named: s.named, at: at}
	q := d.lookout(home)
	heap.Push(q, h.look)
	if h.look.index == 0 {
		q.nudge()
	}
}

// lookout is the one for a kind of hop: strangers' slow DNS servers, and their
// number, hold up no home.
func (d *Deliverer) lookout(home bool) *lookout {
	if home {
		return d.homes
	}
	return d.others
}

// stopLooking ends the looks at a hop. The caller holds d.mu.
func (d *Deliverer) stopLooking(h *hop) {
	if l := h.look; l != nil && l.index >= 0 {
		heap.Remove(d.lookout(l.home), l.index)
	}
	h.look = nil
}

// lookOut makes the looks of one kind, until ctx is done.
func (d *Deliverer) lookOut(ctx context.Context, q *lookout) {
	timer, room := time.NewTimer(0), make(chan struct{}, maxLooking)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.kick:
		case <-timer.C:
		}
		l, wait := d.nextLook(q)
		if l != nil {
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return
			}
			d.wg.Go(func() {
				defer func() { <-room }()
				d.lookAt(ctx, l)
			})
		}
		timer.Reset(wait)
	}
}

// nextLook takes the look out that is due, nil: none is; and says how long to
// wait before the next.
func (d *Deliverer) nextLook(q *lookout) (*look, time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for len(q.looks) > 0 {
		l := q.looks[0]
		if l.at.After(now) {
			return nil, l.at.Sub(now)
		}
		heap.Pop(q)
		if now.Before(l.hop.parked) {
			return l, lookPause
		}
		l.hop.look = nil // its probe is due
	}
	return nil, time.Hour
}

// lookAt asks for a hop's plan anew, and has the hop tried at once when that
// names what was not tried before it was parked.
func (d *Deliverer) lookAt(ctx context.Context, l *look) {
	defer func() { // as in walk.attempt
		if p := recover(); p != nil {
			d.cfg.Events.Trouble(Trouble{Hop: l.hop.name, What: "internal error in a look-up", Err: fmt.Errorf("%v\n%s", p, debug.Stack())})
		}
	}()
	p := d.cfg.Planner.Plan(ctx, l.hop.name)
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	s := sightOf(&p, now)
	d.mu.Lock()
	if l.hop.look != l { // somebody was quicker
		d.mu.Unlock()
		return
	}
	i := slices.IndexFunc(s.named, func(ep plan.Endpoint) bool {
		return !slices.Contains(l.named, ep) && (l.home || d.health.mayTry(ep, now))
	})
	if i < 0 {
		d.lookLater(l.hop, sight{l.named, s.ends}, l.home)
		d.mu.Unlock()
		return
	}
	// An address where a home was not found lately may be its own again.
	d.unpark(l.hop, l.home)
	d.mu.Unlock()
	d.announce(HopEvent{Hop: l.hop.name, Moved: s.named[i].String()})
}

// wakeParked has hops tried now that are parked because of a target that has
// greeted somebody.
func (d *Deliverer) wakeParked(names []string) {
	for _, name := range names {
		d.mu.Lock()
		h := d.hops[name]
		waits := h != nil && time.Now().Before(h.parked)
		if waits {
			d.unpark(h, false)
		}
		d.mu.Unlock()
		if waits {
			d.announce(HopEvent{Hop: name, again: true})
		}
	}
}

// unpark ends a park without an attempt; forced: targets that are down are
// looked at before their time. The caller holds d.mu, and tells the queue.
func (d *Deliverer) unpark(h *hop, forced bool) {
	d.stopLooking(h)
	h.parked = time.Time{}
	h.forced = h.forced || forced
	h.wishes++
	h.ready |= h.later
	d.enqueue(h)
	d.start()
}

// The heap of looks, by time.

func (q *lookout) Len() int           { return len(q.looks) }
func (q *lookout) Less(i, j int) bool { return q.looks[i].at.Before(q.looks[j].at) }
func (q *lookout) Swap(i, j int) {
	q.looks[i], q.looks[j] = q.looks[j], q.looks[i]
	q.looks[i].index, q.looks[j].index = i, j
}

func (q *lookout) Push(x any) {
	l := x.(*look)
	l.index = len(q.looks)
	q.looks = append(q.looks, l)
}

func (q *lookout) Pop() any {
	l := q.looks[len(q.looks)-1]
	l.index = -1
	q.looks[len(q.looks)-1] = nil
	q.looks = q.looks[:len(q.looks)-1]
	return l
}

func (q *lookout) nudge() {
	select {
	case q.kick <- struct{}{}:
	default:
	}
}
