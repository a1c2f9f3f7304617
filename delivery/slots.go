package delivery

import (
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/queue"
)

// A hop waits for a slot this long, and so much longer for each that waits
// before it, until it looks again by itself, in case that a hop that was woken
// did not need the slot.
const (
	slotPatience = 2 * time.Second
	waiterTime   = 100 * time.Millisecond
)

// slotWait is a hop's wait for a slot of a target.
type slotWait struct {
	ep       plan.Endpoint
	patience *time.Timer
}

// waitForSlot takes lanes of a hop out of the rings until wake: those for large
// messages when the target has too many of these, else all. The caller holds
// d.mu.
func (d *Deliverer) waitForSlot(j *job, o *hopOutcome) {
	h, lanes, line := j.hop, queue.AnyLane, otherLine
	switch {
	case o.Crammed:
		lanes, line = queue.LargeLanes, largeLine
	case h.ready.Has(queue.Light): // what this attempt gives back may join it
		line = lightLine
	}
	h.waits |= lanes
	h.stopWait()
	// Enlisted before the second look: a slot that is freed meanwhile is either
	// seen here or wakes the hop.
	waiting := d.health.enlist(o.Busy, h.name, line)
	h.wait = &slotWait{ep: o.Busy}
	if o.Crammed && d.health.takesLarge(o.Busy) || !o.Crammed && d.hasRoom(o.Busy) {
		d.unwait(h)
		return
	}
	h.wait.patience = time.AfterFunc(slotPatience+time.Duration(waiting)*waiterTime, func() { d.wake(h.name, o.Busy) })
}

// hasRoom tells whether an attempt would find a slot or a session at a target.
func (d *Deliverer) hasRoom(ep plan.Endpoint) bool {
	if ep.Calls() {
		return d.callers.free(ep)
	}
	return d.health.hasRoom(ep) || d.pool.hasIdle(ep)
}

// stopWait ends the timer of a wait that is over: the timers of all waits
// together would have the hop look again and again.
func (h *hop) stopWait() {
	if h.wait != nil && h.wait.patience != nil {
		h.wait.patience.Stop()
	}
	h.wait = nil
}

// wake has a hop that waits for a slot of a target looked at now; false when it
// does not wait for that one.
func (d *Deliverer) wake(name string, ep plan.Endpoint) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hops[name]
	if h == nil || h.wait == nil || h.wait.ep != ep {
		return false
	}
	d.unwait(h)
	return !time.Now().Before(h.parked) // it has been parked since
}

// unwait puts a hop that waits for a slot back into the rings. The caller
// holds d.mu.
func (d *Deliverer) unwait(h *hop) {
	h.waits = 0
	h.stopWait()
	d.enqueue(h)
	d.forget(h, time.Now())
	d.start()
}

// freeSlot gives a connection slot back and wakes who waits for it.
func (d *Deliverer) freeSlot(ep plan.Endpoint) {
	d.health.release(ep)
	d.wakeNext(ep)
}

// wakeNext wakes the hop whose turn it is at the target.
func (d *Deliverer) wakeNext(ep plan.Endpoint) {
	for hop := d.health.nextWaiting(ep); hop != "" && !d.wake(hop, ep); hop = d.health.nextWaiting(ep) {
	}
}

// endLarge notes the end of a large message at a target, and wakes who waits
// to send another.
func (d *Deliverer) endLarge(ep plan.Endpoint) {
	d.health.endLarge(ep)
	for hop := d.health.nextLarge(ep); hop != "" && !d.wake(hop, ep); hop = d.health.nextLarge(ep) {
	}
}
