package delivery

import (
	"container/heap"
	"context"
	"time"

	"srvrelay/queue"
)

// firstConcurrency is how many attempts a hop gets before one has succeeded;
// each success adds one, so that neither a restart nor a returning server
// meets a stampede, and a tarpit holds few workers.
const firstConcurrency = 2

// hop is what the scheduler knows of a hop with waiting mail.
type hop struct {
	name   string
	ready  queue.Lanes        // may have something due; an attempt takes its lane out, the claim says what is left
	rings  [parts]queue.Lanes // stands in these lanes' rings; where it does so by a pace of before, it is passed over
	later  queue.Lanes        // to be looked at at the time at
	waits  queue.Lanes        // for a slot of a target
	turns  turns
	pace   workers   // by its newest attempt
	forced bool      // somebody asked: targets that are down are looked at whatever their time
	at     time.Time // heap order
	index  int       // in the heap, -1 = not in it

	active   int       // attempts under way
	large    int       // of these, of large messages
	limit    int       // attempts allowed
	parked   time.Time // until; zero = not parked
	failures int       // in a row, of attempts that reached no server
	wishes   int       // how often Unpark was called
	alarmed  time.Time // when somebody was called last because of it
	wait     *slotWait // nil = waits for no slot
	look     *look     // the next one at what the DNS names; nil = none before the park ends
}

// workers are those that make an attempt of the hop.
func (h *hop) workers(l queue.Lane) workers {
	if l.Large() {
		return slow
	}
	return h.pace
}

// nextLane is the lane that the hop serves, now that it was found in the ring
// of one: large messages are taken by the ring, of the others it is the hop's
// own turn.
func (h *hop) nextLane(ring queue.Lane, open queue.Lanes) (queue.Lane, bool) {
	if ring.Large() {
		return ring, open.Has(ring)
	}
	if open &^= queue.LargeLanes; open == 0 {
		return 0, false
	}
	return h.turns.next(open), true
}

// openLanes are those that the hop has something due in and room for. The
// caller holds d.mu.
func (d *Deliverer) openLanes(h *hop, now time.Time) queue.Lanes {
	allowed := h.allowed()
	open := h.ready &^ h.waits
	if open == 0 || h.active >= allowed || now.Before(h.parked) {
		return 0
	}
	small := open &^ queue.LargeLanes
	if h.large >= max(1, allowed/2) || h.failures > 0 && small != 0 {
		return small // a look whether a hop is back is quicker with a small message
	}
	return open
}

// allowed is the number of attempts that a hop may have now. One attempt at a
// time finds out whether a parked hop is back.
func (h *hop) allowed() int {
	if h.failures > 0 {
		return 1
	}
	return h.limit
}

// attempt makes one attempt for a hop, if it has something due.
func (d *Deliverer) attempt(ctx context.Context, j *job) {
	h := j.hop
	lease, err := d.cfg.Queue.Claim(ctx, h.name, j.lane.Set())
	if lease == nil {
		d.foundNothing(j, err)
		return
	}
	d.noticed(h, lease.Rest)
	w := d.newWalk(lease, j.forced)
	w.hop = h
	outcomes, outcome := w.attempt(ctx)
	j.tried = !outcome.Busy.IsValid()
	// The hop first: if it is parked, its recipients are not due again at once.
	if event := d.learn(j, &outcome); event != nil {
		d.announce(*event)
	}
	w.settle(ctx, outcomes)
}

// foundNothing is the end of a job without something to do.
func (d *Deliverer) foundNothing(j *job, err error) {
	h := j.hop
	if err != nil {
		d.cfg.Events.Trouble(Trouble{Hop: h.name, What: "the queue could not be read", Err: err})
	}
	rest := d.cfg.Queue.Next(h.name)
	d.mu.Lock()
	h.forced = h.forced || j.forced
	if err != nil {
		d.schedule(h, time.Now().Add(time.Second), j.lane.Set())
		rest.Due &^= j.lane.Set()
	}
	d.mu.Unlock()
	d.noticed(h, rest)
}

// noticed enters what a hop has beside what is claimed.
func (d *Deliverer) noticed(h *hop, rest queue.Waiting) {
	if rest.Due|rest.Later == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	h.ready |= rest.Due
	if rest.Later != 0 {
		d.schedule(h, rest.Then, rest.Later)
	}
	d.enqueue(h)
	d.start()
}

// finish ends a job and returns the one that its worker goes on with.
func (d *Deliverer) finish(j *job) *job {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, h := time.Now(), j.hop
	d.crew.end(j)
	h.active--
	if j.lane.Large() {
		h.large--
	} else if j.tried {
		h.pace = slow
		if h.failures == 0 && now.Sub(j.began) < slowAfter {
			h.pace = quick
		}
	}
	d.enqueue(h)
	d.forget(h, now)
	next := d.pick()
	d.start()
	return next
}

