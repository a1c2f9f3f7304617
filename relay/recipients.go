package relay

import (
	"context"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"srvrelay/queue"
)

// Recipients knows who exists in the relay domains. What the door takes for
// somebody who does not comes back from the home server, and a report about it
// goes to whoever the sender's address was stolen from.
type Recipients interface {
	// Check may take some seconds. Many connections call it at once.
	Check(ctx context.Context, to queue.Recipient) Answer
}

// Answer is what is known of a recipient.
type Answer struct {
	Verdict  Verdict
	Enhanced string // NoSuch: the status of the refusal, "" = 5.1.1
	Text     string // NoSuch: why, in the words of who knows; "" = our own
}

// Verdict on a recipient.
type Verdict uint8

// The verdicts. Unknown: it could not be found out. TooMany: it was not tried,
// because too much was asked already.
const (
	Unknown Verdict = iota
	Exists
	NoSuch
	TooMany
)

var (
	refuseUnverified = reply(450, 4, 4, 1, "the recipient cannot be verified now, try again later")
	refuseTooMany    = reply(450, 4, 4, 5, "too many recipients to verify, try again later")
	refuseHarvest    = reply(450, 4, 7, 1, "too many unknown recipients from your address, try again later")
)

// checks tells whether a recipient that rcpt has let pass must exist: one of a
// relay domain, but for postmaster, whom every domain has (RFC 5321 4.5.1).
func (p *policy) checks(to path) bool {
	return !to.bare && p.relay.has(to.addr.Domain) && !isPostmaster(to.addr.Local)
}

func isPostmaster(local string) bool { return strings.EqualFold(local, "postmaster") }

// judge makes an answer a reply; nil = accepted. Our own users' mail is not put
// off because it could not be found out: they get a report they can use.
func (p *policy) judge(mode queue.Mode, a Answer) *smtp.SMTPError {
	switch a.Verdict {
	case Exists:
		return nil
	case NoSuch:
		return noSuch(a)
	case TooMany:
		// To accept what is not verified is what a guesser of addresses hopes for.
		return refuseTooMany
	}
	if p.deferUnknown && mode == queue.Inbound {
		return refuseUnverified
	}
	return nil
}

// noSuch is the refusal of a recipient: 5.1.1, or what the home server has
// said about it, so long as that is a permanent status that
// says something.
func noSuch(a Answer) *smtp.SMTPError {
	r := reply(550, 5, 1, 1, "no such recipient here")
	if code, ok := parseEnhanced(a.Enhanced); ok && code[0] == 5 && code[1] != 0 {
		r.EnhancedCode = code
	}
	if r.EnhancedCode == (smtp.EnhancedCode{5, 6, 7}) { // RFC 6531 3.6.2.2
		r.Code = 553
	}
	if text := safeText(a.Text); text != "" {
		r.Message += ": " + text
	}
	return r
}

// known asks whether a recipient of a relay domain exists.
func (s *session) known(to queue.Recipient) *smtp.SMTPError {
	set := s.conn.set
	if set.Recipients == nil {
		return nil
	}
	mode, key := s.conn.listener.Mode, addressKey(s.conn.remote.Addr())
	if mode == queue.Inbound && s.srv.unknown.count(key, time.Minute, time.Now()) >= set.Limits.Unknown {
		return refuseHarvest
	}
	a := set.Recipients.Check(s.srv.ctx, to)
	if mode == queue.Inbound && a.Verdict == NoSuch {
		s.srv.unknown.add(key, time.Minute, time.Now())
	}
	return set.policy.judge(mode, a)
}
