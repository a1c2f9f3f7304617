package queue

import (
	"time"
)

// Retry says when to try again and when to give up.
type Retry struct {
	Schedule    []time.Duration // intervals after each failed attempt; the last one repeats
	ExpireAfter time.Duration   // since Envelope.Received
	DelayNotice time.Duration   // since Envelope.Received; 0 = never
}

// DefaultRetry is the schedule of the documentation.
var DefaultRetry = Retry{
	Schedule:    []time.Duration{time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute, time.Hour},
	ExpireAfter: 120 * time.Hour,
	DelayNotice: 4 * time.Hour,
}

// Bounds of the interval between two probes of a dead target: of any, and of
// one for the domains that we carry mail home for. Their operator vouches for
// them, and waits for his mail when the machine is switched on again.
const (
	maxProbe     = 5 * time.Minute
	maxHomeProbe = time.Minute
)

// Interval is the pause after the n-th failed attempt (n from 1), spread by
// ±10 % with chance in [0,1).
func (p Retry) Interval(n int, chance float64) time.Duration {
	if n < 1 {
		n = 1
	}
	d := p.Schedule[min(n, len(p.Schedule))-1]
	return time.Duration(float64(d) * (0.9 + 0.2*chance))
}

// ProbeInterval is the pause after the n-th failure of a target to connect or
// greet (n from 1): the schedule's first interval, doubled up to 5 minutes, and
// on the way home up to one.
func (p Retry) ProbeInterval(n int, home bool) time.Duration {
	d, most := p.Schedule[0], maxProbe
	if home {
		most = maxHomeProbe
	}
	for ; n > 1 && d < most; n-- {
		d *= 2
	}
	return min(d, max(most, p.Schedule[0]))
}

// Advance returns r after the outcome o of an attempt at the time now. An
// attempt at or after expires is the last one. A hold is no attempt: nobody
// was asked.
func (p Retry) Advance(r Recipient, o Outcome, expires, now time.Time, chance float64) Recipient {
	if o.Result != Hold {
		r.Attempts++
	}
	r.Last = o.Status
	r.Settled = now
	r.SameFirst = o.SameFirst
	r.Next = time.Time{}
	switch {
	case o.Result == Hold:
		r.State = Held
	case o.Result == Sent:
		r.State = Delivered
	case o.Result == Fail:
		r.State = Failed
	case !now.Before(expires):
		return p.Expire(r, now)
	default:
		r.State = Deferred
		r.Next = now
		if !o.HopWaits {
			r.Next = now.Add(p.Interval(r.Attempts, chance))
		}
		if r.Next.After(expires) {
			r.Next = expires // the last attempt is at the expiry itself
		}
	}
	return r
}

// Expire gives a recipient up. Its last real status stays, with "expired" in
// the text; without one the code is 4.4.7 (RFC 3463 3.5).
func (p Retry) Expire(r Recipient, now time.Time) Recipient {
	r.State = Expired
	r.Settled = now
	r.Next = time.Time{}
	if r.Last.Code == "" {
		r.Last.Code = "4.4.7"
	}
	if r.Last.Text == "" {
		r.Last.Text = "message expired"
	} else {
		r.Last.Text = "message expired: " + r.Last.Text
	}
	r.Last.Reason = ReasonExpired
	return r
}
