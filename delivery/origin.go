package delivery

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/delivery/smtpclient"
	"srvrelay/queue"
)

// originOf is what a server may be told of the client of a message: nothing of
// our own reports, and nothing of a client on this machine, because the server
// would take a loopback or link-local address for one of its own.
func originOf(env *queue.Envelope) smtpclient.Origin {
	c := env.Client
	a := c.Addr.Addr().Unmap()
	if !a.IsValid() || a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() {
		return smtpclient.Origin{}
	}
	return smtpclient.Origin{Addr: netip.AddrPortFrom(a.WithZone(""), c.Addr.Port()), Helo: c.Helo, Login: c.User}
}

// origin is what a target is told of the lease's client.
func (w *walk) origin(t plan.Target) smtpclient.Origin {
	if w.asks || t.Origin == plan.OriginNone {
		return smtpclient.Origin{}
	}
	return originOf(w.lease.Envelope)
}

// maySpeakFor tells whether a session can be used for a message of a client. One
// that has spoken for another needs a further XCLIENT, which not every server
// takes: Postfix looks whether it may come from the client. And there is no way
// back to nobody.
func (c *conn) maySpeakFor(from smtpclient.Origin) bool {
	return from == c.origin || !from.IsZero() && (c.origin.IsZero() || c.Ext().OffersXClient())
}

// sayProxy sends a PROXY protocol header, before anything else. A connection
// that is for nobody has one, too: the server waits for it.
func sayProxy(ctx context.Context, nc net.Conn, from smtpclient.Origin) error {
	var server netip.AddrPort
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		server = a.AddrPort()
	}
	if until, ok := ctx.Deadline(); ok {
		_ = nc.SetWriteDeadline(until)
		defer func() { _ = nc.SetWriteDeadline(time.Time{}) }()
	}
	_, err := nc.Write(smtpclient.AppendProxyHeader(nil, from.Addr, server))
	return err
}

// greeted judges a failed greeting. A reply to a client whom the connection is
// for is about his mail: that he is on some list, or comes too often, makes the
// server neither down nor the relay unwelcome.
func (c *conn) greeted(err *smtpclient.Error) *Verdict {
	if err.Reply == nil || c.origin.IsZero() || outOfStep(err.Reply) {
		return classified(err)
	}
	v := Classify(&smtpclient.Error{Stage: smtpclient.StageMail, Reply: err.Reply})
	v.Client, v.Slower = true, false
	return &v
}

// outOfStep tells whether a server may have taken the header of the proxy for
// commands: one that does not expect it refuses the syntax, or without a code says
// that we talk out of turn (Exim). Such a refusal is about the route, and no
// message is returned for it.
func outOfStep(r *smtpclient.Reply) bool {
	return r.Permanent() && (r.Code <= 504 || r.Enhanced == "" || strings.HasPrefix(r.Enhanced, "5.5."))
}

// introduce tells the server whom the message is from, where the route wants it
// and the session does not speak for him already. in is false when the
// transaction has ended with it: res is what it came to. A server that does not
// take XCLIENT from us gets the message without, and the log says so.
func (w *walk) introduce(ctx context.Context, c *conn, rcpts int) (res smtpclient.Result, in bool) {
	from := w.origin(w.target)
	if w.target.Origin != plan.OriginXClient || from == c.origin {
		return res, true
	}
	if from.IsZero() { // there is no way back; see maySpeakFor
		return endedAtMail(rcpts, &smtpclient.Error{Err: smtpclient.ErrClosed}), false
	}
	why, err := tell(ctx, c, from)
	switch {
	case err != nil:
		c.origin = from // what it says now, it says to him
		return endedAtMail(rcpts, err), false
	case why == "":
		c.origin = from
		return res, true
	case c.origin.IsZero():
		w.unintroduced(c, why)
		return res, true
	}
	// It speaks for somebody else: another session.
	return endedAtMail(rcpts, &smtpclient.Error{Err: smtpclient.ErrClosed}), false
}

// tell says XCLIENT; why is why the server does not take it from us, "" = it does.
func tell(ctx context.Context, c *conn, from smtpclient.Origin) (why string, err *smtpclient.Error) {
	if !c.Ext().OffersXClient() {
		return "it does not offer XCLIENT with ADDR", nil
	}
	refused, err := c.XClient(ctx, from)
	if refused != nil {
		why = refused.String()
	}
	return why, err
}

// endedAtMail is a transaction that ended before any recipient was named.
func endedAtMail(rcpts int, err *smtpclient.Error) smtpclient.Result {
	res := smtpclient.Result{Rcpt: make([]*smtpclient.Reply, rcpts), Stage: smtpclient.StageMail, Closing: true}
	if err.Reply != nil {
		res.Final = err.Reply
		return res
	}
	res.Err = &smtpclient.Error{Stage: smtpclient.StageMail, Err: err.Err}
	return res
}

// unintroduced says, once for a session, that the server takes us for the client.
func (w *walk) unintroduced(c *conn, why string) {
	if !c.untold {
		w.d.cfg.Events.Trouble(Trouble{
			ID: w.lease.Envelope.ID, Hop: w.lease.Hop, Target: targetName(w.target, c.ep),
			What: "the server is not told who the client is", Err: errors.New(queue.Safe(why, 300)),
		})
		c.untold = true
	}
}

// isPolicy tells whether a reply is about security or policy (RFC 3463 3.8).
func isPolicy(v Verdict) bool { return strings.HasPrefix(v.Status.Code, "4.7.") }
