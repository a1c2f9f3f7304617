package queue

import "time"

// Verb is what a person does to recipients in the queue.
type Verb string

const (
	VerbRetry   Verb = "retry"   // those that wait are due now
	VerbHold    Verb = "hold"    // those that wait are kept back
	VerbRelease Verb = "release" // those that are held are due now
	VerbFail    Verb = "fail"    // given up, and the sender is told
	VerbDelete  Verb = "delete"  // given up, and nobody is told
)

// Action is a verb and whom it is done to.
type Action struct {
	Verb Verb
	Text string // VerbFail: words for the sender; "" = ours
	// First: VerbRetry makes them due before everybody else of their hop, so
	// that they are the ones by whom a parked hop is probed.
	First bool
	// Pick chooses recipients; nil: all. VerbDelete of all removes the message
	// outright, with reports about others that were still to come.
	Pick func(*Envelope, *Recipient) bool
}

// Acted is what an action came to.
type Acted struct {
	Messages   int
	Recipients int
	Hops       []string // retry and release: where something is due now
	Leased     []ID     // with chosen recipients that were left alone: an attempt is under way
	Missing    []ID     // no such message
	Effects    Effects
}

// Apply returns the recipient after the action at the time now, and whether
// there is anything to do for one in its state.
func (a Action) Apply(r Recipient, now time.Time) (Recipient, bool) {
	switch {
	case a.Verb == VerbRetry && r.State.Waits():
		r.Next = now
		return r, true
	case a.Verb == VerbHold && r.State.Waits():
		return r.hold(now), true
	case a.Verb == VerbRelease && r.State == Held:
		r = r.Offer(now)
		r.Released = now
		return r, true
	case a.Verb == VerbFail && !r.State.Final():
		text := a.Text
		if text == "" {
			text = "the operator of the relay has given the message up"
		}
		return r.end(now, Status{Code: "5.7.0", Text: text, Reason: ReasonOperatorFailed}), true
	case a.Verb == VerbDelete && !r.State.Final():
		return r.end(now, Status{Code: "5.7.0", Text: "deleted by the operator", Reason: ReasonOperatorDeleted}), true
	}
	return r, false
}

func (r Recipient) hold(now time.Time) Recipient {
	r.State, r.Next, r.Settled = Held, time.Time{}, now
	return r
}

// Offer is a held recipient that is due now.
func (r Recipient) Offer(now time.Time) Recipient {
	if r.HeldByRoute() || r.HeldByAnomaly() {
		r.Last = Status{} // it was about the hold, and that is over
	}
	r.State, r.Next, r.Settled = Queued, now, now
	return r
}

func (r Recipient) end(now time.Time, why Status) Recipient {
	r.State, r.Next, r.Settled, r.Last = Failed, time.Time{}, now, why
	return r
}

// HeldByRoute tells a route's hold from a person's, which leaves the last
// status as it was.
func (r Recipient) HeldByRoute() bool { return r.State == Held && r.Last.Reason == ReasonRouteHold }

// HeldByAnomaly tells the hold of a suspicious submission from others.
func (r Recipient) HeldByAnomaly() bool { return r.State == Held && r.Last.Reason == ReasonAnomalyHold }
