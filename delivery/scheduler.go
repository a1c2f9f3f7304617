package delivery

import (
	"container/heap"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"srvrelay/queue"
)

// Deliverer is the delivery worker: it claims what is due, hop by hop and lane
// by lane, and makes attempts. Make one with New; Run does the work.
type Deliverer struct {
	cfg     Config // but for the settings, which are in set
	set     atomic.Pointer[Settings]
	health  *health
	pool    *pool
	callers *callers
	budget  *budget
	memory  *Memory

	mu      sync.Mutex
	hops    map[string]*hop
	later   hopHeap         // to be looked at some time
	ready   [parts]rings    // have something due and room for it; by workers
	turn    workers         // who was served last
	crew    crew            // attempts under way
	work    context.Context // of attempts; nil: none is started, Run has not begun or is about to end
	stopped bool            // Run has been told to stop: nothing is asked any more
	ageing  bool            // somebody waits for the oldest attempts to count as slow: dispatch looks
	kick    chan struct{}   // something is to be looked at sooner
	wg      sync.WaitGroup
	asking  context.Context // of all questions, see callforward.go
	hush    context.CancelFunc
	homes   *lookout // looks at parked hops that mail is carried home by
	others  *lookout // and at all others
}

// New makes a Deliverer; memory is what the planner asks about the past.
func New(cfg Config, memory *Memory) *Deliverer {
	cfg = cfg.withDefaults()
	asking, hush := context.WithCancel(context.Background())
	d := &Deliverer{
		cfg: cfg, memory: memory,
		health: newHealth(cfg.Retry, cfg.PerTarget), pool: newPool(), callers: newCallers(), budget: newBudget(),
		hops: map[string]*hop{}, crew: crew{size: cfg.Concurrency}, kick: make(chan struct{}, 1),
		asking: asking, hush: hush, homes: newLookout(), others: newLookout(),
	}
	d.set.Store(&cfg.Settings)
	return d
}

// Reconfigure changes the settings. Attempts under way go on; what they do
// next is by the new ones.
func (d *Deliverer) Reconfigure(s Settings) {
	s = s.withDefaults()
	d.set.Store(&s)
	d.health.reconfigure(s.Retry, s.PerTarget)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.crew.size = s.Concurrency
	d.start()
}

// Run delivers until ctx is done; then it starts nothing new, gives attempts
// in flight Config.Grace to finish, and returns when all leases are back.
func (d *Deliverer) Run(ctx context.Context) {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	d.admit(work)
	d.cfg.Queue.Watch(d.newlyDue)
	var house sync.WaitGroup
	house.Go(func() { d.sweepQueue(ctx) })
	house.Go(func() { d.sweepMemory(ctx) })
	house.Go(func() { d.lookOut(ctx, d.homes) })
	house.Go(func() { d.lookOut(ctx, d.others) })
	d.dispatch(ctx)
	d.halt()
	house.Wait()
	d.stopAsking()
	grace := time.AfterFunc(d.cfg.Grace, stop)
	d.wg.Wait()
	grace.Stop()
	d.closeAll(append(d.pool.expired(time.Now().Add(time.Hour)), d.callers.expired(time.Now(), true)...))
}

// admit lets attempts begin, in the context.
func (d *Deliverer) admit(work context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.work = work
}

// halt lets none begin any more.
func (d *Deliverer) halt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.work = nil
}

// newlyDue is the queue's word that a lane of a hop has something due at a time.
func (d *Deliverer) newlyDue(name string, lane queue.Lane, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hops[name]
	if h == nil {
		h = &hop{name: name, index: -1, limit: firstConcurrency}
		d.hops[name] = h
	}
	if at.After(time.Now()) {
		d.schedule(h, at, lane.Set())
		return
	}
	h.ready |= lane.Set()
	if lane == queue.Light && h.wait != nil {
		d.health.enlist(h.wait.ep, h.name, lightLine)
	}
	d.enqueue(h)
	d.start()
}

