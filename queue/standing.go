package queue

import "time"

// Standing is how a recipient stands, for people: what is stored with it, and
// what its hop suffers from.
type Standing struct {
	Hop    string
	Parked bool      // it waits for its hop
	Next   time.Time // the later of due time and park; zero = it does not wait
	Status Status    // of its newest attempt; of the hop's when it was never tried
	Reason string
}

// StandingOf puts the two together; park is the hop's, or zero.
func StandingOf(r *Recipient, hop string, park HopInfo) Standing {
	st := Standing{Hop: hop, Next: r.Next, Status: r.Last, Reason: r.Last.Reason}
	switch {
	case r.State == Held && !r.HeldByRoute() && !r.HeldByAnomaly():
		st.Reason = ReasonOperatorHold
	case r.State.Waits() && park.Parked.After(r.Next):
		st.Next, st.Parked = park.Parked, true
		if r.Attempts == 0 {
			st.Status, st.Reason = park.Status, park.Status.Reason
		}
	}
	return st
}
