package pebblestore

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

const (
	sweepBatch = 100             // messages a call
	sweepRest  = time.Minute     // the longest time between two calls
	rearm      = time.Minute     // when somebody else is at work on it now
	lastChance = 5 * time.Minute // for the last attempt, after the expiry
)

// Sweep implements queue.Queue. The returned time is never more than a minute
// ahead: a Settle may arm an earlier deadline at any time.
func (s *Store) Sweep(ctx context.Context) (fx queue.Effects, next time.Time, err error) {
	if err := s.begin(); err != nil {
		return fx, next, err
	}
	defer s.end()
	s.sweepMu.Lock()
	defer s.sweepMu.Unlock()
	now := s.opt.Now().UTC().Round(0)
	s.parks.prune(now)
	s.pruneHistory(now)
	from := s.takeFloor()
	floor := from
	defer func() { s.lowerFloor(floor) }()

	due, rest, err := s.dueMessages(from, nano(now))
	if err != nil {
		return fx, next, err
	}
	for _, d := range due {
		if err := ctx.Err(); err != nil {
			return fx, next, err
		}
		more, err := s.sweepMessage(d, now)
		if err != nil {
			return fx, next, err
		}
		fx.Transitions = append(fx.Transitions, more.Transitions...)
		fx.Reports = append(fx.Reports, more.Reports...)
		fx.Removed = append(fx.Removed, more.Removed...)
	}
	if len(due) > 0 { // what was committed unsynced becomes durable together
		if err := s.sync("sweep"); err != nil {
			return fx, next, err
		}
	}
	floor = rest
	next = now.Add(sweepRest)
	if rest < nano(next) {
		next = fromNano(max(rest, nano(now)))
	}
	return fx, next, nil
}

// takeFloor returns where to look from. Until it is set again, it follows
// what others add.
func (s *Store) takeFloor() int64 {
	s.floorMu.Lock()
	defer s.floorMu.Unlock()
	f := s.floor
	s.floor = math.MaxInt64
	return f
}

func (s *Store) lowerFloor(f int64) {
	s.floorMu.Lock()
	defer s.floorMu.Unlock()
	s.floor = min(s.floor, f)
}

type deadline struct {
	when int64
	id   ulid.ULID
}

// dueMessages lists messages whose deadline has come. rest is the first
// deadline that is not among them, or the end of time.
func (s *Store) dueMessages(from, now int64) (due []deadline, rest int64, err error) {
	if from == math.MaxInt64 {
		return nil, from, nil
	}
	rest = math.MaxInt64
	stop := errors.New("stop")
	err = eachKey(s.db, deadlineKey(from, ulid.ULID{}), after([]byte(famDeadline)), func(key, _ []byte) error {
		when, id, ok := parseDeadlineKey(key)
		if !ok {
			s.opt.Log.Error("a queue record is damaged and was skipped", "key", keyName(key))
			return nil
		}
		if when > now || len(due) == sweepBatch {
			rest = when
			return stop
		}
		due = append(due, deadline{when, id})
		return nil
	})
	if err != nil && !errors.Is(err, stop) {
		return nil, 0, err
	}
	return due, rest, nil
}

// sweepMessage does what is due for one message. A message that cannot be
// read loses its deadline, so that it does not stand in the way of others.
func (s *Store) sweepMessage(d deadline, now time.Time) (queue.Effects, error) {
	rt := s.routes.use()
	defer s.routes.done()
	mu := s.stripe(d.id)
	mu.Lock()
	defer mu.Unlock()
	c, err := s.sweepChange(rt, d, now)
	if c != nil {
		defer c.close()
	}
	stale := errors.Is(err, errStale) || errors.Is(err, queue.ErrNotFound) // settled meanwhile
	if stale || unreadable(err) {
		if !stale {
			s.opt.Log.Error("a queued message is not readable and was skipped", "id", d.id.String(), "error", queue.Safe(err.Error(), 1000))
		}
		b := s.db.NewBatch()
		defer b.Close()
		delKey(b, deadlineKey(d.when, d.id))
		return queue.Effects{}, s.commit(b, pebble.NoSync)
	}
	if err != nil {
		return queue.Effects{}, err
	}
	c.stage()
	return c.effects, c.commit(pebble.NoSync)
}

func (s *Store) sweepChange(rt queue.Routing, d deadline, now time.Time) (*change, error) {
	m, err := s.readMeta(d.id)
	if err != nil {
		return nil, err
	}
	c := s.newChange(rt, d.id, m, now)
	if c.oldDeadline != d.when {
		return c, errStale
	}
	if _, err := c.readAll(); err != nil {
		return c, err
	}
	if err := c.expire(); err != nil {
		return c, err
	}
	if err := c.noticeDelay(); err != nil {
		return c, err
	}
	return c, c.reportFailures()
}

// expire gives up the recipients whose time has come. Those whose hop is not
// parked get their last attempt from the scheduler, for which it has some
// minutes; leased ones are settled by whoever holds the lease.
func (c *change) expire() error {
	if c.m.Expire == 0 || nano(c.now) < c.m.Expire {
		return nil
	}
	groups, err := c.groups()
	if err != nil {
		return err
	}
	c.m.Expire = 0
	for _, g := range groups {
		if err := c.expireGroup(g); err != nil {
			return err
		}
	}
	return nil
}

func (c *change) expireGroup(g hopGroup) error {
	leased := c.s.leases.holder(c.id, g.members[0]) != nil
	park, parked := c.s.parks.get(g.hop, c.now)
	var stay []int
	for _, n := range g.members {
		old := c.all[n]
		retry := c.rt.RetryOf(c.m.Sender, &old)
		expires := retry.Expires(c.m.Received, &old)
		switch over := c.now.Sub(expires); {
		case over < 0:
			c.m.Expire = earlier(c.m.Expire, nano(expires))
			stay = append(stay, n)
		case leased || !parked && over < lastChance:
			c.m.Expire = earlier(c.m.Expire, nano(c.now.Add(rearm)))
			stay = append(stay, n)
		default:
			c.expireRecipient(retry, n, g.hop, park.status)
		}
	}
	if len(stay) == len(g.members) {
		return nil
	}
	c.gone = append(c.gone, g)
	return c.regroup(stay)
}

func (c *change) expireRecipient(retry queue.Retry, n int, hop string, why queue.Status) {
	old := c.all[n]
	r := old
	if r.Last == (queue.Status{}) {
		r.Last = why // it was never tried: what its hop suffers from is its status
	}
	r = c.failed(retry.Expire(r, c.now))
	c.step(n, old, r, queue.Transition{Hop: hop})
}

// noticeDelay tells the sender, once for each recipient, that it takes long.
func (c *change) noticeDelay() error {
	if c.m.Delay == 0 || nano(c.now) < c.m.Delay {
		return nil
	}
	c.m.Delay = 0
	leased := c.s.leases.leased(c.id, nil)
	var late []queue.Recipient
	for n := range c.all {
		r := c.newest(n)
		at := c.rt.RetryOf(c.m.Sender, &r).NoticeAt(&c.m.Envelope, &r)
		switch {
		case at.IsZero():
		case c.now.Before(at):
			c.m.Delay = earlier(c.m.Delay, nano(at))
		case leased[n]:
			c.m.Delay = earlier(c.m.Delay, nano(c.now.Add(rearm))) // about to be known
		default:
			r.Delayed = true
			c.rcpts[n] = r
			late = append(late, r)
		}
	}
	if len(late) == 0 {
		return nil
	}
	return c.addReport(queue.ReportDelayed, c.m.Sender, late)
}
