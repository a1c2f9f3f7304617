package delivery

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/queue"
)

// maxConnects bounds the connects of one attempt: a stranger's SRV records
// name as many hosts as he likes.
const maxConnects = 10

// walk is one attempt: the recipients of a lease on their way through a plan.
type walk struct {
	d         *Deliverer
	hop       *hop // nil: of a question
	lease     *queue.Lease
	plan      plan.Plan
	plannedAt time.Time  // when the first plan was made
	asked     string     // fingerprint of the first plan, which is the one that explain shows
	firstPlan *plan.Plan // when another one has taken its place
	forced    bool       // look at targets that are down before their time
	asks      bool       // nothing is sent: the targets are asked about a recipient, see callforward.go

	rcpts    []progress // one for each of lease.Rcpts
	results  []string   // one line for each target, for people
	last     *conn      // the session that was used last, for the record
	lastAddr string     // its address
	lastName string     // with the name of its host
	connects int
	untried  plan.Endpoint // the first address that time, or the bound on connects, left out
	greeted  bool          // some target greeted us
	busy     plan.Endpoint // a target that was left out because its slots are taken
	crammed  bool          // or because of the large messages that it gets
	crowded  plan.Endpoint // a target that serves us and wants no more connections
	news     bool          // the attempt has found out itself that a target is down
	target   plan.Target   // in hand
	alarm    bool          // somebody must look
	probeAt  time.Time     // the earliest probe of what is down
	down     queue.Status  // why

	first      string        // the target that comes first, see queue.Outcome.SameFirst; "" = none
	triedFirst bool          // it has had its turn
	spent      time.Duration // on connecting and greeting
	began      time.Time
	took       queue.Took // but for All
}

func (d *Deliverer) newWalk(lease *queue.Lease, forced bool) *walk {
	w := &walk{d: d, lease: lease, forced: forced, first: lease.Rcpts[0].SameFirst, began: time.Now()}
	w.begin()
	return w
}

// home tells whether some of the mail is carried home.
func (w *walk) home() bool {
	return slices.ContainsFunc(w.lease.Rcpts, func(r queue.Recipient) bool { return w.d.cfg.Planner.Home(r.Domain) })
}

// begin forgets what the recipients have come to. Those for whom another
// target comes first have an attempt of their own: they are given back.
func (w *walk) begin() {
	w.rcpts = make([]progress, len(w.lease.Rcpts))
	for i, r := range w.lease.Rcpts {
		w.rcpts[i].later = r.SameFirst != w.first
	}
}

// progress is how far one recipient has got in this attempt.
type progress struct {
	done      bool // Stop: outcome is final for this attempt
	later     bool // has no part in this attempt
	outcome   queue.Outcome
	rank      int  // of outcome.Status, see telling
	seen      bool // some target was asked
	temporary bool // some target may take it another time
	auth      int  // targets that wanted AUTH
}

// hopOutcome is what an attempt says about its hop.
type hopOutcome struct {
	Greeted bool          // some server was there
	Wait    time.Time     // park until; zero = no
	Busy    plan.Endpoint // has no slot free: the hop is woken when it has
	Crammed bool          // or none for a large message
	News    bool          // else it has only met what other attempts had found out
	Forced  bool          // somebody asked for it, before its time
	Status  queue.Status
	Alarm   bool
	Home    bool  // some of the mail is carried home
	Sight   sight // what the plan named, of a hop that waits
}

