package delivery

import (
	"context"
	"fmt"
	"net/netip"
	"runtime/debug"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/queue"
)

// maxConnects bounds the connects of one attempt: a stranger's SRV records
// name as many hosts as he likes.
const maxConnects = 10

// walk is one attempt: the recipients of a lease on their way through a plan.
type walk struct {
	d      *Deliverer
	lease  *queue.Lease
	plan   plan.Plan
	forced bool // look at targets that are down before their time

	rcpts    []progress // one for each of lease.Rcpts
	results  []string   // one line for each target, for people
	last     *conn      // the session that was used last, for the record
	lastName string
	connects int
	untried  netip.AddrPort // the first address that time, or the bound on connects, left out
	greeted  bool           // some target greeted us
	dead     bool           // some target was left out because it is down
	busy     netip.AddrPort // a target that was left out because its slots are taken
	host     string         // name of the target in hand
	probeAt  time.Time      // the earliest probe of what is down
	down     queue.Status   // why
}

// progress is how far one recipient has got in this attempt.
type progress struct {
	done      bool // Stop: outcome is final for this attempt
	outcome   queue.Outcome
	rank      int  // of outcome.Status, see telling
	seen      bool // some target was asked
	temporary bool // some target may take it another time
	auth      int  // targets that wanted AUTH
}

// hopOutcome is what an attempt says about its hop.
type hopOutcome struct {
	Greeted bool           // some server was there
	Wait    time.Time      // park until; zero = no
	Busy    netip.AddrPort // has no slot free: the hop is woken when it has
	Status  queue.Status
	Alarm   bool
}

// attempt makes the attempt. A poison message must not take the process down,
// again and again: a panic defers it.
func (w *walk) attempt(ctx context.Context) (outcomes []queue.Outcome, h hopOutcome) {
	defer func() {
		if p := recover(); p != nil {
			w.d.cfg.Events.Trouble(Trouble{
				ID: w.lease.Envelope.ID, Hop: w.lease.Hop, What: "internal error in an attempt", Err: fmt.Errorf("%v\n%s", p, debug.Stack()),
			})
			outcomes, h = w.internalError(), hopOutcome{Greeted: true}
		}
	}()
	return w.run(ctx)
}

// settle stores what the attempt came to. Without outcomes the lease is given
// back: nothing was attempted.
func (w *walk) settle(ctx context.Context, outcomes []queue.Outcome) {
	cfg := &w.d.cfg
	var record *queue.Attempt
	if len(outcomes) > 0 {
		record = w.record()
	}
	effects, err := cfg.Queue.Settle(context.WithoutCancel(ctx), w.lease, outcomes, record)
	if err != nil {
		cfg.Events.Trouble(Trouble{ID: w.lease.Envelope.ID, Hop: w.lease.Hop, What: "the outcome could not be stored", Err: err})
		return
	}
	if record != nil {
		cfg.Events.Attempted(w.lease, record)
	}
	cfg.Events.Settled(effects)
}

// run plans, walks the targets and says what each recipient came to.
func (w *walk) run(ctx context.Context) ([]queue.Outcome, hopOutcome) {
	w.plan = w.d.cfg.Planner.Plan(ctx, w.lease.Hop)
	if ctx.Err() != nil {
		return nil, hopOutcome{}
	}
	w.d.memory.planned(w.plan, time.Now())
	if w.plan.Verdict == queue.Sent {
		w.walkTargets(ctx)
		if w.plan.Source == queue.ReasonSRV && w.allWantAuth() {
			// Records for submission, not for mail transfer: they say nothing about where mail goes.
			w.plan = w.d.cfg.Planner.PlanMX(ctx, w.lease.Hop)
			w.rcpts = make([]progress, len(w.lease.Rcpts))
			w.walkTargets(ctx)
		}
	}
	if w.plan.Verdict != queue.Sent {
		return w.planFailed()
	}
	return w.outcomes(ctx), w.hopOutcome()
}

// planFailed applies the verdict of a plan without targets to everybody.
func (w *walk) planFailed() ([]queue.Outcome, hopOutcome) {
	p := w.plan
	h := hopOutcome{Status: p.Status, Alarm: p.Alarm, Greeted: p.Verdict == queue.Fail}
	out := make([]queue.Outcome, len(w.rcpts))
	for i := range out {
		out[i] = queue.Outcome{Rcpt: i, Result: p.Verdict, Status: p.Status}
	}
	w.results = append(w.results, p.Status.String())
	if p.Verdict == queue.Defer {
		h.Wait = time.Now().Add(w.d.cfg.Retry.ProbeInterval(w.d.hopFailures(w.lease.Hop) + 1))
		for i := range out {
			out[i].HopWaits = true
		}
	}
	return out, h
}

// step is one address of one target, in the order in which they are tried.
type step struct {
	target plan.Target
	addr   netip.AddrPort
	index  int // of the target in the plan
}

