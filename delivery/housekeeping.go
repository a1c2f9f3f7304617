package delivery

import (
	"context"
	"time"
)

// sweepQueue has the queue do what falls due without an attempt: delay
// notices, reports that waited for company, expiry in parked hops.
func (d *Deliverer) sweepQueue(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		effects, next, err := d.cfg.Queue.Sweep(ctx)
		if err != nil {
			next = time.Now().Add(d.sweepEvery()) // else it would be tried, and complained of, without a pause
		}
		if err != nil && ctx.Err() == nil {
			d.cfg.Events.Trouble(Trouble{What: "what fell due in the queue could not be done", Err: err})
		}
		d.cfg.Events.Settled(effects)
		// New mail may fall due before what was the next when we looked.
		timer.Reset(min(max(time.Until(next), 50*time.Millisecond), d.sweepEvery()))
	}
}

// sweepEvery is the longest pause between two looks: a small part of the
// shortest time that the retry rules name.
func (d *Deliverer) sweepEvery() time.Duration {
	every := 10 * time.Second
	retry := d.set.Load().Retry
	for _, t := range []time.Duration{retry.ExpireAfter, retry.DelayNotice} {
		if t > 0 {
			every = min(every, t/4)
		}
	}
	return max(every, 50*time.Millisecond)
}

// sweepMemory closes idle sessions and forgets what is long past.
func (d *Deliverer) sweepMemory(ctx context.Context) {
	tick, swept := time.NewTicker(time.Second), time.Now()
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			old := append(d.pool.expired(now.Add(-maxIdle)), d.callers.expired(now, false)...)
			for _, c := range old {
				d.wg.Go(func() {
					c.Quit()
					d.ended(c) // not before: the server counts it until then
				})
			}
			if now.Sub(swept) >= time.Minute { // tens of thousands of targets, perhaps
				swept = now
				d.health.sweep(now)
				d.budget.sweep(now)
			}
		}
	}
}

// closeAll closes sessions without ceremony and frees their slots.
func (d *Deliverer) closeAll(conns []*conn) {
	for _, c := range conns {
		c.Close()
		d.ended(c)
	}
}

// ended gives back what a session had that is closed.
func (d *Deliverer) ended(c *conn) {
	if c.call != nil {
		d.callers.remove(c.call, true)
		d.wakeNext(c.ep)
		return
	}
	d.freeSlot(c.ep)
}