// forget drops a hop about which there is nothing to remember. The caller
// holds d.mu.
func (d *Deliverer) forget(h *hop, now time.Time) {
	switch {
	case h.active > 0 || h.ready|h.later != 0 || h.index >= 0 || h.wait != nil:
	case now.Before(h.parked):
		d.schedule(h, h.parked, 0)
	default:
		delete(d.hops, h.name)
		d.callers.forget(h.name)
	}
}

// announce tells the queue, so that it shows why the hop waits, and the log.
func (d *Deliverer) announce(e HopEvent) {
	if err := d.cfg.Queue.Park(context.Background(), e.Hop, e.Until, e.Status); err != nil {
		d.cfg.Events.Trouble(Trouble{Hop: e.Hop, What: "the hop could not be parked", Err: err})
	}
	if !e.again {
		d.cfg.Events.Hop(e)
	}
}

// learn moves a hop by the outcome of an attempt and returns the event that
// it amounts to, if any.
func (d *Deliverer) learn(j *job, o *hopOutcome) *HopEvent {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := j.hop
	switch {
	case o.Greeted:
		if e := d.back(h); e != nil {
			h.ready |= h.later // may have been put off to the end of the park
			return e
		}
		h.parked = time.Time{}
		h.limit = min(h.limit+1, d.set.Load().PerTarget)
	case !o.Wait.IsZero():
		return d.park(j, o)
	}
	if o.Busy.IsValid() && !o.Greeted {
		d.waitForSlot(j, o)
	}
	return nil
}

// park has a hop wait. The caller holds d.mu.
func (d *Deliverer) park(j *job, o *hopOutcome) *HopEvent {
	h := j.hop
	if time.Now().Before(h.parked) {
		return nil // another attempt, begun before, has found out the same
	}
	if h.wishes != j.wishes {
		return nil // what it found out is older than somebody's wish to look again
	}
	// One who has only met the failures of others adds nothing to a park;
	// neither does a look before its time.
	again := h.failures > 0 && !o.News
	if !again && !(h.failures > 0 && o.Forced) {
		h.failures++
	}
	h.limit, h.pace = firstConcurrency, slow
	h.parked = o.Wait
	if h.index >= 0 && h.at.Before(h.parked) {
		h.at = h.parked
		heap.Fix(&d.later, h.index)
	}
	d.schedule(h, h.parked, 0)
	d.lookLater(h, o.Sight, o.Home)
	for _, ep := range o.Sight.named {
		d.health.enlistParked(ep, h.name)
	}
	return &HopEvent{Hop: h.name, Parked: true, Home: o.Home, Until: h.parked, Status: o.Status, Alarm: o.Alarm && h.alarmDue(), again: again}
}

// back ends the wait of a hop of which a server was reached, nil: it did not
// wait. The caller holds d.mu.
func (d *Deliverer) back(h *hop) *HopEvent {
	if h.failures == 0 {
		return nil
	}
	d.stopLooking(h)
	h.failures, h.parked = 0, time.Time{}
	h.limit, h.alarmed = firstConcurrency, time.Time{}
	return &HopEvent{Hop: h.name}
}

// reached is called when a server has greeted: what is handed over then may
// take long, and the rest of a parked hop is not to wait for it.
func (d *Deliverer) reached(h *hop) {
	d.mu.Lock()
	e := d.back(h)
	if e != nil {
		h.ready |= h.later
		d.enqueue(h)
		d.start()
	}
	d.mu.Unlock()
	if e != nil {
		d.announce(*e)
	}
}

// alarmEach is how often somebody is called because of the same hop.
const alarmEach = time.Hour

// alarmDue tells whether it is time to call again. The caller holds d.mu.
func (h *hop) alarmDue() bool {
	due := h.alarmed.IsZero() || time.Since(h.alarmed) >= alarmEach
	if due {
		h.alarmed = time.Now()
	}
	return due
}

// Unpark has a hop tried now: somebody asked for it, or knows that it is back.
func (d *Deliverer) Unpark(ctx context.Context, name string) error {
	d.mu.Lock()
	if h := d.hops[name]; h != nil {
		d.unpark(h, true)
	}
	d.mu.Unlock()
	return d.cfg.Queue.Park(ctx, name, time.Time{}, queue.Status{})
}

// hopFailures is how often in a row the hop could not be reached.
func (d *Deliverer) hopFailures(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h := d.hops[name]; h != nil {
		return h.failures
	}
	return 0
}

// hopHeap orders hops by the time at which they are to be looked at.
type hopHeap []*hop

func (q hopHeap) Len() int           { return len(q) }
func (q hopHeap) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q hopHeap) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *hopHeap) Push(x any) {
	h := x.(*hop)
	h.index = len(*q)
	*q = append(*q, h)
}

func (q *hopHeap) Pop() any {
	old := *q
	h := old[len(old)-1]
	h.index = -1
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return h
}
