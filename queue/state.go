package queue

// State is where a recipient has got to.
type State string

const (
	Queued    State = "queued"    // not tried yet, or released
	Deferred  State = "deferred"  // tried, waits for its next time
	Held      State = "held"      // kept, and not tried, until somebody releases it
	Delivered State = "delivered" // a next hop has taken responsibility
	Failed    State = "failed"    // a next hop, a rule or the operator refused for good
	Expired   State = "expired"   // given up after Retry.ExpireAfter
)

// transitions are the legal steps. A lease is not a state: it is kept in
// memory only, so that what was under way is simply due again after a crash.
var transitions = map[State][]State{
	Queued:   {Delivered, Deferred, Held, Failed, Expired},
	Deferred: {Delivered, Deferred, Held, Failed, Expired},
	Held:     {Queued, Failed},
}

// Final tells whether nothing more will happen to a recipient in this state.
func (s State) Final() bool { return len(transitions[s]) == 0 }

// Known tells whether there is such a state.
func (s State) Known() bool {
	switch s {
	case Queued, Deferred, Held, Delivered, Failed, Expired:
		return true
	}
	return false
}

// Waits tells whether a recipient in this state has a next attempt.
func (s State) Waits() bool { return s == Queued || s == Deferred }

// CanBecome tells whether the step is legal.
func (s State) CanBecome(to State) bool {
	for _, t := range transitions[s] {
		if t == to {
			return true
		}
	}
	return false
}
