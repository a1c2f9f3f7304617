package relay

import (
	"strings"

	"github.com/emersion/go-smtp"

	"srvrelay/queue"
)

// policy decides who may send to whom. It is the whole protection against
// being an open relay, and knows nothing but its arguments.
type policy struct {
	relay        domainSet
	home         string // the first relay domain with a name of its own; "" = none
	hostname     string // A-labels, lower case
	postmaster   string // "" = none
	deferUnknown bool   // see Config
}

// rcpt decides about one recipient at a door: the address to queue, or why not.
func (p *policy) rcpt(mode queue.Mode, to path) (queue.Recipient, *smtp.SMTPError) {
	if to, done, r := p.toPostmaster(mode, to); done || r != nil {
		return to, r
	}
	out := queue.Recipient{Address: to.text, Domain: to.addr.Domain}
	if mode == queue.Submission {
		return out, nil
	}
	switch {
	case to.addr.IsLiteral():
		return out, reply(550, 5, 7, 1, "no mail to address literals here")
	case !p.relay.has(to.addr.Domain):
		return out, reply(550, 5, 7, 1, "relaying denied")
	// A next hop may read these as a route to somewhere else.
	case strings.ContainsAny(to.addr.Local, "%!@"):
		return out, reply(550, 5, 7, 1, "routes in the local part are refused")
	}
	return out, nil
}

// toPostmaster handles the addresses that RFC 5321 4.5.1 reserves. done is
// false for all others. Without a postmaster of our own, mail for ours goes to
// that of the relay's first domain.
func (p *policy) toPostmaster(mode queue.Mode, to path) (rcpt queue.Recipient, done bool, r *smtp.SMTPError) {
	ours := to.bare || isPostmaster(to.addr.Local) && to.addr.Domain == p.hostname
	if !ours {
		return rcpt, false, nil
	}
	if p.postmaster == "" {
		if !to.bare && (mode == queue.Submission || p.relay.has(p.hostname)) {
			return rcpt, false, nil // an address as any other
		}
		if p.home == "" {
			return rcpt, false, reply(550, 5, 1, 1, "no postmaster is configured here")
		}
		return queue.Recipient{Address: "postmaster@" + p.home, Domain: p.home}, true, nil
	}
	a, err := ParseAddress(p.postmaster, true) // newSettings has seen to it
	if err != nil {
		return rcpt, false, refuseInternal
	}
	return queue.Recipient{Address: p.postmaster, Domain: a.Domain}, true, nil
}
