package delivery

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/delivery/smtpclient"
	"srvrelay/queue"
)

// Call is a connection that a home server has made to us, on which it has asked
// for its mail (RFC 2645): nothing reaches it from outside.
type Call struct {
	User     string
	Serves   func(domain string) bool // the domains that it has asked for, of those that are the user's
	Standing bool                     // it waits for mail that is still to come
	// Turn tells the client that the roles change from here on, and returns the
	// connection, with its server at the other end. It is called once at most. An
	// error: the client is not there any more.
	Turn func(ctx context.Context) (net.Conn, error)
}

// Bounds of a called connection's idle life: a client that came to fetch what
// there is waits for our QUIT, one that stands by is told of the next message
// the sooner. A server hangs up on an idle client after 5 minutes (RFC 5321 4.5.3.2.7).
const (
	maxIdleCall     = time.Second
	maxIdleStanding = 4 * time.Minute
)

// call is a connection in the hands of callers.
type call struct {
	Call
	path    string // of the user's endpoints
	session *conn  // greeted; nil: the roles have not changed yet
	busy    bool   // an attempt has it
	idle    time.Time
}

// callers are the connections that have come to us for mail, and the hops that
// wait for one.
type callers struct {
	mu     sync.Mutex
	calls  map[string][]*call                  // by path
	wanted map[string]map[string]plan.Endpoint // hops by path, with the endpoint that each waits for
}

func newCallers() *callers {
	return &callers{calls: map[string][]*call{}, wanted: map[string]map[string]plan.Endpoint{}}
}

// wish is a hop that waits for a connection.
type wish struct {
	hop string
	ep  plan.Endpoint
}

// serves tells whether the mail of an endpoint may go over the connection. The
// terms of a caller's endpoint are the domain.
func (c *call) serves(ep plan.Endpoint) bool { return c.path == ep.Path && c.Serves(ep.Terms) }

// add takes a connection in, and returns the hops that may use it.
func (r *callers) add(c *call) []wish {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls[c.path] = append(r.calls[c.path], c)
	return r.wishes(c)
}

// wishes are the hops that wait for a connection like this. The caller holds r.mu.
func (r *callers) wishes(c *call) (out []wish) {
	for hop, ep := range r.wanted[c.path] {
		if c.serves(ep) {
			out = append(out, wish{hop, ep})
		}
	}
	return out
}

// take gives an attempt a connection; nil: none is free. busy: one is in use.
// A hop with mail is remembered until it is served or has none any more; a
// question (hop "") is not.
func (r *callers) take(ep plan.Endpoint, hop string) (c *call, busy bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if hop != "" {
		if r.wanted[ep.Path] == nil {
			r.wanted[ep.Path] = map[string]plan.Endpoint{}
		}
		r.wanted[ep.Path][hop] = ep
	}
	for _, have := range r.calls[ep.Path] {
		switch {
		case !have.serves(ep):
		case have.busy:
			busy = true
		case c == nil || have.session != nil: // one that has been greeted is the quicker
			c = have
		}
	}
	if c != nil {
		c.busy = true
	}
	return c, busy
}

// served notes that a hop has got what it waited for.
func (r *callers) served(ep plan.Endpoint, hop string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.wanted[ep.Path], hop)
	if len(r.wanted[ep.Path]) == 0 {
		delete(r.wanted, ep.Path)
	}
}

// forget drops what a hop waits for that has no mail any more.
func (r *callers) forget(hop string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for path, hops := range r.wanted {
		if delete(hops, hop); len(hops) == 0 {
			delete(r.wanted, path)
		}
	}
}

// keep takes a greeted connection back for the next message, and returns the
// hops that may use it.
func (r *callers) keep(c *conn, now time.Time) []wish {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.call.session, c.call.busy, c.call.idle = c, false, now
	return r.wishes(c.call)
}

// remove forgets a connection that has ended, or that its client wants back;
// false: an attempt has it, or it is not there any more.
func (r *callers) remove(c *call, evenBusy bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.Index(r.calls[c.path], c)
	if i < 0 || c.busy && !evenBusy {
		return false
	}
	r.calls[c.path] = slices.Delete(r.calls[c.path], i, i+1)
	if len(r.calls[c.path]) == 0 {
		delete(r.calls, c.path)
	}
	return true
}

// expired takes out the greeted connections that nobody needs any more; all of
// them when all is set.
func (r *callers) expired(now time.Time, all bool) (old []*conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, calls := range r.calls {
		for _, c := range calls {
			limit := maxIdleCall
			if c.Standing {
				limit = maxIdleStanding
			}
			if c.session != nil && !c.busy && (all || now.Sub(c.idle) > limit) {
				c.busy = true // until it is closed
				old = append(old, c.session)
			}
		}
	}
	return old
}