// steps lays the plan's addresses out in order: the target that may have the
// message already first, down targets whose probe is not due left out.
func (w *walk) steps() []step {
	var first, rest []step
	want := w.sameFirst()
	for i, t := range w.plan.Targets {
		for _, ap := range t.AddrPorts() {
			s := step{t, ap, i}
			if want != "" && ap.String() == want {
				first = append(first, s)
			} else {
				rest = append(rest, s)
			}
		}
	}
	return append(first, rest...)
}

func (w *walk) sameFirst() string {
	for _, r := range w.lease.Rcpts {
		if r.SameFirst != "" {
			return r.SameFirst
		}
	}
	return ""
}

// walkTargets tries one address after the other until nobody is left.
func (w *walk) walkTargets(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	deadline := time.Now().Add(w.d.cfg.Budget)
	skip := -1 // the target that has answered: its other addresses are not tried
	for _, s := range w.steps() {
		if len(w.open()) == 0 || ctx.Err() != nil {
			return
		}
		if s.index == skip {
			continue
		}
		if w.connects >= maxConnects || time.Now().After(deadline) || !w.d.budget.allowed(w.plan.Domain, time.Now()) {
			w.leaveOut(s)
			continue
		}
		if w.try(ctx, s, deadline) != NextAddress {
			skip = s.index
		}
		if w.busy.IsValid() {
			return // a better target that has no slot free is no reason to use a worse one
		}
	}
}

// leaveOut notes an address that is not tried in this attempt.
func (w *walk) leaveOut(s step) {
	if !w.untried.IsValid() {
		w.untried = s.addr
	}
	w.verdictForOpen(Verdict{Step: NextTarget, Result: queue.Defer, Status: queue.Status{
		Code: "4.4.1", Text: "not all servers could be tried", Reason: queue.ReasonEgressRate,
	}}, nil)
}

// try is one address: connect or reuse, then hand over.
func (w *walk) try(ctx context.Context, s step, deadline time.Time) Step {
	st, why, at := w.d.health.ask(s.addr, w.forced, time.Now())
	if st == dead {
		w.isDown(s, why, at)
		return NextAddress
	}
	settled := st == live
	defer func() {
		if !settled {
			w.d.health.skipped(s.addr)
		}
	}()
	if st == live {
		c, old := w.d.pool.get(keyOf(s.target, s.addr))
		w.d.closeAll(old)
		if c != nil && w.use(ctx, c, s) {
			return NextTarget
		}
	}
	if !w.slot(s.addr) {
		w.busy = s.addr
		w.verdictForOpen(Verdict{Step: NextTarget, Result: queue.Defer, Status: queue.Status{
			Code: "4.4.5", Text: "all connections to the server are in use", Reason: queue.ReasonTargetBusy}}, nil)
		return NextTarget
	}
	dialCtx, cancel := context.WithDeadline(ctx, deadline)
	c, v := w.connect(dialCtx, s.target, s.addr)
	cancel()
	if v == nil {
		settled = true
		w.d.health.succeeded(s.addr)
		w.use(ctx, c, s)
		return NextTarget
	}
	w.d.freeSlot(s.addr)
	if ctx.Err() != nil { // told to stop: that says nothing about the target
		return Stop
	}
	v.Status.MTA, v.Status.Target = s.target.Host, s.addr.String()
	if v.Down {
		settled = true
		at := w.d.health.failed(s.addr, v.Status, time.Now())
		w.sawDown(at, v.Status)
		w.d.budget.failed(w.plan.Domain, time.Now())
	}
	w.d.slower(s.addr, *v)
	w.verdictForOpen(*v, &s)
	return v.Step
}

// isDown notes a target that is left out because it is known to be down.
func (w *walk) isDown(s step, why queue.Status, at time.Time) {
	w.dead = true
	w.sawDown(at, why)
	why.MTA, why.Target = s.target.Host, s.addr.String()
	w.results = append(w.results, fmt.Sprintf("%s: not tried, it is down (%s)", targetName(s.target, s.addr), why.Text))
	for _, i := range w.open() {
		w.rcpts[i].temporary = true
		w.better(i, why, 0)
	}
}

func (w *walk) sawDown(at time.Time, why queue.Status) {
	if w.probeAt.IsZero() || at.Before(w.probeAt) {
		w.probeAt = at
	}
	if w.down == (queue.Status{}) {
		w.down = why
	}
}

// slot takes a connection slot of the target, from an idle session if need be.
func (w *walk) slot(ap netip.AddrPort) bool {
	if w.d.health.acquire(ap) {
		return true
	}
	c := w.d.pool.evict(ap)
	if c == nil {
		return false
	}
	w.d.closeAll([]*conn{c})
	return w.d.health.acquire(ap)
}

// use hands the open recipients over on a session and puts it back or closes
// it. It returns false when the session was stale, so that nothing was tried.
func (w *walk) use(ctx context.Context, c *conn, s step) bool {
	w.greeted = true
	w.last, w.lastName, w.host = c, targetName(s.target, s.addr), s.target.Host
	end := w.transact(ctx, c)
	if end == reusable {
		if w.d.pool.put(c, time.Now()) {
			w.d.wakeNext(c.key.ap)
			return true
		}
		c.Quit()
	}
	w.d.closeAll([]*conn{c})
	return end != stale
}
