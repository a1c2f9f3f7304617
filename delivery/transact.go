package delivery

import (
	"context"
	"errors"
	"slices"
	"time"

	"srvrelay/delivery/smtpclient"
	"srvrelay/queue"
)

// ending is how a session came out of transact.
type ending uint8

const (
	reusable ending = iota
	spent           // closed, or out of step: to be closed
	stale           // a reused session that was gone before it said anything: nothing was tried
)

// transact hands the open recipients over on one session, in as many
// transactions as the server wants, and notes a verdict for each of them.
func (w *walk) transact(ctx context.Context, c *conn) ending {
	pending := w.addressable(c, w.open())
	for len(pending) > 0 && ctx.Err() == nil {
		now, rest := pending, []int(nil)
		if n := c.Ext().RcptMax; n > 0 && len(now) > n {
			now, rest = now[:n], now[n:]
		}
		t := w.transaction(ctx, c, now)
		if t.end == stale {
			return stale
		}
		var again []int
		w.pace(c, t)
		for i, v := range t.verdicts {
			w.note(now[i], v, c)
			if v.Step == SameTarget && t.took {
				again = append(again, now[i])
			}
		}
		if t.end == spent || t.refused {
			for _, i := range rest {
				w.note(i, t.unasked(), c)
			}
			return t.end
		}
		pending = append(again, rest...)
	}
	return reusable
}

// addressable parts those recipients whom the server can be asked for from
// those who need an SMTPUTF8 that it does not offer.
func (w *walk) addressable(c *conn, rcpts []int) (rest []int) {
	for _, i := range rcpts {
		if w.lease.Rcpts[i].NeedsUTF8() && !c.Ext().SMTPUTF8 {
			w.note(i, *lacking("SMTPUTF8"), c)
			continue
		}
		rest = append(rest, i)
	}
	return rest
}

// transaction is what one transaction came to.
type transaction struct {
	verdicts []Verdict // one a recipient
	shared   Verdict   // of those who were not refused one by one
	end      ending
	took     bool // the server accepted the message for somebody
	refused  bool // as a whole, before any recipient was named
}

// unasked is the verdict on the recipients whom a session that ended never
// named: no reply to others is theirs, but for a refusal of the whole.
func (t transaction) unasked() Verdict {
	switch {
	case t.refused:
		return t.shared
	case t.shared.Step == NextTarget && t.shared.Result == queue.Defer:
		return t.shared // how the session ended, and nothing more
	}
	return classifyFailure(smtpclient.StageMail, smtpclient.ErrClosed)
}

// pace lets a transaction count for the connections that its target gets:
// once, however many its recipients.
func (w *walk) pace(c *conn, t transaction) {
	slower := func(v Verdict) bool {
		return v.Slower && (c.origin.IsZero() || !isPolicy(v)) // who comes too often is the client
	}
	if slices.ContainsFunc(t.verdicts, slower) {
		w.d.health.slower(c.ep)
	} else if t.took {
		w.d.health.faster(c.ep)
	}
}

// transaction is one MAIL ... end of data for some of the lease's recipients.
func (w *walk) transaction(ctx context.Context, c *conn, rcpts []int) transaction {
	m := w.mail(rcpts)
	first := c.used == 0 || !c.fresh
	if res, in := w.introduce(ctx, c, len(rcpts)); !in {
		return w.cameTo(c, res, first)
	}
	if v := lacking(c.Ext().Lacks(m)); v != nil {
		return transaction{verdicts: same(*v, len(rcpts)), shared: *v, refused: true}
	}
	res, broken := w.speak(ctx, c, m)
	if broken != nil {
		return transaction{verdicts: same(*broken, len(rcpts)), shared: *broken, refused: true, end: endOf(res)}
	}
	return w.cameTo(c, res, first)
}