// attempt makes the attempt. A poison message must not take the process down,
// again and again: a panic defers it.
func (w *walk) attempt(ctx context.Context) (outcomes []queue.Outcome, h hopOutcome) {
	defer func() {
		if p := recover(); p != nil {
			w.d.cfg.Events.Trouble(Trouble{
				ID: w.lease.Envelope.ID, Hop: w.lease.Hop, What: "internal error in an attempt", Err: fmt.Errorf("%v\n%s", p, debug.Stack()),
			})
			outcomes, h = w.internalError(), hopOutcome{} // a bug of ours says nothing about the hop
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
	begin := time.Now()
	w.plan = w.d.cfg.Planner.Plan(ctx, w.lease.Hop)
	w.plannedAt = time.Now()
	w.took.Plan = w.plannedAt.Sub(begin)
	if ctx.Err() != nil || w.rerouted() {
		return nil, hopOutcome{}
	}
	w.asked = w.plan.Fingerprint()
	w.d.memory.planned(w.plan, time.Now())
	if w.plan.Verdict == queue.Sent {
		w.walkTargets(ctx)
		if w.plan.Source == queue.ReasonSRV && w.allWantAuth() {
			// Records for submission, not for mail transfer: they say nothing about where mail goes.
			first := w.plan
			w.firstPlan = &first
			w.plan = w.d.cfg.Planner.PlanMX(ctx, w.lease.Hop)
			if w.rerouted() {
				return nil, hopOutcome{}
			}
			w.begin()
			w.walkTargets(ctx)
		}
	}
	if w.plan.Verdict != queue.Sent {
		return w.planFailed()
	}
	return w.outcomes(ctx), w.hopOutcome()
}

// rerouted tells whether the routes have changed since the claim, so that the
// plan is not for these recipients: a route of the same name may be for other
// mail by now. They are given back, for the queue to file them anew.
func (w *walk) rerouted() bool {
	for _, r := range w.lease.Rcpts {
		if w.d.cfg.Planner.HopOf(w.lease.Envelope.Sender, r.Domain, !r.Released.IsZero()) != w.lease.Hop {
			return true
		}
	}
	return false
}

// planFailed applies the verdict of a plan without targets to everybody.
func (w *walk) planFailed() ([]queue.Outcome, hopOutcome) {
	p := w.plan
	h := hopOutcome{Status: p.Status, Alarm: p.Alarm, News: true, Forced: w.forced, Greeted: p.Verdict != queue.Defer}
	out := make([]queue.Outcome, len(w.rcpts))
	for i := range out {
		out[i] = queue.Outcome{Rcpt: i, Result: p.Verdict, Status: p.Status, SameFirst: w.lease.Rcpts[i].SameFirst}
	}
	w.results = append(w.results, withReason(p.Status.String(), p.Status.Reason))
	w.results = append(w.results, leftOut(p.Dropped)...)
	if p.Verdict == queue.Defer {
		failures := w.d.hopFailures(w.lease.Hop)
		if !w.forced || failures == 0 {
			failures++
		}
		h.Wait = time.Now().Add(w.d.set.Load().Retry.ProbeInterval(failures, w.home()))
		h.Home, h.Sight = w.home(), sightOf(&p, w.plannedAt)
		for i := range out {
			out[i].HopWaits = true
		}
	}
	return out, h
}

// walkTargets tries one address after the other until nobody is left.
func (w *walk) walkTargets(ctx context.Context) {
	answered := map[int]bool{} // targets whose other addresses are not tried
	for s := range w.steps {
		if len(w.open()) == 0 || ctx.Err() != nil {
			return
		}
		if answered[s.index] {
			continue
		}
		if w.try(ctx, s) != NextAddress {
			answered[s.index] = true
		}
		if w.busy.IsValid() {
			return // a better target that has no slot free is no reason to use a worse one
		}
	}
	w.busy = w.crowded // the hop waits for its slot, if somebody is left
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
func (w *walk) try(ctx context.Context, s step) Step {
	st, why, at := w.d.health.ask(s.addr, w.forced, time.Now())
	if st == dead {
		w.isDown(s, why, at)
		return NextAddress
	}
	promised := st == probe
	defer func() {
		if promised {
			w.d.health.skipped(s.addr)
		}
	}()
	if w.lease.Lane.Large() {
		if !w.d.health.beginLarge(s.addr) {
			w.crammed = true
			w.isBusy(s.addr)
			return NextTarget
		}
		defer w.d.endLarge(s.addr)
	}
	if s.addr.Calls() {
		return w.tryCaller(ctx, s)
	}
	if st == live {
		c, old := w.d.pool.get(s.addr, w.origin(*s.target))
		w.d.closeAll(old)
		if c != nil && w.use(ctx, c, s) {
			return NextTarget
		}
	}
	if !w.mayConnect(*s.target) {
		w.leaveOut(s)
		return NextAddress
	}
	if !w.d.health.acquire(s.addr) {
		w.isBusy(s.addr)
		return NextTarget
	}
	c, v := w.reach(ctx, s)
	switch {
	case v == nil:
		promised, w.greeted = false, true
		parked := w.d.health.succeeded(s.addr)
		if w.hop != nil {
			w.d.reached(w.hop)
		}
		w.d.wakeParked(parked)
		w.use(ctx, c, s)
		return NextTarget
	case ctx.Err() != nil: // told to stop: that says nothing about the target
		return Stop
	case v.Slower && w.d.health.inUse(s.addr):
		w.isCrowded(s, *v)
		return v.Step
	}
	promised = promised && !v.Down
	w.unreached(s, *v)
	return v.Step
}

// isBusy notes a target without a slot for this message.
func (w *walk) isBusy(ep plan.Endpoint) {
	w.busy = ep
	w.verdictForOpen(Verdict{Step: NextTarget, Result: queue.Defer, Status: queue.Status{
		Code: "4.4.5", Text: "all connections to the server are in use", Reason: queue.ReasonTargetBusy}}, nil)
}

// reach opens and greets a session in the slot that is held; without one the
// slot is free again, whatever happens.
func (w *walk) reach(ctx context.Context, s step) (c *conn, v *Verdict) {
	defer func() {
		if c == nil {
			w.d.freeSlot(s.addr)
		}
	}()
	return w.timed(ctx, s, func(ctx context.Context) (*conn, *Verdict) { return w.connect(ctx, *s.target, s.addr) })
}

// timed opens a session within what is left of the budget of the attempt.
func (w *walk) timed(ctx context.Context, s step, open func(context.Context) (*conn, *Verdict)) (*conn, *Verdict) {
	w.tried(s)
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, w.d.cfg.Budget-w.spent)
	defer cancel()
	c, v := open(ctx)
	w.spent += time.Since(begin)
	if c != nil {
		w.took.Add(c.took)
	}
	return c, v
}

// tried notes that a target has had its turn.
func (w *walk) tried(s step) {
	w.triedFirst = w.triedFirst || w.isFirst(s)
}

// unreached notes a target that did not connect or greet.
func (w *walk) unreached(s step, v Verdict) {
	if s.target.Named && v.Result == queue.Fail && !v.Client {
		v = w.unwelcome(s, v)
	}
	if v.Client {
		w.greeted = true
		w.d.wakeParked(w.d.health.succeeded(s.addr))
	}
	v.Status.MTA, v.Status.Target = s.target.Host, s.addr.String()
	if v.Down {
		w.news = true
		w.sawDown(w.d.health.failed(s.addr, v.Status, time.Now(), w.home()), v.Status)
		w.countFailed(*s.target)
	}
	if v.Slower {
		w.d.health.slower(s.addr)
	}
	w.verdictForOpen(v, &s)
}

// unwelcome is the verdict on a server of the operator's that turns us away for
// good before it has heard of any recipient: that is between him and the
// server, so mail waits.
func (w *walk) unwelcome(s step, v Verdict) Verdict {
	w.mustLook(*s.target, s.addr, "the server of the route turns this relay away", v.Status)
	v.Result, v.Status.Code = queue.Defer, "4"+v.Status.Code[1:]
	return v
}

// isCrowded notes a target that serves us on other connections and does not
// want this one: it is no more down than one whose slots are all taken.
func (w *walk) isCrowded(s step, v Verdict) {
	w.d.health.slower(s.addr)
	w.countFailed(*s.target)
	w.crowded = s.addr
	w.notTried(s, v.Status, lineWithReason(v.Status))
}

// isDown notes a target that is left out because it is known to be down.
func (w *walk) isDown(s step, why queue.Status, at time.Time) {
	w.sawDown(at, why)
	w.notTried(s, why, withReason(fmt.Sprintf("not tried, it is down (%s)", line(why)), why.Reason))
}

// notTried notes a target that nobody was offered to, and that may take them
// another time.
func (w *walk) notTried(s step, why queue.Status, result string) {
	why.MTA, why.Target = s.target.Host, s.addr.String()
	w.results = append(w.results, targetName(*s.target, s.addr)+": "+result)
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

// use hands the open recipients over on a session and puts it back or closes
// it, whatever happens. It returns false when the session was stale, so that
// nothing was tried.
func (w *walk) use(ctx context.Context, c *conn, s step) bool {
	kept := false
	defer func() {
		if !kept {
			w.d.closeAll([]*conn{c})
		}
	}()
	w.last, w.target, w.lastAddr = c, *s.target, s.addr.String()
	w.lastName = hostAddr(s.target.Host, w.lastAddr)
	end := w.transact(ctx, c)
	if end == stale {
		return false
	}
	w.tried(s)
	w.greeted = true
	if end == reusable {
		if kept = w.d.keep(c); kept {
			return true
		}
		c.Quit()
	}
	return true
}