// free tells whether a connection for an endpoint waits for mail.
func (r *callers) free(ep plan.Endpoint) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.calls[ep.Path], func(c *call) bool { return !c.busy && c.serves(ep) })
}

// count tells how many connections there are for an endpoint.
func (r *callers) count(ep plan.Endpoint) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.calls[ep.Path] {
		if c.serves(ep) {
			n++
		}
	}
	return n
}

// Call offers a connection to the mail that waits for it, now and later.
// pending tells whether some does. withdraw takes the offer back; false: it is
// too late, and Turn is being called or was.
func (d *Deliverer) Call(c Call) (pending bool, withdraw func() bool) {
	have := &call{Call: c, path: plan.Caller(c.User)}
	wishes := d.callers.add(have)
	d.come(wishes)
	return len(wishes) > 0, func() bool { return d.callers.remove(have, false) }
}

// come has hops tried now that waited for a connection.
func (d *Deliverer) come(wishes []wish) {
	for _, w := range wishes {
		if d.wake(w.hop, w.ep) {
			continue
		}
		d.health.succeeded(w.ep)
		if err := d.Unpark(context.Background(), w.hop); err != nil {
			d.cfg.Events.Trouble(Trouble{Hop: w.hop, What: "the hop could not be woken for a server that has called", Err: err})
		}
	}
}

// tryCaller is try for a target that calls us.
func (w *walk) tryCaller(ctx context.Context, s step) Step {
	wants := w.lease.Hop
	if w.asks {
		wants = ""
	}
	for {
		switch {
		case ctx.Err() != nil:
			return Stop
		case w.spent >= w.d.cfg.Budget: // a call is not to be used up for nothing
			w.leaveOut(s)
			return NextAddress
		}
		have, busy := w.d.callers.take(s.addr, wants)
		switch {
		case have == nil && busy:
			w.isBusy(s.addr)
			return NextTarget
		case have == nil:
			w.isAway(s)
			return NextAddress
		}
		c, v := have.session, (*Verdict)(nil)
		if c == nil {
			c, v = w.turn(ctx, have, s)
		} else if c.fresh, c.ep = false, s.addr; !c.Alive() {
			w.d.closeAll([]*conn{c})
			continue
		}
		switch {
		case v == nil && c == nil: // gone before the roles changed: the next one
			continue
		case v != nil && ctx.Err() != nil:
			return Stop
		case v != nil:
			w.unreached(s, *v)
			return v.Step
		}
		w.greeted = true
		parked := w.d.health.succeeded(s.addr)
		if w.hop != nil {
			w.d.reached(w.hop)
		}
		w.d.callers.served(s.addr, wants)
		w.d.wakeParked(parked)
		if w.use(ctx, c, s) {
			return NextTarget
		}
	}
}

// notCalled is the status of mail for a server that has to call us, and has not.
var notCalled = queue.Status{Code: "4.4.1", Text: "the server fetches its mail, and has not called", Reason: queue.ReasonNotCalled}

// callPatience is how long a hop waits for a call until it is looked at anyhow:
// nothing but a call makes a difference.
const callPatience = 30 * time.Minute

// isAway notes a target that has not called.
func (w *walk) isAway(s step) {
	w.tried(s)
	w.news = true
	w.sawDown(time.Now().Add(callPatience), notCalled)
	why := notCalled
	why.Target = s.addr.String()
	w.verdictForOpen(Verdict{Step: NextAddress, Result: queue.Defer, Status: why}, &s)
}

// Targets tells how the targets are, all together.
func (d *Deliverer) Targets() Targets { return d.health.all() }

// Alive returns when the scheduler and the table of targets can be had, which they
// cannot when something has come to a standstill.
func (d *Deliverer) Alive() {
	d.mu.Lock()
	//lint:ignore SA2001 that it was had is all
	d.mu.Unlock()
	d.health.all()
}

// Target returns what is known of a target, for explain.
func (d *Deliverer) Target(ep plan.Endpoint) TargetInfo {
	info := d.health.info(ep)
	if ep.Calls() && !info.Down && d.callers.count(ep) == 0 {
		info.Down, info.Status = true, notCalled
	}
	return info
}

// turn changes the roles on a connection and greets the server there. Without
// a connection and a verdict the client has gone.
func (w *walk) turn(ctx context.Context, have *call, s step) (c *conn, v *Verdict) {
	defer func() {
		if c == nil {
			w.d.callers.remove(have, true)
		}
	}()
	return w.timed(ctx, s, func(ctx context.Context) (*conn, *Verdict) {
		nc, err := have.Turn(ctx)
		if err != nil {
			return nil, nil
		}
		set := w.d.set.Load()
		c := &conn{Session: smtpclient.New(nc, set.Hostname, set.Timeouts), ep: s.addr, call: have, born: time.Now(), fresh: true}
		if v := w.d.greet(ctx, c, *s.target, false, nil); v != nil {
			return nil, v
		}
		return c, nil
	})
}
