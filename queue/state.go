package queue

// State is where a recipient has got to.
type State string

const (
	Queued    State = "queued"    // never tried
	Deferred  State = "deferred"  // tried, waits for its next time
	Delivered State = "delivered" // a next hop has taken responsibility
	Failed    State = "failed"    // a next hop, or a rule, refused for good
	Expired   State = "expired"   // given up after Retry.ExpireAfter
)

// transitions are the legal steps. A lease is not a state: it is kept in
// memory only, so that what was under way is simply due again after a crash.
var transitions = map[State][]State{
	Queued:   {Delivered, Deferred, Failed, Expired},
	Deferred: {Delivered, Deferred, Failed, Expired},
}

// Final tells whether nothing more will happen to a recipient in this state.
func (s State) Final() bool { return len(transitions[s]) == 0 }

// CanBecome tells whether the step is legal.
func (s State) CanBecome(to State) bool {
	for _, t := range transitions[s] {
		if t == to {
			return true
		}
	}
	return false
}
