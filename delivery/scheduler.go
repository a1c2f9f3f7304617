package delivery

import (
	"container/heap"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/queue"
)

// firstConcurrency is how many attempts a hop gets before one has succeeded;
// each success adds one, so that neither a restart nor a returning server
// meets a stampede, and a tarpit holds few workers.
const firstConcurrency = 2

// Deliverer is the delivery worker: it claims what is due, hop by hop, and
// makes attempts. Make one with New; Run does the work.
type Deliverer struct {
	cfg    Config // but for the settings, which are in set
	set    atomic.Pointer[Settings]
	health *health
	pool   *pool
	budget *budget
	memory *Memory

	mu      sync.Mutex
	hops    map[string]*hop
	due     hopHeap
	running int
	stopped bool          // Run has been told to stop: nothing is asked any more
	kick    chan struct{} // something changed: look at the heap again
	wg      sync.WaitGroup
	asking  context.Context // of all questions, see callforward.go
	hush    context.CancelFunc
}

// hop is what the scheduler knows of a hop with waiting mail.
type hop struct {
	name     string
	at       time.Time // when it is to be looked at; heap order
	index    int       // in the heap, -1 = not in it
	active   int       // attempts under way
	limit    int       // attempts allowed
	parked   time.Time // until; zero = not parked
	failures int       // in a row, of attempts that reached no server
	again    bool      // was due, and had no room for another attempt
	busy     bool      // waits for a slot of a target
	patience *time.Timer
	wishes   int       // how often Unpark was called
	alarmed  time.Time // when somebody was called last because of it
	forced   bool      // somebody asked: targets that are down are looked at whatever their time
}

// New makes a Deliverer; memory is what the planner asks about the past.
func New(cfg Config, memory *Memory) *Deliverer {
	cfg = cfg.withDefaults()
	asking, hush := context.WithCancel(context.Background())
	d := &Deliverer{
		cfg: cfg, memory: memory,
		health: newHealth(cfg.Retry, cfg.PerTarget), pool: newPool(), budget: newBudget(),
		hops: map[string]*hop{}, kick: make(chan struct{}, 1),
		asking: asking, hush: hush,
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
	d.nudge()
}

// Run delivers until ctx is done; then it starts nothing new, gives attempts
// in flight Config.Grace to finish, and returns when all leases are back.
func (d *Deliverer) Run(ctx context.Context) {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	d.cfg.Queue.Watch(d.newlyDue)
	var house sync.WaitGroup
	house.Go(func() { d.sweepQueue(ctx) })
	house.Go(func() { d.sweepMemory(ctx) })
	d.dispatch(ctx, work)
	house.Wait()
	d.stopAsking()
	grace := time.AfterFunc(d.cfg.Grace, stop)
	d.wg.Wait()
	grace.Stop()
	d.closeAll(d.pool.expired(time.Now().Add(time.Hour)))
}

// newlyDue is the queue's word that a hop has something due at a time.
func (d *Deliverer) newlyDue(name string, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hops[name]
	if h == nil {
		h = &hop{name: name, index: -1, limit: firstConcurrency}
		d.hops[name] = h
	}
	d.schedule(h, at)
}

// schedule has a hop looked at no later than the given time, but not before
// its park ends. The caller holds d.mu.
func (d *Deliverer) schedule(h *hop, at time.Time) {
	if at.Before(h.parked) {
		at = h.parked
	}
	switch {
	case h.busy:
		return // woken by a free slot
	case h.index < 0:
		h.at = at
		heap.Push(&d.due, h)
	case at.Before(h.at):
		h.at = at
		heap.Fix(&d.due, h.index)
	default:
		return
	}
	d.nudge()
}

func (d *Deliverer) nudge() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// dispatch starts attempts for the hops that are due, in the order in which
// they became so, until ctx is done.
func (d *Deliverer) dispatch(ctx, work context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(d.startDue(work))
		select {
		case <-ctx.Done():
			return
		case <-d.kick:
		case <-timer.C:
		}
	}
}

// startDue starts what can be started and returns the time until the next hop
// is due.
func (d *Deliverer) startDue(work context.Context) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.due) > 0 && d.running < d.set.Load().Concurrency {
		h := d.due[0]
		if wait := time.Until(h.at); wait > 0 {
			return wait
		}
		heap.Pop(&d.due)
		if h.active >= d.allowed(h) {
			h.again = true // the attempt that ends looks again
			continue
		}
		h.active++
		d.running++
		d.wg.Go(func() { d.work(work, h) })
	}
	return time.Hour // nothing due, or no room: something will kick
}

// allowed is the number of attempts that a hop may have now. One attempt at a
// time finds out whether a parked hop is back.
func (d *Deliverer) allowed(h *hop) int {
	if h.failures > 0 {
		return 1
	}
	return h.limit
}