// cameTo judges what a session has answered; first: it had not spoken before in
// this attempt.
func (w *walk) cameTo(c *conn, res smtpclient.Result, first bool) transaction {
	c.used++
	if !c.fresh && first && goneBeforeReply(res) {
		return transaction{end: stale}
	}
	c.fresh = true // it has spoken: from here on its failures are its own
	t := transaction{verdicts: Judge(res), shared: fate(res), refused: res.Stage == smtpclient.StageMail, end: endOf(res)}
	if w.asks {
		t.verdicts = judgeAnswers(res)
	}
	for _, v := range t.verdicts {
		t.took = t.took || v.Result == queue.Sent
	}
	return t
}

// speak sends the message, or asks. broken is the verdict when the stored body
// could not be read.
func (w *walk) speak(ctx context.Context, c *conn, m *smtpclient.Mail) (res smtpclient.Result, broken *Verdict) {
	if w.asks {
		return c.Ask(ctx, m), nil
	}
	body, err := w.lease.Open()
	if err != nil {
		v := w.unreadable(err)
		return res, &v
	}
	defer body.Close()
	m.Body = body
	begin := time.Now()
	res = c.Send(ctx, m)
	w.took.Transfer += time.Since(begin)
	if res.Err != nil && errors.Is(res.Err, smtpclient.ErrBody) { // not to be blamed on the server
		v := w.unreadable(res.Err)
		return res, &v
	}
	return res, nil
}

// endOf says whether a session can be used again.
func endOf(res smtpclient.Result) ending {
	if res.Closing || res.Err != nil {
		return spent
	}
	return reusable
}

// mail is the transaction's envelope for some of the lease's recipients.
func (w *walk) mail(rcpts []int) *smtpclient.Mail {
	env := w.lease.Envelope
	m := &smtpclient.Mail{
		From: env.Sender, Size: env.Size, Has8Bit: env.Has8Bit, UTF8: env.UTF8, Ret: env.Ret, EnvID: env.EnvID,
	}
	m.Rcpts = make([]smtpclient.Rcpt, 0, len(rcpts))
	for _, i := range rcpts {
		r := &w.lease.Rcpts[i]
		m.UTF8 = m.UTF8 || r.NeedsUTF8()
		m.Rcpts = append(m.Rcpts, smtpclient.Rcpt{To: r.Address, Notify: r.Notify.String(), ORcpt: r.ORcpt})
	}
	return m
}

// goneBeforeReply tells whether a session was closed, or told to go, before
// it answered anything of the transaction.
func goneBeforeReply(res smtpclient.Result) bool {
	if res.Stage != smtpclient.StageMail {
		return false
	}
	if res.Final != nil {
		return res.Final.Code == 421
	}
	return res.Err != nil && errors.Is(res.Err, smtpclient.ErrClosed) // a server that only keeps silent is there
}

// unreadable is the verdict on a message that the store cannot read.
func (w *walk) unreadable(err error) Verdict {
	w.d.cfg.Events.Trouble(Trouble{ID: w.lease.Envelope.ID, Hop: w.lease.Hop, What: "the stored message cannot be read", Err: err})
	return Verdict{Step: Stop, Result: queue.Defer, Status: queue.Status{
		Code: "4.3.0", Text: "the message could not be read from the queue", Reason: queue.ReasonInternal,
	}}
}

// lacking is the verdict on a server without an extension that the message
// needs: it rules out this target only.
func lacking(ext string) *Verdict {
	v := Verdict{Step: NextTarget, Result: queue.Fail}
	switch ext {
	case "":
		return nil
	case "8BITMIME":
		v.Status = queue.Status{Code: "5.6.3", Text: "the server does not take 8-bit messages (8BITMIME)", Reason: queue.ReasonNo8BitMIME}
	case "SMTPUTF8":
		v.Status = queue.Status{Code: "5.6.7", Text: "the server does not take internationalized addresses (SMTPUTF8)", Reason: queue.ReasonNoSMTPUTF8}
	default:
		v.Status = queue.Status{Code: "5.3.4", Text: "the message is larger than the server takes (SIZE)", Reason: queue.ReasonTooBig}
	}
	return &v
}

func same(v Verdict, n int) []Verdict {
	vs := make([]Verdict, n)
	for i := range vs {
		vs[i] = v
	}
	return vs
}
