package delivery

import (
	"context"
	"slices"
	"strings"

	"srvrelay/delivery/smtpclient"
	"srvrelay/queue"
)

// meanwhile runs a question beside the attempts; false when the deliverer is
// told to stop.
func (d *Deliverer) meanwhile(ask func(context.Context)) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return false
	}
	d.wg.Go(func() { ask(d.asking) })
	return true
}

// stopAsking ends all questions, and lets none begin.
func (d *Deliverer) stopAsking() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	d.hush()
}

// ask puts a question to a hop. A refusal that does not say what is refused may
// be meant for the null sender: then postmaster, whom every domain has (RFC 5321
// 4.5.1), is refused as well, and the answer is none.
func (d *Deliverer) ask(ctx context.Context, hop, address string) Answer {
	a := d.askOne(ctx, hop, address)
	if a.Known == Refused && isVague(a.Status.Code) {
		domain := address[strings.LastIndexByte(address, '@'):]
		if d.askOne(ctx, hop, "postmaster"+domain).Known != Taken {
			a.Known = Unknown
		}
	}
	return a
}

// isVague tells whether a status says no more than that something went wrong.
func isVague(code string) bool {
	return code == "" || strings.HasSuffix(code, ".0.0") || code == "5.5.0"
}

// askOne asks about one recipient.
func (d *Deliverer) askOne(ctx context.Context, hop, address string) Answer {
	at := strings.LastIndexByte(address, '@')
	w := d.newWalk(&queue.Lease{
		Hop:      hop,
		Envelope: &queue.Envelope{UTF8: strings.ContainsFunc(address, func(r rune) bool { return r > '~' })},
		Rcpts:    []queue.Recipient{{Address: address, Domain: address[at+1:]}},
	}, false)
	w.asks = true
	outcomes, _ := w.attempt(ctx)
	if w.greeted {
		d.isBack(ctx, hop)
	}
	switch {
	case len(outcomes) > 0:
	case w.down != queue.Status{}: // it is known to be down, and was not tried
		return Answer{Known: Unknown, Status: w.down}
	default: // the attempt was interrupted, or there was no room for it
		return Answer{Known: Unknown, Status: queue.Status{Code: "4.4.2", Text: "no answer in time", Reason: queue.ReasonTimeout}}
	}
	return answerOf(outcomes[0])
}

// isBack wakes a hop that is parked: a question has found its server up.
func (d *Deliverer) isBack(ctx context.Context, hop string) {
	d.mu.Lock()
	h := d.hops[hop]
	parked := h != nil && h.failures > 0
	d.mu.Unlock()
	if parked {
		_ = d.Unpark(ctx, hop) // fails with the queue only, whose attempts say so
	}
}

// answerOf makes the outcome of an attempt that only asked an answer.
func answerOf(o queue.Outcome) Answer {
	a := Answer{Known: Unknown, Status: o.Status}
	switch {
	case o.Result == queue.Sent:
		a.Known = Taken
	case o.Result != queue.Fail:
	case o.Status.Reason == queue.ReasonRejected || o.Status.Reason == queue.ReasonNoSMTPUTF8:
		// Those are about him. Other failures are about the way to him: a
		// relay domain's mail waits for that to be mended.
		a.Known = Refused
	}
	return a
}

// judgeAnswers is Judge for a question. A server that refuses something else
// than the recipient, such as the null sender, has not answered.
func judgeAnswers(res smtpclient.Result) []Verdict {
	verdicts := Judge(res)
	for i, r := range res.Rcpt {
		v := &verdicts[i]
		switch {
		case r != nil && r.Code/100 == 2:
			*v = Verdict{Step: Stop, Result: queue.Sent, Status: replyStatus(*r)}
			v.Status.Reason = queue.ReasonSent
		case r == nil || !aboutRecipient(*r):
			v.Result = queue.Defer
		}
	}
	return verdicts
}

// aboutRecipient tells whether a refused RCPT is about who is named in it. Many
// servers check the sender and the client only then, so that a policy (5.7.x)
// may be about the null sender or about us.
func aboutRecipient(r smtpclient.Reply) bool {
	switch detail := r.Enhanced; {
	case !r.Permanent():
		return false
	case isVague(detail):
		return slices.Contains([]int{550, 551, 553}, r.Code)
	case detail == "5.1.7" || detail == "5.1.8": // the sender's address
		return false
	default:
		subject, _, _ := strings.Cut(detail[2:], ".")
		return subject == "1" || subject == "2"
	}
}