// work makes one attempt for a hop, if it has something due.
func (d *Deliverer) work(ctx context.Context, h *hop) {
	lease, err := d.cfg.Queue.Claim(ctx, h.name)
	if err != nil {
		d.cfg.Events.Trouble(Trouble{Hop: h.name, What: "the queue could not be read", Err: err})
	}
	if lease == nil {
		d.finished(h, err)
		return
	}
	d.mu.Lock()
	if h.active < d.allowed(h) {
		d.schedule(h, time.Now()) // there may be more for another attempt beside this one
	}
	w := d.newWalk(lease, h.forced)
	h.forced = false
	wishes := h.wishes
	d.mu.Unlock()

	outcomes, outcome := w.attempt(ctx)
	// The hop first: if it is parked, its recipients are not due again at once.
	if event := d.learn(h, &outcome, wishes); event != nil {
		d.announce(*event)
	}
	w.settle(ctx, outcomes)
	d.finished(h, nil)
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

// finished ends an attempt, or a look that found nothing, and says when the
// hop is looked at again.
func (d *Deliverer) finished(h *hop, err error) {
	next, waiting := d.cfg.Queue.Next(h.name)

	d.mu.Lock()
	defer d.mu.Unlock()
	h.active--
	d.running--
	switch {
	case err != nil:
		d.schedule(h, time.Now().Add(time.Second))
	case h.again:
		// Something may have fallen due since the look at the queue above.
		d.schedule(h, time.Now())
	case waiting:
		d.schedule(h, next)
	case h.active > 0 || h.index >= 0 || h.busy: // looked at again
	case time.Now().Before(h.parked):
		d.schedule(h, h.parked) // to be forgotten then
	default:
		delete(d.hops, h.name)
	}
	h.again = false
	d.nudge()
}

// learn moves a hop by the outcome of an attempt and returns the event that
// it amounts to, if any. wishes is what h.wishes was when the attempt began.
func (d *Deliverer) learn(h *hop, o *hopOutcome, wishes int) *HopEvent {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case o.Greeted:
		was := h.failures > 0
		h.failures, h.parked = 0, time.Time{}
		h.limit = min(h.limit+1, d.set.Load().PerTarget)
		if was {
			h.limit, h.alarmed = firstConcurrency, time.Time{}
			return &HopEvent{Hop: h.name}
		}
	case !o.Wait.IsZero():
		if time.Now().Before(h.parked) {
			return nil // another attempt, begun before, has found out the same
		}
		if h.wishes != wishes {
			return nil // what it found out is older than somebody's wish to look again
		}
		// One who has only met the failures of others adds nothing to a park;
		// neither does a look before its time.
		again := h.failures > 0 && !o.News
		if !again && !(h.failures > 0 && o.Forced) {
			h.failures++
		}
		h.limit = firstConcurrency
		h.parked = o.Wait
		if h.index >= 0 && h.at.Before(h.parked) {
			h.at = h.parked
			heap.Fix(&d.due, h.index)
		}
		return &HopEvent{Hop: h.name, Parked: true, Until: h.parked, Status: o.Status, Alarm: o.Alarm && h.alarmDue(), again: again}
	case o.Busy.IsValid():
		d.waitForSlot(h, o.Busy)
	}
	return nil
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

// A hop waits for a slot this long, and so much longer for each that waits
// before it, until it looks again by itself, in case that a hop that was woken
// did not need the slot.
const (
	slotPatience = 2 * time.Second
	waiterTime   = 100 * time.Millisecond
)

// waitForSlot takes a hop out of the schedule until wake. The caller holds d.mu.
func (d *Deliverer) waitForSlot(h *hop, ep plan.Endpoint) {
	if h.index >= 0 {
		heap.Remove(&d.due, h.index)
	}
	h.busy = true
	// Enlisted before the second look: a slot that is freed meanwhile is either
	// seen here or wakes the hop.
	waiting := d.health.enlist(ep, h.name)
	if d.health.hasRoom(ep) || d.pool.hasIdle(ep) {
		d.unwait(h)
		return
	}
	h.stopPatience()
	h.patience = time.AfterFunc(slotPatience+time.Duration(waiting)*waiterTime, func() { d.wake(h.name) })
}

// stopPatience ends the timer of a wait that is over: the timers of all waits
// together would have the hop look again and again.
func (h *hop) stopPatience() {
	if h.patience != nil {
		h.patience.Stop()
		h.patience = nil
	}
}

// wake has a hop that waits for a slot looked at now; false when it does not wait.
func (d *Deliverer) wake(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hops[name]
	if h == nil || !h.busy {
		return false
	}
	d.unwait(h)
	return true
}

// unwait puts a hop that waits for a slot back into the schedule. The caller
// holds d.mu.
func (d *Deliverer) unwait(h *hop) {
	h.busy = false
	h.stopPatience()
	d.schedule(h, time.Now())
}

// Unpark has a hop tried now: somebody asked for it, or knows that it is back.
func (d *Deliverer) Unpark(ctx context.Context, name string) error {
	d.mu.Lock()
	if h := d.hops[name]; h != nil {
		h.parked, h.forced = time.Time{}, true
		h.wishes++
		d.schedule(h, time.Now())
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
