package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/emersion/go-smtp"
)

// Rate is how much may be used of something: N at once, and N more in each Per
// as it becomes free again. In no span of Per is more than 2 N used. The zero
// Rate is no limit.
type Rate struct {
	N    int64
	Per  time.Duration
	Text string // as configured: "200/h"
}

// RateRule says how much may be submitted: by a user, by each client address of
// a network (IPv6: by each /64), or, with neither, by all together. A user is
// bound by the first rule with their name, else by the first for "*"; an
// address, logged in or not, by the first rule whose network it is in.
type RateRule struct {
	User       string // a name, or "*": each user without a rule of their own
	Network    netip.Prefix
	Messages   Rate
	Recipients Rate
	Bytes      Rate
}

// What is counted.
const (
	countMessages   = "messages"
	countRecipients = "recipients"
	countBytes      = "bytes"
)

// rateRules are rules as they are looked up.
type rateRules struct {
	users map[string]RateRule
	nets  []RateRule
	total []RateRule
}

func newRateRules(rules []RateRule) (rateRules, error) {
	out := rateRules{users: map[string]RateRule{}}
	var errs []error
	for i, r := range rules {
		for _, rate := range []Rate{r.Messages, r.Recipients, r.Bytes} {
			if rate != (Rate{}) && (rate.N <= 0 || rate.Per <= 0) {
				errs = append(errs, fmt.Errorf("rates[%d]: %d in %s is no rate", i, rate.N, rate.Per))
			}
		}
		_, again := out.users[r.User]
		switch {
		case r.User != "" && r.Network.IsValid():
			errs = append(errs, fmt.Errorf("rates[%d]: is for a user and for a network", i))
		case r.Network.IsValid():
			out.nets = append(out.nets, r)
		case r.User == "":
			out.total = append(out.total, r)
		case !again:
			out.users[r.User] = r
		}
	}
	return out, errors.Join(errs...)
}

// share is a limit that one client is under, and the bucket of its use.
type share struct {
	key  bucketKey
	rate Rate
	who  string // for the reply
	rule string // the key of the configuration
}

// of lists what a client is under.
func (rs *rateRules) of(user string, client netip.Addr) (all []share) {
	take := func(r RateRule, who, shown, rule string) {
		for _, c := range []struct {
			what string
			rate Rate
		}{{countMessages, r.Messages}, {countRecipients, r.Recipients}, {countBytes, r.Bytes}} {
			if c.rate != (Rate{}) {
				all = append(all, share{bucketKey{who, c.what}, c.rate, shown, rule})
			}
		}
	}
	if user != "" {
		r, own := rs.users[user]
		if !own {
			r = rs.users[everybody]
		}
		take(r, "user "+user, brief(user, 60), "submission.limits")
	}
	for _, r := range rs.nets {
		if r.Network.Contains(client.Unmap()) {
			take(r, "address "+addressKey(client), "your address", "submission.limits")
			break
		}
	}
	for _, r := range rs.total {
		take(r, "total", "this relay", "submission.total")
	}
	return all
}

// bucket is how full a limit is: what was used runs off evenly, as much as the
// rate allows. The zero bucket is empty.
type bucket struct {
	Used   float64   `json:"used"`
	At     time.Time `json:"at"`    // when Used was right
	Empty  time.Time `json:"empty"` // when nothing is left of it
	Warned bool      `json:"warned,omitempty"`
}

// At 80 % of the limit there is a warning, once until no more than half is used.
const (
	nearly = 0.79 // some has run off already while it filled up
	calm   = 0.5
)

// after is the bucket at a later time. A clock that went back changes nothing.
func (b bucket) after(r Rate, now time.Time) bucket {
	if past := now.Sub(b.At); past > 0 {
		b.Used = max(0, b.Used-float64(r.N)*(float64(past)/float64(r.Per)))
	}
	b.At = now
	if b.Used <= calm*float64(r.N) {
		b.Warned = false
	}
	return b.filled(r, 0)
}

// filled is the bucket with n more in it, or less, whether there is room or not.
func (b bucket) filled(r Rate, n int64) bucket {
	b.Used = max(0, b.Used+float64(n))
	b.Empty = b.At.Add(time.Duration(b.Used / float64(r.N) * float64(r.Per)))
	return b
}

// wait is how long it takes until there is room for n; 0 = there is. What is
// more than the whole limit needs an empty bucket, or it would never pass.
func (b bucket) wait(r Rate, n int64) time.Duration {
	const rounding = 1e-6
	over := b.Used + float64(min(n, r.N)) - float64(r.N)
	if over <= rounding {
		return 0
	}
	return time.Duration(over / float64(r.N) * float64(r.Per))
}

// near tells whether the warning is due.
func (b bucket) near(r Rate) bool { return !b.Warned && b.Used >= nearly*float64(r.N) }

// charge is what a transaction has taken from the buckets of its client. It is
// given back unless the message is accepted.
type charge struct {
	shares []share
	meter  *Meter
	taken  map[string]int64 // by what is counted
}

// take takes n of each thing from all buckets that count it, or from none.
func (c *charge) take(now time.Time, near func(NearLimit), amounts ...amount) *smtp.SMTPError {
	if c == nil {
		return nil
	}
	full, until, warn := c.meter.take(c.shares, amounts, now)
	if full != nil {
		return refuseRate(*full, until)
	}
	for _, a := range amounts {
		c.taken[a.what] += a.n
	}
	for _, w := range warn {
		near(w)
	}
	return nil
}

// amount is how much of a thing.
type amount struct {
	what string
	n    int64
}

// back returns what was taken of one thing too much.
func (c *charge) back(now time.Time, a amount) {
	if c != nil {
		c.meter.add(c.shares, a.what, -a.n, now)
		c.taken[a.what] -= a.n
	}
}

// keep makes the charge final, with the size that the message has come to. It
// may be more than there was room for: what is over must run off first.
func (c *charge) keep(now time.Time, size int64) {
	if c != nil {
		c.meter.add(c.shares, countBytes, size-c.taken[countBytes], now)
		clear(c.taken)
	}
}

// release gives back what was not kept.
func (c *charge) release(now time.Time) {
	if c == nil {
		return
	}
	for what, n := range c.taken {
		c.meter.add(c.shares, what, -n, now)
	}
	clear(c.taken)
}

// refuseRate says which limit is reached, and from when it goes on.
func refuseRate(s share, until time.Time) *smtp.SMTPError {
	return reply(450, 4, 7, 1, fmt.Sprintf("%s: the limit of %s %s (%s) is reached, it goes on at %s",
		s.who, s.rate.Text, s.key.What, s.rule, until.UTC().Format("2006-01-02 15:04:05 UTC")))
}
