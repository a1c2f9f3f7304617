package pebblestore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"srvrelay/queue"
)

// Settle implements queue.Queue.
func (s *Store) Settle(_ context.Context, l *queue.Lease, outcomes []queue.Outcome, attempt *queue.Attempt) (queue.Effects, error) {
	if err := s.begin(); err != nil {
		return queue.Effects{}, err
	}
	defer s.end()
	le := s.leases.get(l.Token)
	if le == nil {
		return queue.Effects{}, fmt.Errorf("%s, hop %.80q: %w", l.Envelope.ID, l.Hop, queue.ErrLeaseLost)
	}
	rt := s.routes.use()
	defer s.routes.done()
	mu := s.stripe(le.id)
	mu.Lock()
	defer mu.Unlock()
	if s.leases.get(l.Token) != le { // settled while we waited
		return queue.Effects{}, fmt.Errorf("%s, hop %.80q: %w", l.Envelope.ID, l.Hop, queue.ErrLeaseLost)
	}
	if len(outcomes) == 0 && attempt == nil {
		s.giveBack(le)
		return queue.Effects{}, nil
	}
	err := checkOutcomes(le, outcomes)
	var fx queue.Effects
	if err == nil {
		fx, err = s.settle(rt, le, outcomes, attempt)
	}
	if err != nil {
		time.AfterFunc(leaseAfterError, func() { s.abandon(le) })
	}
	return fx, err
}

// leaseAfterError is how long a lease goes on whose Settle has failed: the
// message may have been sent, so it is not to be claimed again at once.
const leaseAfterError = time.Minute

// abandon gives a lease back that nobody has settled.
func (s *Store) abandon(le *lease) {
	if s.begin() != nil {
		return
	}
	defer s.end()
	mu := s.stripe(le.id)
	mu.Lock()
	defer mu.Unlock()
	if s.leases.get(le.token) == le {
		s.giveBack(le)
	}
}

// giveBack ends a lease without a trace. The caller holds the stripe.
func (s *Store) giveBack(le *lease) {
	s.leases.end(le)
	for _, g := range le.filed {
		s.hops.giveBack(g.hop, g.group)
		s.notify(g.hop, g.group)
	}
}

func checkOutcomes(le *lease, outcomes []queue.Outcome) error {
	seen := make([]bool, len(le.rcpts))
	for _, o := range outcomes {
		if o.Rcpt < 0 || o.Rcpt >= len(seen) || seen[o.Rcpt] || o.Result > queue.Hold {
			return fmt.Errorf("queue: outcome %v of recipient %d, of %d, makes no sense or comes twice", uint8(o.Result), o.Rcpt, len(seen))
		}
		seen[o.Rcpt] = true
	}
	return nil
}

// settle does it, under the stripe.
func (s *Store) settle(rt queue.Routing, le *lease, outcomes []queue.Outcome, attempt *queue.Attempt) (queue.Effects, error) {
	m, err := s.readMeta(le.id)
	if err != nil {
		return queue.Effects{}, err
	}
	c := s.newChange(rt, le.id, m, s.opt.Now().UTC().Round(0))
	defer c.close()
	c.lease = le
	c.tried = attempt
	relayed, err := c.advance(outcomes, attempt)
	if err != nil {
		return queue.Effects{}, err
	}
	if len(relayed) > 0 {
		if err := c.addReport(queue.ReportRelayed, m.Sender, relayed); err != nil {
			return queue.Effects{}, err
		}
	}
	if err := c.reportFailures(); err != nil {
		return queue.Effects{}, err
	}
	c.stage()
	frees := c.removed && m.File != 0 // a file, which another message may have as soon as that is synced
	if frees || len(c.effects.Reports) > 0 || slices.ContainsFunc(outcomes, final) {
		err = c.commit(pebble.Sync)
	} else {
		err = c.commit(pebble.NoSync)
	}
	if err != nil {
		return queue.Effects{}, err
	}
	return c.effects, nil
}

// final tells whether an outcome must be on stable storage before anybody acts
// on it. If a power cut undoes one of the others, the message is sent once
// more, as it is when the power fails before the outcome gets here.
func final(o queue.Outcome) bool { return o.Result != queue.Sent && o.Result != queue.Defer }

// advance moves the recipients of the lease on and regroups those that wait.
// It returns the ones whose sender is to hear that they were handed on.
func (c *change) advance(outcomes []queue.Outcome, attempt *queue.Attempt) (relayed []queue.Recipient, err error) {
	le := c.lease
	chance := c.s.opt.Chance() // one for all: recipients stay together
	rcpts := slices.Clone(le.rcpts)
	for _, o := range outcomes {
		old, n := rcpts[o.Rcpt], le.members[o.Rcpt]
		retry := c.rt.RetryOf(c.m.Sender, &old)
		r := retry.Advance(old, o, retry.Expires(c.m.Received, &old), c.now, chance)
		if !old.State.CanBecome(r.State) {
			return nil, fmt.Errorf("queue: %s, recipient %d: %s cannot become %s", c.m.ID, n, old.State, r.State)
		}
		rcpts[o.Rcpt] = c.failed(r)
		c.step(n, old, rcpts[o.Rcpt], queue.Transition{Hop: le.hop, Attempt: attempt})
		if r.State == queue.Delivered && o.Relayed && queue.WantsRelayedReport(&c.m.Envelope, r) {
			relayed = append(relayed, r)
		}
	}
	var waiting []int
	var left []queue.Recipient
	for i, r := range rcpts {
		if r.State.Waits() {
			waiting = append(waiting, le.members[i])
			left = append(left, r)
		}
	}
	c.gone = append(c.gone, le.filed...)
	c.added, err = groupUp(c.rt, c.id, c.m, waiting, left)
	return relayed, err
}
