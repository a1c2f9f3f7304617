package queue

import "time"

// Routing is what the operator's routes mean for the queue, as pure functions.
// They may change at any time ([Store.Reroute]); the queue freezes nothing.
type Routing struct {
	// Fingerprint covers all that the functions depend on: equal fingerprints
	// are the same functions.
	Fingerprint string
	// HopOf names who is asked to take the mail for a recipient, by its domain
	// and by whether it was released: then a route that holds is passed over.
	// nil: the domain itself.
	HopOf func(sender string, r *Recipient) string
	// Retry is the schedule, expiry and delay notice of a hop, for the mail to a
	// domain. nil: DefaultRetry.
	Retry func(hop, domain string) Retry
}

// WithDefaults fills in the functions that are nil.
func (g Routing) WithDefaults() Routing {
	if g.HopOf == nil {
		g.HopOf = func(_ string, r *Recipient) string { return r.Domain }
	}
	if g.Retry == nil {
		g.Retry = func(_, _ string) Retry { return DefaultRetry }
	}
	return g
}

// RetryOf is the Retry of a recipient.
func (g Routing) RetryOf(sender string, r *Recipient) Retry {
	return g.Retry(g.HopOf(sender, r), r.Domain)
}

// ReleaseGrace is how long a released recipient is tried at least.
const ReleaseGrace = 24 * time.Hour

// Expires is when a recipient of a message that came in at received is given up.
func (p Retry) Expires(received time.Time, r *Recipient) time.Time {
	at := received.Add(p.ExpireAfter)
	if grace := r.Released.Add(ReleaseGrace); !r.Released.IsZero() && grace.After(at) {
		return grace
	}
	return at
}

// NoticeAt is when the sender hears that the recipient is late, the zero time
// = never. What was held and released is not late before it has been tried as long.
func (p Retry) NoticeAt(env *Envelope, r *Recipient) time.Time {
	if p.DelayNotice <= 0 || !r.State.Waits() || r.Delayed || !WantsDelayReport(env, *r) {
		return time.Time{}
	}
	if r.Released.After(env.Received) {
		return r.Released.Add(p.DelayNotice)
	}
	return env.Received.Add(p.DelayNotice)
}
