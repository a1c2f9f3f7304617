package delivery

import (
	"context"
	"crypto/tls"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/delivery/smtpclient"
	"srvrelay/queue"
)

// Contact is what a target says when it is connected to as for a message, but
// without one: for people who want to know what is there.
type Contact struct {
	Banner     string
	Extensions []string // of the newest EHLO, as the server wrote them
	TLS        *tls.ConnectionState
	Unverified error        // why the certificate would not do where it mattered; nil: it would
	Login      string       // the account that was accepted
	Status     queue.Status // why it went no further; zero: as far as the plan wants
	Took       time.Duration
}

// Contact connects to a target as an attempt would, up to TLS and login, and
// hangs up. It counts neither for the target's health nor for its connections.
func (d *Deliverer) Contact(ctx context.Context, domain string, t plan.Target, ep plan.Endpoint) (c Contact) {
	if ep.Calls() { // it would use up the call
		if d.callers.count(ep) == 0 {
			c.Status = notCalled
		}
		return c
	}
	begin := time.Now()
	session, v := d.open(ctx, domain, t, ep, smtpclient.Origin{}, t.TLS.Level != plan.TLSNone, &c)
	if v != nil && v.Status.Reason == queue.ReasonTLS && t.TLS.Level == plan.TLSMay && ctx.Err() == nil {
		failed := v.Status
		session, v = d.open(ctx, domain, t, ep, smtpclient.Origin{}, false, &c)
		failed.Text += "; mail would go in clear text"
		c.Status = failed
	}
	if v != nil {
		c.Status = v.Status
	}
	if session != nil {
		session.Quit()
	}
	c.Took = time.Since(begin)
	return c
}

// see notes how far a session has got. A nil Contact notes nothing.
func (c *Contact) see(s *smtpclient.Session, t plan.Target) {
	if c == nil {
		return
	}
	if c.Banner == "" {
		c.Banner = s.Banner().String()
	}
	c.Extensions = s.Ext().Lines
	if c.TLS = s.TLSState(); c.TLS != nil {
		names := t.TLS.Names
		if len(names) == 0 {
			names = []string{t.Host}
		}
		c.Unverified = smtpclient.VerifyNames(t.TLS.Roots, names, t.TLS.Services)(*c.TLS)
	}
}