// schedule has lanes of a hop looked at no later than the given time, but not
// before the hop's park ends. The caller holds d.mu.
func (d *Deliverer) schedule(h *hop, at time.Time, lanes queue.Lanes) {
	h.later |= lanes
	if at.Before(h.parked) {
		at = h.parked
	}
	switch {
	case h.index < 0:
		h.at = at
		heap.Push(&d.later, h)
	case at.Before(h.at):
		h.at = at
		heap.Fix(&d.later, h.index)
	}
	if h.index == 0 {
		d.nudge()
	}
}

func (d *Deliverer) nudge() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// dispatch has a look at what falls due, until ctx is done.
func (d *Deliverer) dispatch(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.kick:
		case <-timer.C:
		}
		timer.Reset(d.look(time.Now()))
	}
}

// look starts what has fallen due, and returns the time until the next look.
func (d *Deliverer) look(now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.later) > 0 && !d.later[0].at.After(now) {
		h := heap.Pop(&d.later).(*hop)
		h.ready |= h.later
		h.later = 0
		d.enqueue(h)
		d.forget(h, now)
	}
	d.start()
	wait := time.Hour
	if len(d.later) > 0 {
		wait = d.later[0].at.Sub(now)
	}
	if d.ageing = d.waitsForAge(); d.ageing {
		wait = min(wait, d.crew.ages(now))
	}
	return wait
}

// enqueue lines a hop up for the lanes that it could make an attempt for. The
// caller holds d.mu.
func (d *Deliverer) enqueue(h *hop) {
	open := d.openLanes(h, time.Now())
	for l := queue.Light; open != 0; l, open = l+1, open>>1 {
		of := h.workers(l)
		if open.Has(0) && !h.rings[of].Has(l) {
			h.rings[of] |= l.Set()
			d.ready[of].push(l, h)
		}
	}
}

// start gives workers to the hops that wait for one. The caller holds d.mu.
func (d *Deliverer) start() {
	work := d.work
	for j := d.pick(); j != nil; j = d.pick() {
		d.wg.Go(func() { d.run(work, j) })
	}
	if d.waitsForAge() && !d.ageing {
		d.ageing = true
		d.nudge()
	}
}

// waitsForAge tells whether somebody could begin if the oldest attempts counted
// as slow.
func (d *Deliverer) waitsForAge() bool { return d.ready[fresh].some|d.ready[quick].some != 0 }

// pick begins the attempt whose turn it is; nil: nothing is due, or there is
// no room. The caller holds d.mu.
func (d *Deliverer) pick() *job {
	now := time.Now()
	d.crew.age(now)
	for d.work != nil {
		of, lanes := d.nextWorkers()
		if lanes == 0 {
			return nil
		}
		r := &d.ready[of]
		lane := r.turns.next(lanes)
		h := r.pop(lane)
		h.rings[of] &^= lane.Set()
		if h.workers(lane) != of { // its pace has changed meanwhile
			d.enqueue(h)
		} else if l, ok := h.nextLane(lane, d.openLanes(h, now)); ok {
			return d.begin(h, l, of, now)
		}
	}
	return nil
}

// nextWorkers says which part has a worker free and something to do, and in
// which lanes. The caller holds d.mu.
func (d *Deliverer) nextWorkers() (of workers, lanes queue.Lanes) {
	for range parts {
		d.turn = (d.turn + 1) % parts
		if d.crew.room(d.turn) {
			lanes = d.ready[d.turn].some & d.crew.fit(d.turn)
		}
		if lanes != 0 {
			break
		}
	}
	return d.turn, lanes
}

// begin counts an attempt. The caller holds d.mu.
func (d *Deliverer) begin(h *hop, lane queue.Lane, of workers, now time.Time) *job {
	j := &job{hop: h, lane: lane, of: of, began: now, forced: h.forced, wishes: h.wishes}
	h.forced = false
	h.ready &^= lane.Set() // what else there is, the claim tells
	h.active++
	if lane.Large() {
		h.large++
	}
	d.crew.begin(j)
	d.enqueue(h)
	return j
}

// run makes attempts, one after the other, while there is something due.
func (d *Deliverer) run(ctx context.Context, j *job) {
	for j != nil {
		d.attempt(ctx, j)
		j = d.finish(j)
	}
}
